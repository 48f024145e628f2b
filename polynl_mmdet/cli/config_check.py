"""Compare a config's plugins with its backbone; mmdet's ResNet asserts them without a message."""

from __future__ import annotations

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS

from polynl_mmdet.errors import InputError

POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


def check_plugins(model: dict, where: str = 'model') -> None:
    """Check the ``plugins`` of every ResNet-like backbone in a model config.

    Args:
        model (dict): A model config, or a part of one.
        where (str): Its key, for the error. Defaults to 'model'.

    Raises:
        InputError: A plugin is not registered, has an unknown position, names other stages
            than the backbone has, or the backbone's blocks take no plugins.
    """
    if isinstance(model, (list, tuple)):
        model = dict(enumerate(model))
    if not isinstance(model, dict):
        return
    if model.get('plugins') and isinstance(model.get('type'), str):
        backbone = MODELS.get(model['type'])
        if isinstance(backbone, type) and issubclass(backbone, ResNet):
            for index, plugin in enumerate(model['plugins']):
                _check_plugin(plugin, model, backbone, f'{where}.plugins[{index}]')
    for key, part in model.items():
        check_plugins(part, f'{where}[{key}]' if isinstance(key, int) else f'{where}.{key}')


def _check_plugin(plugin: dict, model: dict, backbone: type[ResNet], where: str) -> None:
    depth = model.get('depth')
    block = backbone.arch_settings.get(depth, (Bottleneck,))[0]
    if not hasattr(block, 'make_block_plugins'):
        found = f'{model["type"]}-{depth} is made of {block.__name__}, which takes no plugins'
        accepted = 'accepted: a depth of 50 or more, or type SiteResNet with sites'
        raise InputError(where, found, accepted)
    kind = plugin.get('cfg', {}).get('type')
    if isinstance(kind, str) and MODELS.get(kind) is None:
        imports = "for this package's layers: custom_imports = dict(imports=['polynl_mmdet'])"
        raise InputError(f'{where}.cfg.type', f'{kind!r}, which is not registered', imports)
    position = plugin.get('position')
    if position not in POSITIONS:
        accepted = f'accepted: {", ".join(POSITIONS)}'
        raise InputError(f'{where}.position', repr(position), accepted)
    stages, count = plugin.get('stages'), model.get('num_stages', 4)
    if stages is not None and len(stages) != count:
        found = f'{len(stages)} entries ({tuple(stages)}), but the backbone has {count} stages'
        accepted = f'accepted: {count} of True or False, for res2 on'
        raise InputError(f'{where}.stages', found, accepted)
