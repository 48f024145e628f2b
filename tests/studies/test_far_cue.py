"""The far-cue study: its images, what its detectors reach, and a short run."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from pycocotools.coco import COCO

from studies.far_cue import run as study
from studies.far_cue.images import HEIGHT, MIN_DISTANCE, WIDTH, make_far_cue


def test_the_class_is_the_cues_and_far_from_every_shape(tmp_path):
    make_far_cue(tmp_path, train=40, val=4, seed=0)
    coco = COCO(str(tmp_path / 'annotations/instances_train.json'))
    labels = []
    for entry in coco.dataset['images']:
        image = cv2.imread(str(tmp_path / 'train' / entry['file_name'])).astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        blue, _, red = image.transpose(2, 0, 1)
        cues = red - blue > 110, blue - red > 110  # JPEG blurs colours
        annotations = coco.imgToAnns[entry['id']]
        (label,) = {a['category_id'] - 1 for a in annotations}
        assert cues[label].sum() > 100
        assert cues[1 - label].sum() == 0
        columns = np.nonzero(cues[label].any(axis=0))[0]
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            assert image[mask > 0].min() > 150, 'a shape is white in either class'
            assert np.abs(np.nonzero(mask)[1][:, None] - columns).min() >= MIN_DISTANCE
        labels.append(label)
    assert 0.25 < np.mean(labels) < 0.75


def test_the_cue_is_out_of_reach_without_a_layer():
    assert study.reach(study.config_of('none')) + study.BEYOND_SHAPE < MIN_DISTANCE
    assert study.reach(study.config_of('PolyNL')) > 250


def test_a_run_gives_the_layer_alone_its_rate():
    cfg = study.config_of_run('NonLocal2d', 10.0, 3, 2)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(group['params'][0]): group['lr'] for group in wrapper.param_groups}
    base = cfg.optim_wrapper.optimizer.lr
    fast = {name for name, p in model.named_parameters() if rates[id(p)] == 10 * base}
    assert fast == {name for name, _ in model.named_parameters() if '.site' in name} != set()
    assert set(rates.values()) == {base, 10 * base}


@pytest.mark.slow
def test_a_run_from_end_to_end(tool_server, tmp_path, repo_root):
    command = ['-m', 'studies.far_cue.run', '--layer', 'PolyNL', '--quick']
    env = dict(PYTHONPATH=str(repo_root))
    status, output = tool_server.run(command, cwd=str(tmp_path), env=env)
    assert status == 0, output
    results = json.loads((tmp_path / 'far_cue.json').read_text())
    assert set(results['runs']) == {'PolyNL 1 0'}
    assert '| PolyNL' in output
