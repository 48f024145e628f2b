"""The tutorial notebook runs from its first cell to its last."""

from __future__ import annotations

import json

import nbformat
import pytest
from doc_pages import ROOT
from nbclient import NotebookClient
from workshop import make_clone

NOTEBOOK = ROOT / 'docs/tutorial.ipynb'


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
