"""Weights of the PyTorch RetinaFace: every key in its place, and the same detections."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from polynl_mmdet.errors import InputError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'retinaface'
MOBILENET = CONFIGS / 'retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
R50 = CONFIGS / 'retinaface_r50_merge-fpn_8xb4-80e_widerface.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('convert', ROOT / 'tools/convert_retinaface.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(config):
    register_all_modules()
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model).eval()


def bn(state, name, channels):
    for key in ('weight', 'bias', 'running_mean', 'running_var'):
        state[f'{name}.{key}'] = torch.rand(channels) + 0.5
    state[f'{name}.num_batches_tracked'] = torch.tensor(7)


def conv(state, name, outs, ins, kernel, bias=False):
    state[f'{name}.weight'] = torch.randn(outs, ins, kernel, kernel) / (ins * kernel**2) ** 0.5
    if bias:
        state[f'{name}.bias'] = torch.randn(outs)


def body_r50(state):
    conv(state, 'body.conv1', 64, 3, 7)
    bn(state, 'body.bn1', 64)
    ins = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            name = f'body.layer{layer}.{block}'
            shapes = ((width, ins, 1), (width, width, 3), (4 * width, width, 1))
            for i, (outs, inner, kernel) in enumerate(shapes, 1):
                conv(state, f'{name}.conv{i}', outs, inner, kernel)
                bn(state, f'{name}.bn{i}', outs)
            if block == 0:
                conv(state, f'{name}.downsample.0', 4 * width, ins, 1)
                bn(state, f'{name}.downsample.1', 4 * width)
            ins = 4 * width


def body_mobilenet(state):
    widths = ((16, 32, 32, 64, 64), (128,) * 6, (256, 256))
    conv(state, 'body.stage1.0.0', 8, 3, 3)
    bn(state, 'body.stage1.0.1', 8)
    ins = 8
    for stage, outs_list in enumerate(widths, 1):
        for block, outs in enumerate(outs_list, 1 if stage == 1 else 0):
            name = f'body.stage{stage}.{block}'
            conv(state, f'{name}.0', ins, 1, 3)
            bn(state, f'{name}.1', ins)
            conv(state, f'{name}.3', outs, ins, 1)
            bn(state, f'{name}.4', outs)
            ins = outs


def source_state(kind, seed=0):
    """A state dict with the original's key names and random weights."""
    torch.manual_seed(seed)
    state = {}
    if kind == 'r50':
        body_r50(state)
        channels, laterals = 256, (512, 1024, 2048)
    else:
        body_mobilenet(state)
        channels, laterals = 64, (64, 128, 256)
    for level, ins in enumerate(laterals, 1):
        conv(state, f'fpn.output{level}.0', channels, ins, 1)
        bn(state, f'fpn.output{level}.1', channels)
    for level in (1, 2):
        conv(state, f'fpn.merge{level}.0', channels, channels, 3)
        bn(state, f'fpn.merge{level}.1', channels)
    half, quarter = channels // 2, channels // 4
    for level in (1, 2, 3):
        for name, outs, ins in (
            ('conv3X3', half, channels),
            ('conv5X5_1', quarter, channels),
            ('conv5X5_2', quarter, quarter),
            ('conv7X7_2', quarter, quarter),
            ('conv7x7_3', quarter, quarter),
        ):
            conv(state, f'ssh{level}.{name}.0', outs, ins, 3)
            bn(state, f'ssh{level}.{name}.1', outs)
    for level in range(3):
        for name, outs in (('ClassHead', 4), ('BboxHead', 8), ('LandmarkHead', 20)):
            conv(state, f'{name}.{level}.conv1x1', outs, channels, 1, bias=True)
    return state


@pytest.mark.parametrize(('kind', 'config'), [('r50', R50), ('mobilenet', MOBILENET)])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_every_key_has_a_place(tool, tmp_path, capsys, kind, config, prefix):
    state = source_state(kind)
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / 'src.pth')
    tool.main([str(tmp_path / 'src.pth'), str(tmp_path / 'sub' / 'out.pth')])
    assert 'without a place' not in capsys.readouterr().out
    out = torch.load(tmp_path / 'sub' / 'out.pth', weights_only=True)
    model = build(config)
    assert not any(model.load_state_dict(out['state_dict'], strict=True))
    assert out['meta']['dataset_meta']['classes'] == ('face',)
    assert len(out['state_dict']) == len(state)

    # Two keys by hand, and the scores' order: anchor by anchor, background first -> last.
    loaded = model.state_dict()
    assert loaded['neck.1.levels.2.conv7x7_3.conv.weight'].equal(state['ssh3.conv7x7_3.0.weight'])
    assert loaded['neck.0.merge_convs.1.bn.bias'].equal(state['fpn.merge2.1.bias'])
    scores = state['ClassHead.1.conv1x1.weight']
    assert loaded['bbox_head.conv_cls.1.weight'].equal(scores[[1, 0, 3, 2]])
    assert loaded['bbox_head.conv_cls.2.bias'].equal(
        state['ClassHead.2.conv1x1.bias'][[1, 0, 3, 2]]
    )
    assert loaded['bbox_head.conv_reg.0.bias'].equal(state['BboxHead.0.conv1x1.bias'])


def test_unknown_missing_and_misshapen_keys_are_named(tool, tmp_path, capsys):
    state = source_state('mobilenet')
    state['body.fc.weight'] = torch.zeros(3, 3)
    del state['fpn.merge1.0.weight']
    state['BboxHead.0.conv1x1.bias'] = torch.zeros(12)
    src, out = tmp_path / 'src.pth', tmp_path / 'out.pth'
    torch.save({'state_dict': state}, src)
    with pytest.raises(InputError, match='1 keys without a place, 1 of another shape, 1 weights'):
        tool.main([str(src), str(out)])
    assert not out.exists()
    printed = capsys.readouterr().out
    assert 'body.fc.weight' in printed
    assert 'neck.0.merge_convs.0.conv.weight' in printed
    assert 'bbox_head.conv_reg.0.bias: got (12,), expected (8,)' in printed
    tool.main([str(src), str(out), '--allow-incomplete'])
    kept = torch.load(out, weights_only=True)['state_dict']
    assert 'bbox_head.conv_reg.0.bias' not in kept
    assert 'backbone.stage1.0.conv.weight' in kept


@pytest.mark.parametrize('num_classes', [1, 2, 5])
def test_any_number_of_classes(tool, tmp_path, num_classes):
    """The score of each class and anchor is the same number as in the source."""
    state = source_state('mobilenet')
    scores = num_classes + 1
    for level in range(3):
        conv(state, f'ClassHead.{level}.conv1x1', 2 * scores, 64, 1, bias=True)
    src, out, config = tmp_path / 'src.pth', tmp_path / 'out.pth', tmp_path / 'classes.py'
    torch.save(state, src)
    config.write_text(
        f"_base_ = '{MOBILENET}'\nmodel = dict(bbox_head=dict(num_classes={num_classes}))"
    )
    tool.main([str(src), str(out), '--config', str(config)])
    model = build(config)
    content = torch.load(out, weights_only=True)
    model.load_state_dict(content['state_dict'])
    assert ('dataset_meta' in content['meta']) == (num_classes == 1)
    maps = [torch.randn(2, 64, 8 >> level, 8 >> level) for level in range(3)]
    for level, found in enumerate(model.bbox_head(maps)[0]):
        theirs = torch.nn.functional.conv2d(
            maps[level],
            state[f'ClassHead.{level}.conv1x1.weight'],
            state[f'ClassHead.{level}.conv1x1.bias'],
        )
        theirs = theirs.unflatten(1, (2, scores)).softmax(2)
        found = found.unflatten(1, (2, scores)).softmax(2)
        torch.testing.assert_close(found[:, :, -1], theirs[:, :, 0])
        torch.testing.assert_close(found[:, :, :-1], theirs[:, :, 1:])
    if num_classes != 1:
        with pytest.raises(InputError, match='6 of another shape'):
            tool.main([str(src), str(out)])


def test_another_number_of_classes_or_sigmoid_scores_are_rejected(tool, tmp_path):
    torch.save(source_state('mobilenet'), tmp_path / 'src.pth')
    config = tmp_path / 'config.py'
    for options, says in (
        ('num_classes=2', '6 of another shape'),
        ('loss_cls=dict(use_sigmoid=True)', 'sigmoid scores, expected softmax'),
    ):
        config.write_text(f"_base_ = '{MOBILENET}'\nmodel = dict(bbox_head=dict({options}))")
        with pytest.raises(InputError, match=says):
            tool.main([f'{tmp_path}/src.pth', f'{tmp_path}/out.pth', '--config', str(config)])


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: {'epoch': 12, 'model': state},
        lambda state: {'net': state, 'optimizer': {'state': {}, 'param_groups': [1]}, 'lr': 0.1},
        lambda state: {'state_dict': state, 'ema': dict(state), 'args': ['a']},
        lambda state: {'weights': {f'module.{key}': value for key, value in state.items()}},
    ],
)
def test_the_state_dict_is_found_in_a_checkpoint(tool, tmp_path, wrap):
    torch.save(wrap(source_state('mobilenet')), tmp_path / 'src.pth')
    tool.main([str(tmp_path / 'src.pth'), str(tmp_path / 'out.pth')])
    assert (tmp_path / 'out.pth').is_file()


class Trap:
    """Would create a file if the pickle were allowed to run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 1789735\n'


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (LFS, 'a Git LFS pointer, not the file: run git lfs pull'),
        (b'<!DOCTYPE html><html><head><title>Virus scan warning', 'an HTML page, not a checkpoint'),
        (b'\n<html>', 'an HTML page'),
        (b'', 'not a checkpoint of torch.save'),
        (b'not a checkpoint', 'not a checkpoint of torch.save'),
        (b'PK\x03\x04' + bytes(200), 'not a checkpoint of torch.save'),
        ({}, 'got 0 dicts of tensors'),
        ({'epoch': 3}, r"got 0 dicts of tensors in keys \['epoch'\], expected one"),
        ({'a': {'w': torch.ones(1)}, 'b': {'w': torch.ones(1)}}, 'got 2 dicts of tensors'),
        ([1, 2], 'got a list, expected a dict of tensors'),
        ({'conv1.weight': torch.zeros(1)}, "got 1 keys such as 'conv1.weight', expected a Retina"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_named(tool, tmp_path, content, says):
    path = tmp_path / 'src.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=says) as caught:
        tool.main([str(path), str(tmp_path / 'out.pth')])
    assert str(caught.value).startswith(f'{path}: ')
    assert 'trust' not in str(caught.value)


def test_safetensors(tool, tmp_path):
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError:
        header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        (tmp_path / 'a.safetensors').write_bytes(
            len(header).to_bytes(8, 'little') + header + b'0000'
        )
        with pytest.raises(InputError, match='pip install safetensors'):
            tool.load_source(str(tmp_path / 'a.safetensors'))
    else:
        save_file(source_state('mobilenet'), tmp_path / 'a.safetensors')
        tool.main([str(tmp_path / 'a.safetensors'), str(tmp_path / 'out.pth')])


def test_code_in_a_file_runs_with_trust_alone(tool, tmp_path):
    path, out = tmp_path / 'src.pth', str(tmp_path / 'out.pth')
    torch.save({'body.conv1.weight': Trap(tmp_path / 'ran')}, path)
    with pytest.raises(InputError, match=r'holds \S*open, which .* --trust loads'):
        tool.main([str(path), out])
    assert not (tmp_path / 'ran').exists()
    torch.save({'args': argparse.Namespace(lr=1), 'model': source_state('mobilenet')}, path)
    with pytest.raises(InputError, match=r'holds argparse.Namespace, .* --trust loads'):
        tool.main([str(path), out])
    tool.main([str(path), out, '--trust'])


def detect(model, path):
    image = cv2.imread(str(path))
    sample = DetDataSample(metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2]))
    inputs = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[inputs], data_samples=[sample]))
    return result.pred_instances


def test_real_weights_give_the_reference_detections(tool, data_root, tmp_path):
    folder = data_root / 'retinaface_mobilenet025'
    out = tmp_path / 'out.pth'
    tool.main([str(folder / 'mobilenet0.25_Final.pth'), str(out)])
    model = build(MOBILENET)
    load_checkpoint(model, str(out), map_location='cpu', strict=True)
    reference = np.load(folder / 'reference_detections.npz')
    images = {path.stem: path for path in (data_root / 'wider_mini').rglob('*.jpg')}
    assert len(reference.files) == 12
    for name in reference.files:
        expected = reference[name][np.argsort(-reference[name][:, 4], kind='stable')]
        found = detect(model, images[name])
        assert len(found) == len(expected), name
        np.testing.assert_allclose(found.bboxes, expected[:, :4], atol=0.05, rtol=0)
        np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.keypoints.flatten(1), expected[:, 5:], atol=0.05, rtol=0)
