"""Compare the parts of a run before its first step."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any, Iterator

from mmdet.evaluation import CocoMetric
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from polynl_mmdet.datasets.coco import OrderedCocoDataset, shorten

from .checkpoints import check_loaded


@HOOKS.register_module()
class ConsistencyHook(Hook):
    """Stop a run whose parts do not fit each other, before its first step.

    - ``num_classes`` of every head against the classes of every data set;
    - classes and their order in training, validation and evaluator;
    - the images of a data set against the annotation file or ground truth of its evaluator, those
      of RetinaFaceDataset against the disk;
    - the weights of ``load_from`` or ``--resume`` against the model.

    For a config of your own: ``custom_hooks = [dict(type='ConsistencyHook')]``. ``tools/train.py``
    and ``tools/test.py`` add it to every config.
    """

    def before_run(self, runner: Runner) -> None:
        """Raise ValueError if model, data sets and evaluators do not fit."""
        if is_main_process():
            _repair_last_checkpoint(Path(runner.work_dir))
        barrier()
        datasets = _datasets(runner)
        train = list(_parts(datasets.get('train')))
        for name, dataset in datasets.items():
            for part in _parts(dataset):
                check_num_classes(_bare(runner.model), part, name)
                if name != 'train' and hasattr(part, 'check_files'):
                    part.check_files()
            classes = {name: _classes(dataset), 'train': _classes(datasets.get('train'))}
            if all(classes.values()) and len(set(classes.values())) > 1:
                found = ' and '.join(f'{key} {value}' for key, value in classes.items())
                raise ValueError(f'got different classes, expected the same: {found}')
            evaluator = getattr(getattr(runner, f'_{name}_loop'), 'evaluator', None)
            for metric in getattr(evaluator, 'metrics', []):
                if hasattr(metric, 'check_dataset'):
                    metric.check_dataset(dataset)
                # A metric that has evaluated before has numbered its index.
                evaluated = getattr(metric, '_numbers', None)
                if getattr(metric, '_coco_api', None) is not None and not evaluated:
                    _check_images(metric, dataset, name)
                    _check_labels(metric, [*train, *_parts(dataset)], name)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise ValueError if most weights do not fit the model; warn of other classes."""
        state_dict = checkpoint.get('state_dict', checkpoint)
        check_loaded(_bare(runner.model), state_dict, str(runner._load_from or 'checkpoint'))
        lacking = [key for key in ('optimizer', 'param_schedulers') if key not in checkpoint]
        if runner._resume and lacking:
            runner.logger.warning(
                f'The checkpoint has no {" and no ".join(lacking)}: they restart from step 0. '
                'mmengine saves them in epoch_*.pth and iter_*.pth, not in best_*.pth.'
            )
        stored = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        stored = tuple(stored.get('classes', stored.get('CLASSES')) or ())
        for name, dataset in _datasets(runner).items():
            if stored and _classes(dataset) and stored != _classes(dataset):
                runner.logger.warning(
                    f'The checkpoint was trained on the classes {shorten(stored)}; the {name} data '
                    f'set has {shorten(_classes(dataset))}.'
                )


def check_num_classes(model: nn.Module, dataset: Any, name: str = 'train') -> None:
    """Raise ValueError if ``num_classes`` of a head is not the number of a data set's classes."""
    classes = _classes(dataset)
    # Panoptic data sets count things and stuff; in an open vocabulary classes are prompts.
    is_open = getattr(dataset, 'return_classes', False)
    if not classes or 'stuff_classes' in dataset.metainfo or is_open:
        return
    wrong = [
        f'model.{key}.num_classes={module.num_classes}'
        for key, module in model.named_modules()
        if isinstance(getattr(module, 'num_classes', None), int)
        and 'head' in key
        and not re.search(r'rpn_head|semantic|backbone', key)
        and not getattr(module, 'num_stuff_classes', 0)
        and not getattr(module, 'class_agnostic', False)
        and module.num_classes != len(classes)
    ]
    if wrong:
        raise ValueError(
            f'got {", ".join(wrong)}, expected {len(classes)}, the number of classes of the {name} '
            f'data set: {shorten(classes)}'
        )


def _check_images(metric: CocoMetric, dataset: Any, name: str) -> None:
    """Raise ValueError if an evaluator's file lacks an image, or has others for the same ids."""
    coco, seen, boxes, truth = metric._coco_api, set(), set(), set()
    for part in _parts(dataset):
        for info in map(part.get_data_info, range(len(part))):
            key, path = info.get('img_id'), info.get('img_path')
            file = coco.imgs.get(key, {}).get('file_name', 'missing')
            if file and os.path.basename(file) != os.path.basename(path):
                raise ValueError(
                    f'{name}_evaluator.ann_file has other images than the {name} data set: image '
                    f'{key!r} is {path} in the data set and {file} in the file'
                )
            seen.add(key)
            for found, objects in ((boxes, info.get('instances')), (truth, coco.imgToAnns[key])):
                found.update((key, *object_['bbox'][:2]) for object_ in objects or [])
    if boxes and truth and not boxes & truth:
        raise ValueError(
            f'{name}_evaluator.ann_file has other objects than the {name} data set: no box is in '
            'both. Are they of the same split?'
        )
    if len(seen) < len(coco.imgs):
        message = (
            f'{name}_evaluator.ann_file has {len(coco.imgs) - len(seen)} images that are not in '
            f'the {name} data set: all of their objects count as missed.'
        )
        print_log(message, logger='current', level=logging.WARNING)


def _check_labels(metric: CocoMetric, datasets: list, name: str) -> None:
    """Raise ValueError if a label is another class in a metric than in a data set.

    mmdet's CocoDataset and CocoMetric use the order of their annotation file.
    """
    for dataset in datasets:
        ids = metric._coco_api.get_cat_ids(cat_names=_classes(dataset))
        names = tuple(metric._coco_api.cats[key]['name'] for key in ids)
        if isinstance(dataset, OrderedCocoDataset):
            differs = names != _classes(dataset)
        else:  # The names of mmdet's labels are not known any more, their category ids are.
            known = getattr(dataset, 'cat_ids', ids)
            differs = known != ids and set(known) == set(ids)
        if differs:
            found = f'another order than {dataset.ann_file}: {names}'
            hint = 'use OrderedCocoDataset and OrderedCocoMetric'
            raise ValueError(f'{name}_evaluator counts the classes in {found}; {hint}')


def _repair_last_checkpoint(work_dir: Path) -> None:
    """Let ``last_checkpoint`` name a file that exists; a run that is killed may leave it empty."""
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named or os.path.isfile(named):
        return
    names = [p for p in work_dir.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', p.name)]
    if names:
        pointer.write_text(str(max(names, key=lambda path: path.stat().st_mtime)))
    elif pointer.is_file():
        pointer.unlink()


def _bare(model: nn.Module) -> nn.Module:
    """Return a detector without wrappers for several processes and test-time augmentation."""
    model = model.module if is_model_wrapper(model) else model
    return getattr(model, 'module', model)


def _datasets(runner: Runner) -> dict:
    """Return the data sets of the loops that a run uses."""
    loops = {name: getattr(runner, f'_{name}_loop') for name in ('train', 'val', 'test')}
    return {
        name: loop.dataloader.dataset for name, loop in loops.items() if isinstance(loop, BaseLoop)
    }


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from _parts(part)
        elif dataset is not None:
            yield dataset


def _classes(dataset: Any) -> tuple:
    meta = getattr(dataset, 'metainfo', None)
    classes = meta.get('classes') if isinstance(meta, dict) else None
    if isinstance(classes, str):
        raise ValueError(f"got classes='{classes}', expected a tuple: ('{classes}',)")
    return tuple(classes or ())
