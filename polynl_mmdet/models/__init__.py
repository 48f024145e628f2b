"""What mmdet builds."""

from .backbones import SiteResNet, SiteResNeXt

__all__ = ['SiteResNeXt', 'SiteResNet']
