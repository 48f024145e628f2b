"""Read what mmengine logged in the work folder of a training."""

from __future__ import annotations

import json
from pathlib import Path

from polynl_mmdet.errors import InputError


def read_log(work_dir: Path) -> tuple[list[dict], list[dict]]:
    """Read the losses and the validation results of a training and its resumes.

    Args:
        work_dir (Path): The ``work_dir`` of mmengine's Runner.

    Returns:
        tuple: Training records (``step`` counts iterations, ``loss``, ``time``, ...) and validation
        records (``step`` counts epochs or iterations, as the training does; metrics), by step.

    Raises:
        InputError: No training has logged into the folder.
    """
    training: dict[int, dict] = {}
    validation: dict[int, dict] = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            record = json.loads(line)
            (training if 'loss' in record else validation)[record['step']] = record
    if not training:
        raise InputError(f'{work_dir}: no training log */vis_data/scalars.json with losses')
    return _by_step(training), _by_step(validation)


def _by_step(records: dict[int, dict]) -> list[dict]:
    return [records[step] for step in sorted(records)]


def ap_keys(validation: list[dict]) -> list[str]:
    """Return the names of the APs in validation records, the main one first.

    Those are ``*_mAP`` of COCO-style metrics, masks before boxes, ``wider_face/*``, ``*/AP`` and
    ``*/mAP`` of others.
    """
    names = {name: None for record in validation for name in record}
    found = [
        name
        for name in names
        if name.endswith(('_mAP', '/mAP', '/AP')) or name.startswith('wider_face/')
    ]
    return sorted(found, key=lambda name: ('segm' not in name, 'hard' not in name))
