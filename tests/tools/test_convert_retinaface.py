"""Weights of the PyTorch RetinaFace: every key in its place, and the same detections."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from polynl_mmdet.errors import InputError
from tools.convert_retinaface import main

ROOT = Path(__file__).parents[2]
MOBILENET = ROOT / 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
R50 = ROOT / 'configs/retinaface/retinaface_r50_merge-fpn_8xb4-80e_widerface.py'


def build(config):
    register_all_modules()
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model).eval()


def put(state, conv, norm, outs, ins, kernel):
    """Add a convolution, with a bias where no norm follows."""
    state[f'{conv}.weight'] = torch.randn(outs, ins, kernel, kernel) / (ins * kernel**2) ** 0.5
    if norm is None:
        state[f'{conv}.bias'] = torch.randn(outs)
        return
    for key in ('weight', 'bias', 'running_mean', 'running_var'):
        state[f'{norm}.{key}'] = torch.rand(outs) + 0.5
    state[f'{norm}.num_batches_tracked'] = torch.tensor(7)


def source_state(kind):
    """A state dict with the original's key names and random weights."""
    torch.manual_seed(0)
    if kind == 'r50':  # mmdet's names are torchvision's.
        state = {f'body.{key}': value for key, value in ResNet(50).state_dict().items()}
        channels, laterals = 256, (512, 1024, 2048)
    else:
        state, ins = {}, 8
        put(state, 'body.stage1.0.0', 'body.stage1.0.1', ins, 3, 3)
        for stage, widths in enumerate(((16, 32, 32, 64, 64), (128,) * 6, (256, 256)), 1):
            for block, outs in enumerate(widths, 1 if stage == 1 else 0):
                name = f'body.stage{stage}.{block}'
                put(state, f'{name}.0', f'{name}.1', ins, 1, 3)
                put(state, f'{name}.3', f'{name}.4', outs, ins, 1)
                ins = outs
        channels, laterals = 64, (64, 128, 256)
    half, quarter = channels // 2, channels // 4
    blocks = [(f'fpn.output{i}', channels, ins, 1) for i, ins in enumerate(laterals, 1)]
    blocks += [(f'fpn.merge{i}', channels, channels, 3) for i in (1, 2)]
    for i in (1, 2, 3):
        blocks += [
            (f'ssh{i}.conv3X3', half, channels, 3),
            (f'ssh{i}.conv5X5_1', quarter, channels, 3),
            (f'ssh{i}.conv5X5_2', quarter, quarter, 3),
            (f'ssh{i}.conv7X7_2', quarter, quarter, 3),
            (f'ssh{i}.conv7x7_3', quarter, quarter, 3),
        ]
    for name, *shape in blocks:
        put(state, f'{name}.0', f'{name}.1', *shape)
    for level in range(3):
        for name, outs in (('Class', 4), ('Bbox', 8), ('Landmark', 20)):
            put(state, f'{name}Head.{level}.conv1x1', None, outs, channels, 1)
    return state


@pytest.fixture
def convert(tmp_path):
    """Callable: saves a source, converts it, and returns what was written."""

    def run(source, *options):
        src, out = tmp_path / 'src.pth', tmp_path / 'sub/out.pth'
        src.write_bytes(source) if isinstance(source, bytes) else torch.save(source, src)
        main([str(src), str(out), *map(str, options)])
        return torch.load(out, weights_only=True)

    return run


@pytest.mark.parametrize(
    ('kind', 'config', 'prefix'), [('r50', R50, ''), ('mobilenet', MOBILENET, 'module.')]
)
def test_every_key_has_a_place(convert, kind, config, prefix):
    state = source_state(kind)
    out = convert({prefix + key: value for key, value in state.items()})
    model = build(config)
    assert not any(model.load_state_dict(out['state_dict'], strict=True))
    assert out['meta']['dataset_meta']['classes'] == ('face',)
    assert len(out['state_dict']) == len(state)
    loaded = model.state_dict()
    assert loaded['neck.1.levels.2.conv7x7_3.conv.weight'].equal(state['ssh3.conv7x7_3.0.weight'])
    assert loaded['neck.0.merge_convs.1.bn.bias'].equal(state['fpn.merge2.1.bias'])
    assert loaded['bbox_head.conv_reg.0.bias'].equal(state['BboxHead.0.conv1x1.bias'])


def test_keys_that_do_not_fit_are_listed(convert, tmp_path, capsys):
    state = source_state('mobilenet')
    state['body.fc.weight'] = torch.zeros(3, 3)
    del state['fpn.merge1.0.weight']
    state['BboxHead.0.conv1x1.bias'] = torch.zeros(12)
    with pytest.raises(InputError, match='1 keys without a place, 1 of another shape, 1 weights'):
        convert(state)
    assert not (tmp_path / 'sub/out.pth').exists()
    printed = capsys.readouterr().out
    for key in ('body.fc.weight', 'neck.0.merge_convs.0.conv.weight', 'bbox_head.conv_reg.0.bias'):
        assert key in printed
    other = {'net': state, 'optimizer': {'state': {}, 'param_groups': [1]}, 'lr': 0.1}
    kept = convert(other, '--allow-incomplete')['state_dict']
    assert 'bbox_head.conv_reg.0.bias' not in kept
    assert 'backbone.stage1.0.conv.weight' in kept


@pytest.mark.parametrize('num_classes', [1, 2, 5])
def test_any_number_of_classes(convert, tmp_path, num_classes):
    """The score of each class and anchor is the same number as in the source."""
    state, scores = source_state('mobilenet'), num_classes + 1
    for level in range(3):
        put(state, f'ClassHead.{level}.conv1x1', None, 2 * scores, 64, 1)
    config = tmp_path / 'classes.py'
    config.write_text(
        f"_base_ = '{MOBILENET}'\nmodel = dict(bbox_head=dict(num_classes={num_classes}))"
    )
    model = build(config)
    model.load_state_dict(convert(state, '--config', config)['state_dict'])
    maps = [torch.randn(2, 64, 8 >> level, 8 >> level) for level in range(3)]
    for level, found in enumerate(model.bbox_head(maps)[0]):
        name = f'ClassHead.{level}.conv1x1'
        theirs = torch.nn.functional.conv2d(
            maps[level], state[f'{name}.weight'], state[f'{name}.bias']
        )
        theirs = theirs.unflatten(1, (2, scores)).softmax(2)
        found = found.unflatten(1, (2, scores)).softmax(2)
        torch.testing.assert_close(found, theirs.roll(-1, 2))  # Background is first there.
    if num_classes != 1:
        with pytest.raises(InputError, match='6 of another shape'):
            convert(state)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\n', 'run git lfs pull'),
        (b'\n<!DOCTYPE html><html><head><title>Virus scan warning', 'an HTML page'),
        (b'', 'not a checkpoint of torch.save'),
        (b'PK\x03\x04' + bytes(200), 'not a checkpoint of torch.save'),
        ({'epoch': 3}, r"got 0 dicts of tensors in keys \['epoch'\], expected one"),
        ({'a': {'w': torch.ones(1)}, 'b': {'w': torch.ones(1)}}, 'got 2 dicts of tensors'),
        ([1, 2], 'got a list, expected a dict of tensors'),
        ({'conv1.weight': torch.zeros(1)}, "got 1 keys such as 'conv1.weight', expected a Retina"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_named(convert, tmp_path, content, words):
    with pytest.raises(InputError, match=words) as caught:
        convert(content)
    assert str(caught.value).startswith(f'{tmp_path}/src.pth: ')


def test_safetensors(tmp_path):
    path, out = tmp_path / 'a.safetensors', tmp_path / 'out.pth'
    if find_spec('safetensors'):
        from safetensors.torch import save_file

        save_file(source_state('mobilenet'), path)
        main([str(path), str(out)])
        assert out.is_file()
    else:
        path.write_bytes(b'\x08' + bytes(7) + b'{"a": 1}')
        with pytest.raises(InputError, match='pip install safetensors'):
            main([str(path), str(out)])


class Call:
    """Would create a file if the pickle were allowed to run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_code_in_a_file_runs_with_trust_alone(convert, tmp_path):
    with pytest.raises(InputError, match=r'holds \S*open, which .* --trust loads'):
        convert({'body.conv1.weight': Call(tmp_path / 'ran')})
    assert not (tmp_path / 'ran').exists()
    other = {'args': argparse.Namespace(lr=1), 'model': source_state('mobilenet')}
    with pytest.raises(InputError, match=r'holds argparse.Namespace, .* --trust loads'):
        convert(other)
    assert convert(other, '--trust')


def detect(model, path):
    image = cv2.imread(str(path))
    sample = DetDataSample(metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2]))
    inputs = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[inputs], data_samples=[sample]))
    return result.pred_instances


def test_real_weights_give_the_reference_detections(data_root, tmp_path):
    """761 on twelve images, to a twentieth of a pixel."""
    folder, out = data_root / 'retinaface_mobilenet025', str(tmp_path / 'out.pth')
    main([str(folder / 'mobilenet0.25_Final.pth'), out])
    model = build(MOBILENET)
    load_checkpoint(model, out, map_location='cpu', strict=True)
    reference = np.load(folder / 'reference_detections.npz')
    images = {path.stem: path for path in (data_root / 'wider_mini').rglob('*.jpg')}
    count = 0
    for name in reference.files:
        expected = reference[name][np.argsort(-reference[name][:, 4], kind='stable')]
        found = detect(model, images[name])
        assert len(found) == len(expected), name
        np.testing.assert_allclose(found.bboxes, expected[:, :4], atol=0.05, rtol=0)
        np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.keypoints.flatten(1), expected[:, 5:], atol=0.05, rtol=0)
        count += len(found)
    assert count == 761
