"""The cost table: counts that can be worked out by hand, and a run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import layers  # noqa: E402

C, H, W = 32, 20, 18
N = H * W
CONV = 2 * N * C * C  # A 1 x 1 convolution that keeps the channels.
HALF, PAIRS = CONV // 2, 2 * 2 * N * N * C // 2  # To half of them; both products of attention.


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('NonLocal2d', 4 * HALF + PAIRS),
        ('DisentangledNonLocal', 4 * HALF + PAIRS + 2 * N * C + 2 * N * C // 2),
        ('EfficientAttention', 4 * HALF + 2 * 2 * N * C * C // 4),
        ('DoubleAttention', CONV + 2 * 2 * N * (C // 4) ** 2),
        ('SqueezeExcitation', 2 * 2 * C * (C // 16)),
    ],
)
def test_operations_are_those_of_the_formula(name, expected):
    assert layers.flops(layers.build(name, C), torch.randn(1, C, H, W)) == expected


def test_a_quick_run_measures_every_layer(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks' / 'layers.py'), '--quick', '--threads', '1']
        + ['--output', str(tmp_path / 'out.json'), '--plot', str(tmp_path / 'out.png')],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / 'out.json').read_text())
    for part in ('sites', 'scaling'):
        assert {row['name'] for row in report[part]} == set(layers.LAYERS)
        for row in report[part]:
            assert row['parameters'] > 0
            assert row['forward'] > 0
            assert 0 < row['kept'] <= row['peak']
    added = {row['name']: row['added'] for row in report['networks']}
    assert added['ResNet-50'] == 0
    # Theta, phi, g and the way back, each C x C / 2, and their biases.
    assert added['NonLocal2d x 5'] == sum(
        n * (2 * c**2 + 5 * c // 2) for n, c in ((2, 512), (3, 1024))
    )
    # Three C x C weights, two scalars, and the context's norm.
    assert added['Poly-NL x 5'] == sum(n * (3 * c**2 + 2 + 2 * c) for n, c in ((2, 512), (3, 1024)))
    # The reduction, its norm, the 1-D convolution, the maps' norm and the 1x1 convolution.
    assert added['Spatial Bias, c2-c4'] == sum(
        n * (5 * c + 10 + 30100 + 6 + 12 * c) for n, c in ((3, 64), (4, 128), (6, 256))
    )
    assert set(report['exponents']) == set(layers.LAYERS)
    assert (tmp_path / 'out.png').stat().st_size > 5000
    assert all(f'| {name} ' in done.stdout for name in layers.LAYERS)
