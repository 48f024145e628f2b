"""Convert weights of the widely used PyTorch RetinaFace to a checkpoint of this project.

    python tools/convert_retinaface.py SRC.pth OUT.pth

SRC is a state dict of biubug6/Pytorch_Retinaface or of its many copies, with MobileNetV1-0.25 or
ResNet-50, or a dict that holds one; or the ImageNet classifier (MobileNetV1-0.25) from which its
trainings start: then OUT has the backbone, for init_cfg=dict(type='Pretrained', checkpoint=OUT,
prefix='backbone.'). Lists every key that it could not map, and every weight of the model that was
not filled; either is an error unless --allow-incomplete is given.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='state dict of the PyTorch RetinaFace')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    parser.add_argument('--config', help='config of the model (default: by the backbone in SRC)')
    parser.add_argument('--allow-incomplete', action='store_true', help='write OUT all the same')
    parser.add_argument('--trust', action='store_true', help='run the code that is in SRC')
    return parser.parse_args(args)


if __name__ == '__main__':
    parse_args()  # --help, before the slow imports

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import Tensor, nn

from polynl_mmdet import __version__
from polynl_mmdet.errors import InputError, one_line_errors

CONFIG_DIR = Path(__file__).resolve().parents[1] / 'configs' / 'retinaface'
# A key of this backbone alone, and the config of the model that its weights fit.
LAYOUTS = (
    ('body.stage1.0.0.weight', 'retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'),
    ('body.layer1.0.conv1.weight', 'retinaface_r50_merge-fpn_8xb4-80e_widerface.py'),
)
# A key of the ImageNet classifier, whose backbone has no 'body.' prefix.
CLASSIFIER = 'stage1.0.0.weight'
# Parts of mmcv's ConvModule by their index in a Sequential of convolution, norm, activation.
CONV_BN = {'0': 'conv', '1': 'bn'}
DEPTHWISE = {
    '0': 'depthwise_conv.conv',
    '1': 'depthwise_conv.bn',
    '3': 'pointwise_conv.conv',
    '4': 'pointwise_conv.bn',
}
HEADS = {'Class': 'cls', 'Bbox': 'reg', 'Landmark': 'landmark'}
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
        lambda m: f'neck.0.lateral_convs.{int(m[1]) - 1}.{CONV_BN[m[2]]}.{m[3]}',
    ),
    (
        r'fpn\.merge(\d)\.([01])\.(\w+)',
        lambda m: f'neck.0.merge_convs.{int(m[1]) - 1}.{CONV_BN[m[2]]}.{m[3]}',
    ),
    (
        r'ssh(\d)\.conv(\d)[xX]\2(_\d)?\.([01])\.(\w+)',
        lambda m: (
            f'neck.1.levels.{int(m[1]) - 1}.conv{m[2]}x{m[2]}{m[3] or ""}.{CONV_BN[m[4]]}.{m[5]}'
        ),
    ),
    (
        r'(Class|Bbox|Landmark)Head\.(\d)\.conv1x1\.(\w+)',
        lambda m: f'bbox_head.conv_{HEADS[m[1]]}.{m[2]}.{m[3]}',
    ),
)


def load_source(path: str, trust: bool = False) -> dict[str, Tensor]:
    """Load the state dict of a file of ``torch.save`` or safetensors, without ``module.`` prefixes.

    With ``trust``, unpickling may run code.
    """
    if not Path(path).is_file():
        raise InputError(f'{path}: no such file')
    with open(path, 'rb') as file:
        head = file.read(512)
    if head.startswith(b'version https://git-lfs'):
        raise InputError(f'{path}: a Git LFS pointer, not the file: run git lfs pull')
    if head.lstrip()[:1] == b'<':
        raise InputError(f'{path}: an HTML page, not a checkpoint: download the file itself')
    try:
        if head[8:9] == b'{':
            from safetensors.torch import load_file

            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location='cpu', weights_only=not trust)
    except Exception as error:  # A damaged file raises anything.
        refused = re.search(r'Unsupported (?:global: GLOBAL|class) (\S+)', str(error))
        if refused:
            reason = f'holds {refused[1]}, which torch.load(weights_only=True) does not allow'
            reason += '; --trust loads a file that you trust'
        elif getattr(error, 'name', None) == 'safetensors':
            reason = 'safetensors; pip install safetensors'
        elif isinstance(error, (ImportError, AttributeError)):  # With trust: a whole module.
            reason = f'cannot be loaded here ({error}): save the state_dict() of the model'
        else:
            reason = 'not a checkpoint of torch.save'
        raise InputError(f'{path}: {reason}') from None
    state = find_state_dict(loaded, path)
    return {re.sub(r'^module\.', '', key): value for key, value in state.items()}


def find_state_dict(loaded: object, path: str) -> dict[str, Tensor]:
    """Return a dict of tensors, or the one that is a value of a dict."""
    if isinstance(loaded, nn.Module):
        return loaded.state_dict()
    if not isinstance(loaded, dict):
        raise InputError(f'{path}: got a {type(loaded).__name__}, expected a dict of tensors')
    inside = [loaded, *loaded.values()] if 'state_dict' not in loaded else [loaded['state_dict']]
    dicts = [value for value in inside if isinstance(value, dict) and value]
    found = [value for value in dicts if all(isinstance(v, Tensor) for v in value.values())]
    if len(found) != 1:
        raise InputError(
            f'{path}: got {len(found)} dicts of tensors in keys {list(loaded)[:8]}, expected one'
        )
    return found[0]


def convert(source: dict[str, Tensor], num_classes: int = 1) -> tuple[dict[str, Tensor], list[str]]:
    """Rename every key, and put class scores in this project's order; return unknown keys too."""
    placed, unplaced = {}, []
    scores = num_classes + 1
    for key, value in source.items():
        matches = ((re.fullmatch(pattern, key), rename) for pattern, rename in RULES)
        target = next((rename(match) for match, rename in matches if match), None)
        if target is None:
            unplaced.append(key)
            continue
        if target.startswith('bbox_head.conv_cls.') and len(value) % scores == 0:
            # The scores of an anchor: background first there, last in mmdet.
            value = value.unflatten(0, (-1, scores)).roll(-1, 1).flatten(0, 1)
        placed[target] = value.contiguous()
    return placed, unplaced


def build_model(config: str) -> nn.Module:
    """Build a config's model, without pretrained weights."""
    if not Path(config).is_file():
        raise InputError(f'{config}: no such config')
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    if model.bbox_head.use_sigmoid_cls:
        raise InputError(f'{config}: bbox_head has sigmoid scores, expected softmax as in SRC')
    return model


def find_config(source: dict[str, Tensor], path: str) -> str:
    """Find the config of the model that a source state dict belongs to."""
    for key, name in LAYOUTS:
        if key in source:
            return str(CONFIG_DIR / name)
    raise InputError(
        f'{path}: got {len(source)} keys such as {next(iter(source))!r}, expected a RetinaFace '
        'with ' + ' or '.join(key for key, _ in LAYOUTS)
    )


def main(args: list[str] | None = None) -> None:
    """Convert, and print what does not fit."""
    opts = parse_args(args)
    if opts.out.resolve() == Path(opts.src).resolve():
        raise InputError(f'OUT: {opts.out} is SRC, expected another file')
    register_all_modules()
    source = load_source(opts.src, opts.trust)
    classifier = CLASSIFIER in source
    if classifier:
        print('ImageNet classifier: its last layer, fc, is not used')
        source = {f'body.{key}': value for key, value in source.items() if key[:3] != 'fc.'}
    config = opts.config or find_config(source, opts.src)
    model = build_model(config)
    num_classes = model.bbox_head.num_classes
    state, unplaced = convert(source, num_classes)
    expected = {
        key: value.shape
        for key, value in model.state_dict().items()
        if key.startswith('backbone.') or not classifier
    }
    unplaced += [f'{key} (the model has no such weight)' for key in state.keys() - expected.keys()]
    misfits = [
        f'{key}: got {tuple(state[key].shape)}, expected {tuple(expected[key])}'
        for key in sorted(state.keys() & expected.keys())
        if state[key].shape != expected[key]
    ]
    # The model does not use its counters of batches.
    missing = sorted(k for k in expected.keys() - state if not k.endswith('num_batches_tracked'))
    state = {k: v for k, v in state.items() if k in expected and v.shape == expected[k]}
    for title, keys in (
        ('Source keys without a place', unplaced),
        ('Weights of another shape', misfits),
        ('Weights of the model that are not filled', missing),
    ):
        if keys:
            print(f'{title} ({len(keys)}):', *keys, sep='\n  ')
    if (unplaced or misfits or missing) and not opts.allow_incomplete:
        raise InputError(
            f'{opts.src}: {len(unplaced)} keys without a place, {len(misfits)} of another shape, '
            f'{len(missing)} weights of {config} not filled; nothing written, --allow-incomplete '
            'writes it'
        )
    meta = {'converted_from': Path(opts.src).name, 'polynl_mmdet_version': __version__}
    if not classifier and num_classes == 1:
        meta['dataset_meta'] = {'classes': ('face',), 'palette': [(220, 20, 60)]}
    opts.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'meta': meta, 'state_dict': state}, opts.out)
    print(f'{len(state)} of {len(expected)} weights placed -> {opts.out}\nconfig: {config}')


if __name__ == '__main__':
    with one_line_errors():
        main()
