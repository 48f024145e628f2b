"""mmengine metrics over polynl_mmdet.wider_face and COCO's evaluator."""

from .coco_metric import OrderedCocoMetric
from .face_landmark_metric import FaceLandmarkMetric
from .wider_face_metric import WIDERFaceMetric
