"""A context layer on chosen levels of any detector's feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor

from ..config_check import check_layer


@MODELS.register_module()
class LevelContext(BaseModule):
    """Apply a registered layer to some of the feature maps, and pass on the others.

    It stands between backbone and neck, behind the neck, or as the neck of a detector that has
    none, with any backbone. A layer that starts as the identity leaves the detector's outputs as
    they are.

    A neck given as ``neck`` runs inside. Then the weights of a detector without LevelContext load
    with only the layers' own keys missing: ``neck.*`` of such a file is read as ``neck.neck.*``. It
    also works as an element of mmdet's list of necks, but mmengine names the other elements
    ``neck.1.*`` there, and their pretrained weights are not found.

    Args:
        layer (dict): Config of a registered layer that takes ``in_channels``: ours, or mmcv's
            NonLocal2d, ContextBlock, ... One layer is built per level.
        levels (Sequence[int]): Indices of the maps that get a layer.
        in_channels (int or Sequence[int], optional): Channels of the maps, one number for all or
            one per map. Defaults to the ``in_channels`` of ``neck`` (the first one of a list), with
            ``after_neck`` to the ``out_channels`` (of the last one).
        neck (dict or list[dict], optional): Config of a neck. Defaults to None.
        after_neck (bool): Whether the layers follow ``neck``. Defaults to False.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Levels that do not exist or are listed twice, unknown channels, or channels
            that differ from the maps'.

    Examples:
        >>> neck = dict(type='FPN', in_channels=[64, 128, 256], out_channels=64, num_outs=4)
        >>> LevelContext(layer=dict(type='PolyNL'), levels=[2], neck=neck)
    """

    def __init__(
        self,
        layer: dict,
        levels: Sequence[int],
        in_channels: int | Sequence[int] | None = None,
        neck: dict | list[dict] | None = None,
        after_neck: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_layer(layer, 'neck.layer')
        if in_channels is None and neck:
            necks = [neck] if isinstance(neck, dict) else neck
            index, key = (-1, 'out_channels') if after_neck else (0, 'in_channels')
            in_channels = necks[index].get(key)
        if in_channels is None:
            raise ValueError('neck.in_channels: got None, expected one or all channels of the maps')
        self.in_channels = in_channels
        self.levels = sorted(levels)
        count = max(levels, default=0) + 1 if isinstance(in_channels, int) else len(in_channels)
        if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(range(count)):
            raise ValueError(
                f'neck.levels: got {levels}, expected different integers from 0 to {count - 1}'
            )
        layers = [dict(layer, in_channels=self._channels(level)) for level in self.levels]
        self.context = ModuleDict(zip(map(str, self.levels), map(MODELS.build, layers)))
        self.neck = None if neck is None else MODELS.build(neck)
        self.after_neck = after_neck

    def _channels(self, level: int) -> int:
        return self.in_channels if isinstance(self.in_channels, int) else self.in_channels[level]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Apply the layers, and the neck if there is one, to maps (B, C_i, H_i, W_i)."""
        if self.neck is None:
            return self._add_context(inputs)
        if self.after_neck:
            return self._add_context(self.neck(inputs))
        return self.neck(self._add_context(inputs))

    def _add_context(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = list(inputs)
        channels = [x.shape[1] for x in maps]
        for level in self.levels:
            if level >= len(maps) or channels[level] != self._channels(level):
                raise ValueError(
                    f'neck: got levels={self.levels}, in_channels={self.in_channels}, '
                    f'expected them to fit {len(maps)} maps of {channels} channels'
                )
            maps[level] = self.context[str(level)](maps[level])
        return tuple(maps)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Read the weights of a neck that was trained without LevelContext."""
        if self.neck is not None:
            for key in [key for key in state_dict if key.startswith(prefix)]:
                name = key[len(prefix) :]
                if name.partition('.')[0] not in self._modules:
                    state_dict[f'{prefix}neck.{name}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
