"""A note on an mmcv that will fail on the GPU that torch uses."""

from __future__ import annotations

import sys

from mmcv.ops import get_compiling_cuda_version
from mmengine.device import get_device


def warn_without_cuda_operators() -> None:
    """Say so where mmcv was built for the CPU and a GPU is about to be used.

    Training would get as far as the first NMS or RoIAlign, which then asks for an "implementation
    for device cuda:0".
    """
    if get_device() == 'cuda' and not get_compiling_cuda_version()[:1].isdigit():
        print(
            'warning: mmcv was built without CUDA operators, and a GPU is used: NMS and RoIAlign '
            'will fail. To build them: pip uninstall -y mmcv && make install, or '
            'docs/installation.md',
            file=sys.stderr,
        )
