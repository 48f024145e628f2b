"""WIDER FACE for mmdet, read from its own annotation files."""

from __future__ import annotations

import os.path as osp
import re

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from polynl_mmdet.wider_face.annotations import read_annotations


@DATASETS.register_module()
class RetinaFaceDataset(BaseDetDataset):
    """Faces with landmarks: WIDER FACE and files of the same formats.

    Reads the official ``wider_face_{train,val}_bbx_gt.txt``, RetinaFace's ``label.txt`` v1.1 and
    ``labelv2``, told apart by their content (see :mod:`polynl_mmdet.wider_face.annotations`).
    Boxes of zero or negative size are skipped; what is skipped is logged.

    An instance has ``bbox`` (x1, y1, x2, y2 in pixels), ``bbox_label`` 0, ``ignore_flag``,
    ``keypoints`` (float32, shape (K, 2); -1 where not annotated) and ``keypoints_visible``
    (float32, shape (K,): 1 where annotated). The K landmarks have the names of
    ``metainfo['landmarks']``, by default left eye, right eye, nose, left and right mouth corner as
    the viewer sees them. An image has ``flip_indices``, the order of the landmarks in a mirror:
    names that contain "left" and "right" change places.

    Args:
        ann_file (str): The annotation file.
        ann_format (str): 'auto', 'bbx_gt', 'label' or 'labelv2'. Defaults to 'auto'.
        min_size (float, optional): Faces whose width or height in pixels is below it are ignored,
            as those flagged invalid are. Defaults to None, no limit.
        data_prefix (dict): ``img`` is the folder that holds the event folders. Defaults to
            ``dict(img='')``.
        filter_cfg (dict, optional): ``dict(filter_empty_gt=True)`` skips, in training, images
            without faces and those whose faces are all ignored. Defaults to None: all are kept.
        **kwargs: As in mmdet's ``BaseDetDataset``; ``metainfo=dict(landmarks=(...))`` for other
            landmarks than the five.

    Raises:
        ValueError: If the annotation file is malformed, or has no image to train on.
    """

    METAINFO = {
        'classes': ('face',),
        'palette': [(220, 20, 60)],
        'landmarks': ('left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth'),
    }

    def __init__(
        self,
        *args,
        ann_format: str = 'auto',
        min_size: float | None = None,
        data_prefix: dict | None = None,
        **kwargs,
    ) -> None:
        self.ann_format = ann_format
        self.min_size = min_size
        super().__init__(*args, data_prefix=data_prefix or {'img': ''}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file: a dict per image, its faces in arrays."""
        annotations = read_annotations(self.ann_file, self.ann_format)
        for note in annotations.notes:
            print_log(note, logger='current')
        names = list(self.metainfo['landmarks'])
        try:
            keypoints, visible = annotations.landmarks(len(names))
        except ValueError as error:
            raise ValueError(f"{self.ann_file}: {error}, by metainfo['landmarks']") from None
        boxes = annotations.boxes()
        ignored = annotations.invalid()
        if self.min_size is not None:
            ignored |= (boxes[:, 2:] - boxes[:, :2] < self.min_size).any(axis=1)
        faces = dict(boxes=boxes, keypoints=keypoints, visible=visible)
        faces = {key: values.astype(np.float32) for key, values in faces.items()}
        faces['ignored'] = ignored
        prefix = self.data_prefix.get('img', '')
        data_list = []
        for index, name in enumerate(annotations.names):
            rows = slice(annotations.starts[index], annotations.starts[index + 1])
            info = {
                'img_path': osp.join(prefix, name),
                'img_id': index,
                'flip_indices': flip_indices(names),
                **{key: values[rows] for key, values in faces.items()},
            }
            if annotations.sizes is not None:
                info['width'], info['height'] = annotations.sizes[index].tolist()
            data_list.append(info)
        return data_list

    def filter_data(self) -> list[dict]:
        """Skip images with nothing to learn from, if ``filter_cfg`` asks for it."""
        if self.test_mode or not (self.filter_cfg or {}).get('filter_empty_gt', False):
            return self.data_list
        kept = [info for info in self.data_list if not info['ignored'].all()]
        if not kept:
            reason = 'no image has a face to learn from, and filter_empty_gt=True'
            raise ValueError(f'{self.ann_file}: {reason}')
        return kept

    def check_files(self) -> None:
        """Raise ValueError if an image, a local file, does not exist."""
        paths = [info['img_path'] for info in map(self.get_data_info, range(len(self)))]
        missing = [path for path in paths if '://' not in path and not osp.isfile(path)]
        if missing and not self.backend_args:
            found = f'{len(missing)} of {len(paths)} images do not exist, such as {missing[0]}'
            raise ValueError(f'{self.ann_file}: {found}')

    def get_data_info(self, idx: int) -> dict:
        """Get an image's information with its ``instances``, as mmdet's datasets give it."""
        info = super().get_data_info(idx)
        faces = [info.pop(key) for key in ('boxes', 'keypoints', 'visible', 'ignored')]
        info['instances'] = [
            {
                'bbox': box.tolist(),
                'bbox_label': 0,
                'ignore_flag': int(ignored),
                'keypoints': keypoints,
                'keypoints_visible': visible,
            }
            for box, keypoints, visible, ignored in zip(*faces)
        ]
        return info


def flip_indices(names: list[str]) -> list[int]:
    """Return the order of named landmarks in a mirror: left and right change places."""
    other = {'left': 'right', 'right': 'left'}
    mirrored = [re.sub('left|right', lambda found: other[found[0]], name) for name in names]
    return [names.index(new if new in names else old) for new, old in zip(mirrored, names)]
