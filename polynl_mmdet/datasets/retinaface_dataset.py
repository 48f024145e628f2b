"""WIDER FACE for mmdet, read from its own annotation files."""

from __future__ import annotations

import os.path as osp

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from polynl_mmdet.wider_face.annotations import read_annotations


@DATASETS.register_module()
class RetinaFaceDataset(BaseDetDataset):
    """Faces with five landmarks: WIDER FACE and files of the same formats.

    Reads the official ``wider_face_{train,val}_bbx_gt.txt``, RetinaFace's ``label.txt`` v1.1 and
    ``labelv2``, told apart by their content (see :mod:`polynl_mmdet.wider_face.annotations`).
    What mmdet calls ``instances`` is made when an image is asked for.

    An instance has ``bbox`` (x1, y1, x2, y2 in pixels), ``bbox_label`` 0, ``ignore_flag``,
    ``keypoints`` (float32, shape (5, 2): left eye, right eye, nose, left and right mouth corner;
    -1 where not annotated) and ``keypoints_visible`` (float32, shape (5,): 1 where annotated). Left
    and right are the viewer's. Boxes with no width or no height are left out, and their number is
    logged.

    Args:
        ann_file (str): The annotation file.
        ann_format (str): 'auto', 'bbx_gt', 'label' or 'labelv2'. Defaults to 'auto'.
        min_size (float, optional): Faces whose width or height in pixels is below it are ignored,
            as those flagged invalid are. Defaults to None, no limit.
        data_prefix (dict): ``img`` is the folder that holds the event folders. Defaults to
            ``dict(img='')``.
        filter_cfg (dict, optional): ``dict(filter_empty_gt=True)`` leaves out, in training,
            images whose faces are all ignored or that have none. Defaults to None: all are kept.
        **kwargs: As in mmdet's ``BaseDetDataset``.

    Raises:
        InputError: If the annotation file is malformed, or when an image it names is missing or
            cannot be used. The error names file and line.
    """

    METAINFO = {'classes': ('face',), 'palette': [(220, 20, 60)]}

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
        """Read the annotation file.

        Returns:
            list[dict]: One per image: ``img_path``, ``img_id``, ``ann_line``, ``height`` and
            ``width`` if the file tells them, and ``faces``, float32 of shape (n, 20): the box, five
            landmarks x, y, annotated, and whether the face is ignored.
        """
        annotations = read_annotations(self.ann_file, self.ann_format)
        boxes = annotations.boxes()
        marks, annotated = annotations.landmarks()
        size = boxes[:, 2:] - boxes[:, :2]
        ignored = annotations.invalid()
        if self.min_size is not None:
            ignored |= (size < self.min_size).any(axis=1)
        marks = np.concatenate([marks, annotated[..., None]], axis=2).reshape(-1, 15)
        faces = np.concatenate([boxes, marks, ignored[:, None]], axis=1, dtype=np.float32)
        kept = (size > 0).all(axis=1)
        if not kept.all():
            print_log(
                f'{self.ann_file}: {int((~kept).sum())} of {len(kept)} boxes have no width or no '
                'height and are left out',
                logger='current',
            )
        prefix = self.data_prefix.get('img', '')
        data_list = []
        for index, name in enumerate(annotations.names):
            rows = slice(annotations.starts[index], annotations.starts[index + 1])
            info = {
                'img_path': osp.join(prefix, name),
                'img_id': index,
                'ann_line': int(annotations.lines[index]),
                'faces': faces[rows][kept[rows]],
            }
            if annotations.sizes is not None:
                info['width'], info['height'] = annotations.sizes[index].tolist()
            data_list.append(info)
        return data_list

    def filter_data(self) -> list[dict]:
        """Leave out images with nothing to learn from, if ``filter_cfg`` asks for it."""
        if self.test_mode or not (self.filter_cfg or {}).get('filter_empty_gt', False):
            return self.data_list
        return [info for info in self.data_list if (info['faces'][:, 19] == 0).any()]

    def get_data_info(self, idx: int) -> dict:
        """Get an image's information with its ``instances``, as mmdet's datasets give it."""
        info = super().get_data_info(idx)
        faces = info.pop('faces')
        marks = faces[:, 4:19].reshape(-1, 5, 3)
        info['instances'] = [
            {
                'bbox': box,
                'bbox_label': 0,
                'ignore_flag': int(ignored),
                'keypoints': points[:, :2],
                'keypoints_visible': points[:, 2],
            }
            for box, ignored, points in zip(faces[:, :4].tolist(), faces[:, 19], marks)
        ]
        return info

    def _where(self, idx: int, path: str) -> str:
        return f'{self.ann_file}:{self.get_data_info(idx)["ann_line"]}: {path}'
