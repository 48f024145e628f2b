"""Backbones."""

from .resnet_sites import SiteResNet, SiteResNeXt

__all__ = ['SiteResNeXt', 'SiteResNet']
