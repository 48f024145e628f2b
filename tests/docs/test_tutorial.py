"""The tutorial notebook runs from its first cell to its last, and is stored with small outputs."""

from __future__ import annotations

import json

import nbformat
import pytest
from doc_pages import ROOT
from nbclient import NotebookClient
from workshop import make_clone

NOTEBOOK = ROOT / 'docs/tutorial.ipynb'


def test_it_is_stored_as_it_was_run():
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum('image/jpeg' in output.get('data', {}) for output in outputs) == 3
    assert not [o for o in outputs if o.output_type == 'error' or o.get('name') == 'stderr']
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_it_runs_and_the_layer_learns_what_the_plain_detector_cannot(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    make_clone(tmp_path)
    resources = {'metadata': {'path': str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name='python3', resources=resources).execute()

    def ap50(name: str) -> float:
        result = max((tmp_path / 'tutorial' / name / 'test').glob('*/*.json'))
        return json.loads(result.read_text())['coco/bbox_mAP_50']

    assert ap50('retinanet') < 0.7
    assert ap50('retinanet_polynl') > 0.9
