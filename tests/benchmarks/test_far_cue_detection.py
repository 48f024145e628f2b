"""The detection study: what its configs promise, and a run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import far_cue_detection as study  # noqa: E402


def test_the_cue_is_out_of_reach_without_a_layer():
    assert study.reach(study.config_of('none')) + study.BEYOND_SHAPE < study.MIN_DISTANCE


def test_a_layer_reaches_all_of_the_image():
    assert study.reach(study.config_of('PolyNL')) > 250


@pytest.mark.parametrize('layer', study.LAYERS)
def test_each_config_has_its_layer_and_nothing_else_differs(layer):
    cfg = Config.fromfile(study.config_of(layer))
    kinds = [type(m).__name__ for m in MODELS.build(cfg.model).backbone.modules()]
    assert [kinds.count(name) for name in study.LAYERS] == [
        int(name == layer and name != 'none') for name in study.LAYERS
    ]
    # Building completes a config: compare fresh ones.
    fresh, control = (Config.fromfile(study.config_of(name)) for name in (layer, 'none'))
    fresh.model.backbone.sites = []
    assert fresh.to_dict() == control.to_dict()


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path):
    study.make_toy_far_cue(tmp_path / study.DATA, 16, 4)
    command = [sys.executable, str(ROOT / 'benchmarks' / 'far_cue_detection.py')]
    command += ['--layer', 'PolyNL', '--seeds', '1', '--epochs', '1', '--output', 'out.json']

    def run():
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'out.json').read_text())
    assert set(results['runs']) == {'PolyNL 0'}
    assert 0 <= results['runs']['PolyNL 0']['segm_mAP'] <= 1
    assert '| PolyNL' in done.stdout
    assert '| none ' in done.stdout
    assert 'PolyNL 0:' not in run().stdout, 'what is stored is not run again'


def test_the_stored_study_is_shown_in_the_docs():
    report = json.loads((ROOT / 'docs' / 'far_cue_detection.json').read_text())
    page = (ROOT / 'docs' / 'comparison.md').read_text(encoding='utf-8')
    assert study.table(report) in page
