"""Backbones."""

from .mobilenet_v1 import MobileNetV1
from .resnet_sites import SiteResNet, SiteResNeXt
from .spatial_bias_resnet import SpatialBiasResNet
