"""Modules that mmdet builds."""

from .backbones.mobilenet_v1 import MobileNetV1
from .backbones.resnet_sites import SiteResNet, SiteResNeXt
from .backbones.spatial_bias_resnet import SpatialBiasResNet
from .dense_heads.retinaface_head import RetinaFaceHead
from .detectors.retinaface import RetinaFace
from .necks.level_context import LevelContext
from .necks.merge_fpn import MergeFPN
from .necks.ssh_context import SSHContext, SSHContextModule
from .task_modules.face_assigner import FaceAssigner
from .task_modules.landmark_coder import LandmarkCoder
from .test_time_augs.face_tta import FaceTTAModel
