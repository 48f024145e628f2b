"""Modules that mmdet builds."""

from .backbones import MobileNetV1, SiteResNet, SiteResNeXt, SpatialBiasResNet
from .dense_heads import RetinaFaceHead
from .detectors import RetinaFace
from .necks import LevelContext, MergeFPN, SSHContext, SSHContextModule
from .task_modules import FaceAssigner, LandmarkCoder
from .test_time_augs import FaceTTAModel
