"""ResNet and ResNeXt with plugin layers at single sites between residual blocks.

mmdet's ``plugins`` puts a layer inside every bottleneck of a stage. The non-local paper (Wang et
al., CVPR 2018, on COCO: "right before the last residual block of res4") and the detectors that
follow it place one block between two residual blocks; this module does that for any registered
plugin layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones import ResNet, ResNeXt
from mmdet.registry import MODELS
from mmengine.model import Sequential

from polynl_mmdet.errors import InputError

SITE_KEYS = {'cfg', 'stage', 'before_block'}


class _SitesMixin:
    """Builds plugins into the stages of a finished ResNet.

    A stage is a Sequential, which runs its children in their order: a plugin that stands there
    under a name of its own leaves the keys of the residual blocks ('layer3.5.conv1.weight') as
    they are in a plain ResNet's state dict.
    """

    def __init__(self, sites: Sequence[dict] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        for index, site in enumerate(sites):
            self._insert_site(f'backbone.sites[{index}]', site)
        # The stages were frozen before the plugins stood in them.
        self._freeze_stages()

    def _insert_site(self, where: str, site: dict) -> None:
        unknown = set(site) - SITE_KEYS
        missing = SITE_KEYS - set(site)
        if unknown or missing:
            raise InputError(
                where,
                f'keys {sorted(site)}',
                "accepted: cfg (plugin layer), stage ('c2' to 'c5'), before_block (int)",
            )
        name = self._stage_layer(where, site['stage'])
        stage: Sequential = getattr(self, name)
        blocks = [key for key in stage._modules if key.isdigit()]
        before = site['before_block']
        if isinstance(before, bool) or not isinstance(before, int):
            raise InputError(f'{where}.before_block', repr(before), 'accepted: an integer')
        if not -len(blocks) <= before < len(blocks):
            raise InputError(
                f'{where}.before_block',
                f'{before}, but stage {site["stage"]} has {len(blocks)} blocks',
                f'accepted: {-len(blocks)} to {len(blocks) - 1}',
            )
        block = stage._modules[blocks[before]]
        if 'type' not in site['cfg']:
            raise InputError(f'{where}.cfg', f'{site["cfg"]}', "accepted: a dict with 'type'")
        # Two plugins at one site run in the order of the config.
        taken = sum(key.startswith(f'site{blocks[before]}_') for key in stage._modules)
        cfg = dict(site['cfg'])
        postfix = cfg.pop('postfix', '')
        plugin = build_plugin_layer(cfg, postfix=postfix, in_channels=block.conv1.in_channels)[1]
        children = list(stage._modules.items())
        stage._modules.clear()
        for key, child in children:
            if child is block:
                stage.add_module(f'site{blocks[before]}_{taken}', plugin)
            stage.add_module(key, child)

    def _stage_layer(self, where: str, stage: str) -> str:
        stages = {f'c{i + 2}': name for i, name in enumerate(self.res_layers)}
        if stage not in stages:
            raise InputError(
                f'{where}.stage',
                f'{stage!r}, which a backbone of {len(stages)} stages lacks',
                f'accepted: {", ".join(stages)}',
            )
        return stages[stage]


@MODELS.register_module()
class SiteResNet(_SitesMixin, ResNet):
    """mmdet's ResNet with plugin layers between residual blocks.

    Args:
        sites (Sequence[dict]): One dict a plugin: ``cfg`` (a registered plugin layer, as in
            ``plugins``; ``in_channels`` is filled in), ``stage`` ('c2' to 'c5', also called res2
            to res5) and ``before_block`` (index of the residual block that the layer precedes,
            -1: the last). Defaults to ().
        **kwargs: As for mmdet's ResNet, ``plugins`` included.

    Raises:
        InputError: A site names a stage or block that the backbone lacks, or has other keys.

    Examples:
        >>> SiteResNet(depth=50, sites=[
        ...     dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)])
    """


@MODELS.register_module()
class SiteResNeXt(_SitesMixin, ResNeXt):
    """mmdet's ResNeXt with plugin layers between residual blocks. Args as for SiteResNet."""
