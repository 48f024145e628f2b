"""The detection study: what its configs promise, and a run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

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
    classes = {name.split('-')[0] for name in study.LAYERS} - {'none'}
    assert [name for name in kinds if name in classes] == [layer.split('-')[0]] * (layer != 'none')
    # Building completes a config: compare fresh ones.
    fresh, control = (Config.fromfile(study.config_of(name)) for name in (layer, 'none'))
    fresh.model.backbone.sites = []
    assert fresh.to_dict() == control.to_dict()


def test_a_run_gives_the_layer_alone_its_rate():
    cfg = study.config_of_run('NonLocal2d', 10.0, 3, 2)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(group['params'][0]): group['lr'] for group in wrapper.param_groups}
    base = cfg.optim_wrapper.optimizer.lr
    fast = {name for name, p in model.named_parameters() if rates[id(p)] == 10 * base}
    assert fast == {name for name, _ in model.named_parameters() if '.site' in name} != set()
    assert set(rates.values()) == {base, 10 * base}


def test_both_forms_of_poly_nl_are_compared():
    normed, published = (
        Config.fromfile(study.config_of(name)).model.backbone.sites[0].cfg
        for name in ('PolyNL', 'PolyNL-published')
    )
    assert normed == dict(published, context_norm=dict(type='LN'))


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path):
    study.make_toy_far_cue(tmp_path / study.DATA, 16, 4)
    command = [sys.executable, str(ROOT / 'benchmarks' / 'far_cue_detection.py')]
    command += [
        '--layer',
        'PolyNL',
        '--seeds',
        '1',
        '--epochs',
        '1',
        '--rates',
        '1',
        '--output',
        'out.json',
    ]

    def run():
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'out.json').read_text())
    assert set(results['runs']) == {'PolyNL 1 0'}
    assert 0 <= results['runs']['PolyNL 1 0']['segm_mAP'] <= 1
    assert '| PolyNL' in done.stdout
    assert '| none ' in done.stdout
    assert 'PolyNL 1 0:' not in run().stdout, 'what is stored is not run again'


def test_the_stored_study_is_shown_in_the_docs():
    report = json.loads((ROOT / 'docs' / 'far_cue_detection.json').read_text())
    page = (ROOT / 'docs' / 'comparison.md').read_text(encoding='utf-8')
    assert study.table(report) in page
