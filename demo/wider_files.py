"""Write WIDER FACE's annotation files and evaluation ground truth."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from scipy.io import savemat

from polynl_mmdet.wider_face.annotations import FaceAnnotations
from polynl_mmdet.wider_face.ground_truth import (
    SETTINGS,
    WiderFaceGroundTruth,
    ground_truth_files,
)

_MAT_TEXT = b'MATLAB 5.0 MAT-file, drawn faces in the layout of WIDER FACE'


def write_annotations(path: str | Path, annotations: FaceAnnotations) -> None:
    """Write annotations in their own format; reading them back gives the same numbers."""
    official = annotations.format == 'bbx_gt'
    lines = []
    for index, name in enumerate(annotations.names):
        rows = annotations.rows[annotations.starts[index] : annotations.starts[index + 1]]
        if official:
            lines += [name, str(len(rows))]
            rows = rows if len(rows) else np.zeros((1, 10))
        else:
            size = [] if annotations.sizes is None else annotations.sizes[index]
            lines.append(' '.join(map(str, ['#', name, *size])))
        for row in rows.tolist():
            # Boxes and official attributes are integers, landmarks are not.
            words = [_whole(value) for value in row[: 10 if official else 4]]
            words += [repr(value) for value in row[len(words) :]]
            lines.append(' '.join(words) + ' ' * official)
    Path(path).write_bytes('\n'.join([*lines, '']).encode())


def _whole(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def write_ground_truth(gt_dir: str | Path, ground_truth: WiderFaceGroundTruth) -> None:
    """Write the four files in the official structure; the same input gives the same bytes."""
    events: dict[str, list[int]] = {}
    for number, image in enumerate(ground_truth.images):
        events.setdefault(image.split('/')[0], []).append(number)

    def nested(values: list) -> np.ndarray:
        return _cells([_cells([values[number] for number in event]) for event in events.values()])

    common = {
        'event_list': _cells(list(events)),
        'file_list': nested([image.split('/')[1] for image in ground_truth.images]),
        'face_bbx_list': nested(np.split(ground_truth.boxes, ground_truth.starts[1:-1])),
    }
    files = ground_truth_files(gt_dir)
    Path(gt_dir).mkdir(parents=True, exist_ok=True)
    _save(files['face'], common)
    for setting in SETTINGS:
        parts = np.split(ground_truth.counted[setting], ground_truth.starts[1:-1])
        numbers = nested([np.flatnonzero(part)[:, None] + 1 for part in parts])
        _save(files[setting], dict(common, gt_list=numbers))


def _cells(values: list) -> np.ndarray:
    """Make a MATLAB cell column."""
    cells = np.empty((len(values), 1), dtype=object)
    cells[:, 0] = values
    return cells


def _save(path: Path, content: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=True)
    # SciPy writes the time of day into the first 116 bytes, which are free text.
    path.write_bytes(_MAT_TEXT.ljust(116) + buffer.getvalue()[116:])
