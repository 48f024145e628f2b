"""Fixtures of the operator's tests, which need PyTorch alone."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope='module', params=['cpu'] + ['cuda'] * torch.cuda.is_available())
def device(request):
    """Make new tensors on the CPU, and on CUDA where there is one."""
    if request.param == 'cpu':
        yield
        return
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.set_default_device(request.param)
    yield
    torch.set_default_device('cpu')
    torch.backends.cudnn.allow_tf32 = tf32
