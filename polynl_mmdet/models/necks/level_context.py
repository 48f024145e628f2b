"""A context layer on chosen levels of any detector's feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor

from polynl_mmdet.errors import InputError


@MODELS.register_module()
class LevelContext(BaseModule):
    """Apply a registered layer to some of a tuple of feature maps, and pass on the others.

    It stands between backbone and neck, behind the neck, or as the neck of a detector that has
    none, whatever the backbone. A layer that starts as the identity leaves the detector as it was.

    A neck given as ``neck`` runs inside. Then the weights of a detector without LevelContext load
    with only the layers' own keys missing: ``neck.*`` of such a file is read as ``neck.neck.*``. As
    an element of mmdet's list of necks it works too, but there mmengine names the others
    ``neck.1.*``, and their pretrained weights are not found.

    Args:
        layer (dict): Config of a registered layer that takes ``in_channels``: ours, or mmcv's
            NonLocal2d, ContextBlock, ... A layer is built for each level.
        levels (Sequence[int]): Indices of the maps that get a layer, 0 for the first.
        in_channels (int or Sequence[int], optional): Channels of the maps: one number a map, or one
            for all. Defaults to the ``in_channels`` of ``neck``, or with ``after_neck`` its
            ``out_channels``.
        neck (dict or list[dict], optional): Config of a neck. Defaults to None.
        after_neck (bool): Whether the layers stand behind ``neck`` and not before it. Defaults to
            False.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        InputError: Levels that do not exist or stand there twice, channels that are not known, or
            maps that do not have them.

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
        if in_channels is None and isinstance(neck, dict):
            in_channels = neck.get('out_channels' if after_neck else 'in_channels')
        self.in_channels = _checked_channels(in_channels)
        count = None if isinstance(self.in_channels, int) else len(self.in_channels)
        self.levels = _checked_levels(levels, count)
        if not isinstance(layer, dict) or 'type' not in layer:
            raise InputError('neck.layer', repr(layer), "accepted: a dict with 'type'")
        self.context = ModuleDict(
            {
                str(level): MODELS.build(dict(layer, in_channels=self._channels(level)))
                for level in self.levels
            }
        )
        self.neck = None if neck is None else MODELS.build(neck)
        self.after_neck = after_neck

    def _channels(self, level: int) -> int:
        return self.in_channels if isinstance(self.in_channels, int) else self.in_channels[level]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Forward.

        Args:
            inputs (Sequence[Tensor]): Maps (B, C_i, H_i, W_i).

        Returns:
            tuple[Tensor, ...]: The maps, or with a neck what it makes of them.
        """
        if self.neck is None:
            return self._add_context(inputs)
        if self.after_neck:
            return self._add_context(self.neck(inputs))
        return self.neck(self._add_context(inputs))

    def _add_context(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if len(inputs) <= self.levels[-1]:
            raise InputError(
                'neck.levels', f'{list(self.levels)}', f'accepted: 0 to {len(inputs) - 1}'
            )
        maps = list(inputs)
        for level in self.levels:
            if maps[level].shape[1] != self._channels(level):
                raise InputError(
                    'neck.in_channels',
                    f'{self._channels(level)} at level {level}',
                    f'accepted: {[x.shape[1] for x in inputs]}, which the maps have',
                )
            maps[level] = self.context[str(level)](maps[level])
        return tuple(maps)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Find the weights of a neck that was trained on its own."""
        if self.neck is not None:
            for key in [key for key in state_dict if key.startswith(prefix)]:
                name = key[len(prefix) :]
                if name.partition('.')[0] not in self._modules:
                    state_dict[f'{prefix}neck.{name}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _checked_channels(in_channels: int | Sequence[int] | None) -> int | tuple[int, ...]:
    many = isinstance(in_channels, Sequence) and not isinstance(in_channels, str)
    counts = tuple(in_channels) if many else (in_channels,)
    if not counts or not all(type(count) is int and count > 0 for count in counts):
        raise InputError(
            'neck.in_channels',
            repr(in_channels),
            'accepted: positive integers, one for each map, or one for all',
        )
    return counts if many else in_channels


def _checked_levels(levels: Sequence[int], count: int | None) -> tuple[int, ...]:
    most = 'as many as there are maps' if count is None else str(count - 1)
    valid = isinstance(levels, Sequence) and len(levels) > 0
    valid = valid and all(
        type(level) is int and level >= 0 and (count is None or level < count) for level in levels
    )
    if not valid or len(set(levels)) < len(levels):
        raise InputError(
            'neck.levels', repr(levels), f'accepted: different integers from 0 to {most}'
        )
    return tuple(sorted(levels))
