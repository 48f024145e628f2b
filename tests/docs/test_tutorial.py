"""The tutorial notebook runs from its first cell to its last, and is stored with small outputs."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / 'docs' / 'tutorial.ipynb'


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_as_it_was_run():
    cells = [cell for cell in read().cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum('image/jpeg' in output.get('data', {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == 'error']
    assert not [output for output in outputs if output.get('name') == 'stderr']
    assert NOTEBOOK.stat().st_size < 300_000
    text = NOTEBOOK.read_text(encoding='utf-8')
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


@pytest.mark.slow
def test_it_runs_and_the_layer_learns_what_the_plain_detector_cannot(tmp_path):
    notebook = read()
    resources = {'metadata': {'path': str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name='python3', resources=resources).execute()

    def ap50(name: str) -> float:
        result = max((tmp_path / 'tutorial' / name / 'test').glob('*/*.json'))
        return json.loads(result.read_text())['coco/bbox_mAP_50']

    assert ap50('retinanet') < 0.7
    assert ap50('retinanet_polynl') > 0.9
    assert (tmp_path / 'tutorial' / 'retinanet_polynl.onnx').stat().st_size > 0
