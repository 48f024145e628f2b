"""RetinaFace, the detector.

Deng et al., RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild (CVPR 2020),
https://arxiv.org/abs/1905.00641.
"""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS


@MODELS.register_module()
class RetinaFace(SingleStageDetector):
    """Backbone, neck (a pyramid, then context modules) and RetinaFaceHead.

    mmdet's SingleStageDetector with landmarks: each result's ``pred_instances`` has ``bboxes``
    (n, 4), ``scores`` (n,), ``labels`` (n,) and ``keypoints`` (n, K, 2) in pixels of the original
    image; for faces left eye, right eye, nose, left and right mouth corner.

    Args:
        backbone (dict): Any mmdet backbone, ``SiteResNet`` or ``MobileNetV1``.
        neck (dict | list[dict], optional): ``[FPN, SSHContext]`` in the paper,
            ``[MergeFPN, SSHContext]`` in the lighter RetinaFace. Defaults to None.
        bbox_head (dict): RetinaFaceHead.
        train_cfg, test_cfg (dict, optional): As RetinaFaceHead describes them.
    """
