"""ResNet and ResNeXt with plugin layers between residual blocks.

mmdet's ``plugins`` puts a layer inside every bottleneck of a stage. The non-local paper (Wang et
al., CVPR 2018, on COCO: "right before the last residual block of res4") and the detectors that
follow it place one layer between two residual blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones import ResNet, ResNeXt
from mmdet.registry import MODELS

from ..config_check import check_layer

SITE_KEYS = {'cfg', 'stage', 'before_block'}


class _SitesMixin:
    """Inserts plugins into the stages of a ResNet.

    A stage is a Sequential, which runs its children in their order. A plugin has a name of its own
    there, so the residual blocks keep theirs ('layer3.5.conv1.weight') and pretrained weights load.
    """

    def __init__(self, sites: Sequence[dict] | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        for index, site in enumerate(sites or ()):
            self._insert_site(f'backbone.sites[{index}]', site)
        self._freeze_stages()  # Once more, with the plugins.

    def _insert_site(self, where: str, site: dict) -> None:
        if set(site) != SITE_KEYS:
            raise ValueError(f'{where}: got keys {sorted(site)}, expected {sorted(SITE_KEYS)}')
        check_layer(site['cfg'], f'{where}.cfg')
        stages = {f'c{i + 2}': name for i, name in enumerate(self.res_layers)}
        if site['stage'] not in stages:
            raise ValueError(f'{where}.stage: got {site["stage"]!r}, expected {", ".join(stages)}')
        stage = getattr(self, stages[site['stage']])
        blocks = [key for key in stage._modules if key.isdigit()]
        if site['before_block'] not in range(-len(blocks), len(blocks)):
            expected = f'{-len(blocks)} to {len(blocks) - 1} in stage {site["stage"]}'
            found = site['before_block']
            raise ValueError(f'{where}.before_block: got {found!r}, expected {expected}')
        key = blocks[site['before_block']]
        # Two plugins at one site run in the order of the config.
        name = f'site{key}_{sum(child.startswith(f"site{key}_") for child in stage._modules)}'
        channels = stage._modules[key].conv1.in_channels
        plugin = build_plugin_layer(dict(site['cfg']), in_channels=channels)[1]
        children = list(stage._modules.items())
        stage._modules.clear()
        for child_name, child in children:
            if child_name == key:
                stage.add_module(name, plugin)
            stage.add_module(child_name, child)


@MODELS.register_module()
class SiteResNet(_SitesMixin, ResNet):
    """mmdet's ResNet with plugin layers between residual blocks.

    Args:
        sites (Sequence[dict], optional): One dict per plugin: ``cfg`` (a registered plugin layer,
            as in ``plugins``; ``in_channels`` is filled in), ``stage`` ('c2' to 'c5') and
            ``before_block`` (index of the residual block that the layer precedes, -1: the last).
            Defaults to None.
        **kwargs: As for mmdet's ResNet, ``plugins`` included.

    Raises:
        ValueError: A site has other keys, or names a stage, block or layer that does not exist.

    Examples:
        >>> SiteResNet(depth=50, sites=[
        ...     dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)])
    """


@MODELS.register_module()
class SiteResNeXt(_SitesMixin, ResNeXt):
    """mmdet's ResNeXt with plugin layers between residual blocks. Args as for SiteResNet."""
