"""Check the layers of a config before the model is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from mmdet.models.backbones import Res2Net, ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config

# Their types are no registered modules of a model.
NOT_MODULES = ('init_cfg', 'nms', 'nms_cfg')


def check_model(model: dict) -> None:
    """Check the types, ``plugins`` and ``sites`` of a model config.

    mmdet builds some mistakes into an assertion without a message, a KeyError of 'None', or a shape
    error at the first image. Types may be names or classes.

    Raises:
        ValueError: A misspelt type; ``plugins`` or ``sites`` for a backbone that takes none, or
            that the backbone cannot place.
    """
    for where, part in _parts(model, 'model'):
        cls = _class_of(part, where)
        for key in ('plugins', 'sites'):
            value = part.get(key)
            if not value or cls is None:
                continue
            if not any(key in inspect.signature(base).parameters for base in cls.__mro__[:-1]):
                hint = 'expected LevelContext as neck, which puts layers behind any backbone'
                if issubclass(cls, ResNet):
                    hint = "expected type='SiteResNet' or 'SiteResNeXt'"
                raise ValueError(f'{where}: {cls.__name__} takes no {key}, {hint}')
            if not (isinstance(value, (list, tuple)) and all(isinstance(v, dict) for v in value)):
                raise ValueError(
                    f'{where}.{key}: got {type(value).__name__}, expected a list of dicts'
                )
            for index, item in enumerate(value):
                if issubclass(cls, ResNet):
                    _check_item(item, key, part, cls, f'{where}.{key}[{index}]')


def _check_item(item: dict, key: str, model: dict, backbone: type[ResNet], where: str) -> None:
    """Check one of the ``plugins`` or ``sites`` of a ResNet."""
    block = backbone.arch_settings.get(model.get('depth'), (Bottleneck,))[0]
    if key == 'plugins' and not hasattr(block, 'make_block_plugins'):
        raise ValueError(
            f'{where}: {backbone.__name__}-{model["depth"]} has no bottlenecks and takes no '
            "plugins, expected depth 50 or more, or type='SiteResNet' with sites"
        )
    check_layer(item.get('cfg'), f'{where}.cfg')
    if key == 'sites':
        return
    # Res2Net plans plugins for other channels than the first positions have.
    first = 3 if issubclass(backbone, Res2Net) else 1
    positions = [f'after_conv{index}' for index in range(first, 4)]
    if item.get('position') not in positions:
        raise ValueError(
            f'{where}.position: got {item.get("position")!r}, expected {" or ".join(positions)}'
        )
    stages, count = item.get('stages'), model.get('num_stages', 4)
    if stages is not None and len(stages) != count:
        raise ValueError(f'{where}.stages: got {len(stages)} values, expected {count} booleans')


def check_layer(cfg: dict, where: str) -> None:
    """Raise ValueError unless a layer's config, of the key ``where``, has a registered type."""
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(f"{where}: got {cfg!r}, expected a dict with 'type'")
    kind = cfg['type']
    if isinstance(kind, str) and not callable(MODELS.get(kind)):  # It imports modules, too.
        raise _not_registered(kind, f'{where}.type')


def replaced_lists(filename: str | Path) -> list[str]:
    """Report, a line each, ``custom_imports`` and ``plugins`` that lost entries of the base's.

    Lists replace lists in mmengine.
    """
    path = Path(filename).resolve()
    bases = Config._get_base_files(str(path))
    if not bases:
        return []
    bases = [base if '::' in base else str(path.parent / base) for base in bases]
    old = _entries(Config.fromstring(f'_base_ = {bases!r}', '.py'))
    new = _entries(Config.fromfile(path))
    return [
        f'{path.name}: {name} replaces the list of its base, without '
        f'{", ".join(sorted(entries - new[name]))}'
        for name, entries in old.items()
        if new.get(name) and entries - new[name]
    ]


def _entries(cfg: Config) -> dict[str, set[str]]:
    """Return the modules of ``custom_imports`` and the layers of each ``plugins``."""
    entries = {'custom_imports': set((cfg.get('custom_imports') or {}).get('imports', ()))}
    for where, part in _parts(cfg.get('model', {}), 'model'):
        if isinstance(part.get('plugins'), list):
            types = {str(plugin.get('cfg', {}).get('type')) for plugin in part['plugins']}
            entries[f'{where}.plugins'] = types
    return entries


def _parts(cfg: object, where: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict of a config, with its key."""
    if isinstance(cfg, dict):
        yield where, cfg
        children = [(f'{where}.{key}', v) for key, v in cfg.items() if key not in NOT_MODULES]
    elif isinstance(cfg, (list, tuple)):
        children = [(f'{where}[{index}]', value) for index, value in enumerate(cfg)]
    else:
        return
    for name, value in children:
        yield from _parts(value, name)


def _class_of(part: dict, where: str) -> type | None:
    """Return the class that a dict builds; None for what is not built from a registry."""
    kind = part.get('type')
    if isinstance(kind, str):
        found = MODELS.get(kind) or TASK_UTILS.get(kind)
        # Some modules have types of their own: FPG's 'conv'.
        if found is None and kind.rpartition('.')[2][:1].isupper() and _near(kind):
            raise _not_registered(kind, f'{where}.type')
        kind = found
    return kind if isinstance(kind, type) else None


def _not_registered(kind: str, where: str) -> ValueError:
    near = _near(kind)
    hint = 'is the package that registers it in custom_imports?'
    hint = f'did you mean {near[0]!r}?' if near else hint
    return ValueError(f'{where}: {kind!r} is not registered; {hint}')


def _near(kind: str) -> list[str]:
    """Return registered names that a misspelt one may mean."""
    names = [*TASK_UTILS.module_dict]
    registry = MODELS
    while registry is not None:
        names += registry.module_dict
        registry = registry.parent
    kind = kind.rpartition('.')[2]
    same = [name for name in names if name.lower() == kind.lower()]
    return same or get_close_matches(kind, names, n=1, cutoff=0.8)
