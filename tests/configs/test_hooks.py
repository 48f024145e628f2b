"""Hooks that our configs switch on, and the option that turns each off."""

from __future__ import annotations

import argparse

import pytest
from mmengine.config import Config, DictAction
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from polynl_mmdet.engine.hooks.bad_image_hook import BadImageHook
from polynl_mmdet.engine.hooks.checkpoint_hook import AtomicCheckpointHook
from polynl_mmdet.engine.hooks.non_finite_hook import NonFiniteStopHook
from polynl_mmdet.engine.hooks.resume_state_hook import ResumeStateHook

FACE = 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
OURS = {AtomicCheckpointHook, ResumeStateHook, NonFiniteStopHook, BadImageHook}
# The option of docs/ecosystem.md, the hook that it turns off, and what is there instead.
OFF = {
    'default_hooks.checkpoint.type=CheckpointHook': (AtomicCheckpointHook, CheckpointHook),
    'default_hooks.resume_state.type=mmengine.hooks.Hook': (ResumeStateHook, Hook),
    'default_hooks.non_finite.type=mmengine.hooks.Hook': (NonFiniteStopHook, Hook),
    'default_hooks.bad_images.type=mmengine.hooks.Hook': (BadImageHook, Hook),
}


@pytest.fixture
def hooks_of(repo_root, tmp_path):
    """Callable: hook classes of the runner that a config gives with ``--cfg-options``."""

    def build(name, *options):
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
        arguments = ['--cfg-options', *options] if options else []
        cfg = Config.fromfile(repo_root / 'configs' / name)
        cfg.merge_from_dict(parser.parse_args(arguments).cfg_options)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        return {type(hook) for hook in Runner.from_cfg(cfg).hooks}

    return build


@pytest.mark.parametrize('option', OFF)
def test_one_option_turns_one_hook_off(hooks_of, repo_root, option):
    off, instead = OFF[option]
    hooks = hooks_of(FACE, option)
    assert OURS - hooks == {off}
    assert instead in hooks
    assert option in (repo_root / 'docs/ecosystem.md').read_text()


@pytest.mark.parametrize(
    'name',
    ['mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'retinanet/retinanet_r50_fpn_1x_coco.py', FACE],
)
def test_all_four_are_on_and_can_be_off(hooks_of, name):
    assert hooks_of(name) >= OURS
    assert not hooks_of(name, *OFF) & OURS
