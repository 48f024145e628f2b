"""An mmcv for the CPU beside a torch that uses a GPU is told."""

from __future__ import annotations

import pytest

from polynl_mmdet.cli import cuda_operators


@pytest.mark.parametrize(
    ('device', 'version', 'warned'),
    [
        ('cuda', 'not available', True),
        ('cuda', '13.0', False),
        ('cpu', 'not available', False),
        ('cpu', '13.0', False),
    ],
)
def test_only_a_gpu_without_operators_is_told(monkeypatch, capsys, device, version, warned):
    monkeypatch.setattr(cuda_operators, 'get_device', lambda: device)
    monkeypatch.setattr(cuda_operators, 'get_compiling_cuda_version', lambda: version)
    cuda_operators.warn_without_cuda_operators()
    assert ('without CUDA operators' in capsys.readouterr().err) is warned
