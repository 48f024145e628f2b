"""Convert weights of the widely used PyTorch RetinaFace to a checkpoint of this project.

    python tools/convert_retinaface.py SRC.pth OUT.pth

SRC is a state dict of biubug6/Pytorch_Retinaface or of its many copies, with MobileNetV1-0.25 or
ResNet-50, or the ImageNet classifier (MobileNetV1-0.25) from which its trainings start; of that,
OUT has the backbone, for init_cfg=dict(type='Pretrained', checkpoint=OUT, prefix='backbone.').
Names every key it could not place, and every weight of the model that got nothing;
either ends with an error unless --allow-incomplete is given.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import Tensor

import polynl_mmdet
from polynl_mmdet.engine import force_weights_only, load_checkpoint
from polynl_mmdet.errors import InputError, one_line_errors

CONFIG_DIR = Path(__file__).resolve().parents[1] / 'configs' / 'retinaface'
# A key that only this backbone has, and the config of the model that its weights fit.
LAYOUTS = (
    ('body.stage1.0.0.weight', 'retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'),
    ('body.layer1.0.conv1.weight', 'retinaface_r50_merge-fpn_8xb4-80e_widerface.py'),
)
# A key of the ImageNet classifier, whose backbone stands there without 'body.'.
CLASSIFIER = 'stage1.0.0.weight'
# Pieces of mmcv's ConvModule by their place in a Sequential of convolution, norm, activation.
CONV_BN = {'0': 'conv', '1': 'bn'}
DEPTHWISE = {
    '0': 'depthwise_conv.conv',
    '1': 'depthwise_conv.bn',
    '3': 'pointwise_conv.conv',
    '4': 'pointwise_conv.bn',
}
HEADS = {'Class': 'cls', 'Bbox': 'reg', 'Landmark': 'landmark'}
NUM_CLASS_SCORES = 2


def _level(one_based: str) -> int:
    return int(one_based) - 1


# Pattern of a source key, and the key in this project's models; the last group is the parameter.
RULES = (
    (r'body\.stage1\.0\.([01])\.(\w+)', lambda m: f'backbone.stage1.0.{CONV_BN[m[1]]}.{m[2]}'),
    (
        r'body\.stage(\d)\.(\d+)\.([0134])\.(\w+)',
        lambda m: f'backbone.stage{m[1]}.{m[2]}.{DEPTHWISE[m[3]]}.{m[4]}',
    ),
    (r'body\.((?:conv1|bn1|layer\d)\..+)', lambda m: f'backbone.{m[1]}'),
    (
        r'fpn\.output(\d)\.([01])\.(\w+)',
        lambda m: f'neck.0.lateral_convs.{_level(m[1])}.{CONV_BN[m[2]]}.{m[3]}',
    ),
    (
        r'fpn\.merge(\d)\.([01])\.(\w+)',
        lambda m: f'neck.0.merge_convs.{_level(m[1])}.{CONV_BN[m[2]]}.{m[3]}',
    ),
    (
        r'ssh(\d)\.conv(\d)[xX]\2(_\d)?\.([01])\.(\w+)',
        lambda m: (
            f'neck.1.levels.{_level(m[1])}.conv{m[2]}x{m[2]}{m[3] or ""}.{CONV_BN[m[4]]}.{m[5]}'
        ),
    ),
    (
        r'(Class|Bbox|Landmark)Head\.(\d)\.conv1x1\.(\w+)',
        lambda m: f'bbox_head.conv_{HEADS[m[1]]}.{m[2]}.{m[3]}',
    ),
)


def load_source(path: str) -> dict[str, Tensor]:
    """Load the state dict of a foreign file, without running any code in it.

    Args:
        path (str): File of torch.save: a state dict, or a dict with one under 'state_dict'.

    Returns:
        dict[str, Tensor]: On the CPU, without ``module.`` prefixes.

    Raises:
        InputError: The file is missing, cannot be loaded safely, or holds no state dict.
    """
    loaded = load_checkpoint(path)
    state = loaded.get('state_dict', loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state:
        raise InputError(path, f'a {type(state).__name__}', 'accepted: a state dict')
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                path, f'{key!r} holds a {type(value).__name__}', 'accepted: a dict of tensors'
            )
        whole = value.dtype == torch.int64 and key.endswith('num_batches_tracked')
        if value.layout != torch.strided or not (value.is_floating_point() or whole):
            raise InputError(
                path,
                f'{key!r} holds {str(value.layout)[6:]} {str(value.dtype)[6:]}',
                'accepted: dense tensors of floating-point numbers',
            )
        if not value.isfinite().all():
            raise InputError(
                path, f'{key!r} holds a number that is not finite', 'accepted: finite weights'
            )
    plain = {key.removeprefix('module.'): value for key, value in state.items()}
    if len(plain) != len(state):
        raise InputError(path, 'keys with and without "module."', 'accepted: one of each')
    return plain


def convert(source: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename every key, and put class scores in this project's order.

    Args:
        source (dict[str, Tensor]): As :func:`load_source` returns it.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The new state dict, and source keys without a place.
    """
    placed, unplaced = {}, []
    for key, value in source.items():
        for pattern, rename in RULES:
            match = re.fullmatch(pattern, key)
            if match:
                target = rename(match)
                break
        else:
            unplaced.append(key)
            continue
        paired = value.dim() and len(value) % NUM_CLASS_SCORES == 0
        if target.startswith('bbox_head.conv_cls.') and paired:
            # An anchor's two scores: background first there, last in mmdet.
            value = value.reshape(-1, NUM_CLASS_SCORES, *value.shape[1:]).flip(1)
            value = value.reshape(-1, *value.shape[2:])
        placed[target] = value.contiguous()
    return placed, unplaced


def expected_weights(config: str) -> dict[str, torch.Size]:
    """Return the shape of each weight of a config's model.

    Raises:
        InputError: The config does not exist.
    """
    if not Path(config).is_file():
        raise InputError(config, 'no such config')
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None  # nothing is downloaded to look at shapes
    return {key: value.shape for key, value in MODELS.build(cfg.model).state_dict().items()}


def find_config(source: dict[str, Tensor], path: str) -> str:
    """Find the config of the model that a source state dict belongs to.

    Raises:
        InputError: It has neither backbone.
    """
    for key, name in LAYOUTS:
        if key in source:
            return str(CONFIG_DIR / name)
    raise InputError(
        path,
        f'{len(source)} keys, such as {next(iter(source))!r}, and neither backbone',
        f'accepted: a RetinaFace state dict with {" or ".join(key for key, _ in LAYOUTS)}',
    )


def print_keys(title: str, keys: list[str]) -> None:
    """Print a list of keys under a title, if there are any."""
    if keys:
        print(f'{title} ({len(keys)}):')
        for key in keys:
            print(f'  {key}')


def main(args: list[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='state dict of the PyTorch RetinaFace')
    parser.add_argument('out', help='checkpoint to write')
    parser.add_argument('--config', help='config of the model (default: by the backbone in SRC)')
    parser.add_argument(
        '--allow-incomplete',
        action='store_true',
        help='write OUT even if a key has no place or a weight of the model gets nothing',
    )
    opts = parser.parse_args(args)
    if Path(opts.out).resolve() == Path(opts.src).resolve():
        raise InputError('OUT', f'{opts.out}, the source itself', 'accepted: another file')
    register_all_modules()
    force_weights_only()

    source = load_source(opts.src)
    classifier = CLASSIFIER in source
    if classifier:
        print('ImageNet classifier: its last layer, fc, has no place in a detector')
        source = {f'body.{key}': value for key, value in source.items() if key[:3] != 'fc.'}
    config = opts.config or find_config(source, opts.src)
    state, unplaced = convert(source)
    expected = expected_weights(config)
    if classifier:
        expected = {key: shape for key, shape in expected.items() if key.startswith('backbone.')}
    # Counters of batches seen: nothing in the model depends on them.
    counters = {key for key in expected if key.endswith('num_batches_tracked')}
    unplaced += [f'{key} (the model has no such weight)' for key in state.keys() - expected.keys()]
    misfits = [
        f'{key}: {tuple(state[key].shape)}, the model has {tuple(expected[key])}'
        for key in sorted(state.keys() & expected.keys())
        if state[key].shape != expected[key]
    ]
    missing = sorted(expected.keys() - state.keys() - counters)
    state = {k: v for k, v in state.items() if k in expected and v.shape == expected[k]}

    print_keys('Source keys without a place', unplaced)
    print_keys('Weights of another shape', misfits)
    print_keys('Weights of the model that got nothing', missing)
    problems = len(unplaced) + len(misfits) + len(missing)
    if problems and not opts.allow_incomplete:
        raise InputError(
            opts.src,
            f'{len(unplaced)} keys without a place, {len(misfits)} of another shape, '
            f'{len(missing)} weights without a source for {config}; nothing written',
            'accepted: a complete match, or --allow-incomplete',
        )
    out = Path(opts.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    meta = {
        'converted_from': Path(opts.src).name,
        'polynl_mmdet_version': polynl_mmdet.__version__,
    }
    if not classifier:
        meta['dataset_meta'] = {'classes': ('face',), 'palette': [(220, 20, 60)]}
    torch.save({'meta': meta, 'state_dict': state}, out)
    print(f'{len(state)} of {len(expected)} weights placed -> {out}\nconfig: {config}')


if __name__ == '__main__':
    with one_line_errors():
        main()
