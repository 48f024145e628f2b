"""What non-local layers cost a whole ResNet-50: learned numbers and images a second.

Spatial Bias's paper (https://arxiv.org/abs/2302.12505) compares networks: about 10 times fewer
parameters than non-local ones and 1.6 to 3.3 times their throughput.
"""

from __future__ import annotations

import statistics
from functools import partial

import torch
from mmdet.registry import MODELS
from torch import nn

from benchmarks.measure import interleaved_times, markdown

PLAIN = 'ResNet-50'
# Wang et al., "Non-local Neural Networks", CVPR 2018, Sec. 4: five blocks, two in res3 and three in
# res4, to every other residual block.
PLACES = [('c3', 1), ('c3', 3), ('c4', 1), ('c4', 3), ('c4', 5)]


def _at_five_sites(**layer) -> dict:
    sites = [dict(cfg=layer, stage=stage, before_block=block) for stage, block in PLACES]
    return dict(type='SiteResNet', sites=sites)


NETWORKS = {
    PLAIN: dict(type='ResNet'),
    'Spatial Bias, c2-c4': dict(type='SpatialBiasResNet'),
    'Poly-NL x 5': _at_five_sites(type='PolyNL', context_norm=True),
    'NonLocal2d x 5': _at_five_sites(type='NonLocal2d', reduction=2),
    'ContextBlock x 5': _at_five_sites(type='ContextBlock', ratio=1 / 16),
}


def build(name: str) -> nn.Module:
    """nn.Module: a backbone of NETWORKS in evaluation mode."""
    network = MODELS.build(dict(NETWORKS[name], depth=50))
    network.eval()
    return network


def measure(budget: float, rounds: int, quick: bool) -> list[dict]:
    """Measure every network at 224 x 224 pixels (classification) and 800 x 1344 (detection).

    Args:
        budget (float): Seconds of rounds a size.
        rounds (int): Rounds at least.
        quick (bool): Whether to take one small size instead.

    Returns:
        list[dict]: ``name``, ``added`` learned numbers beside the plain network's, and images a
        second by ``throughput``, of a forward pass, by size.
    """
    networks = {name: build(name) for name in NETWORKS}
    count = {n: sum(p.numel() for p in network.parameters()) for n, network in networks.items()}
    rows = [dict(name=n, added=count[n] - count[PLAIN], throughput={}) for n in networks]
    for batch, height, width in [(1, 64, 64)] if quick else [(8, 224, 224), (1, 800, 1344)]:
        x = torch.randn(batch, 3, height, width)
        runs = {name: partial(network, x) for name, network in networks.items()}
        with torch.no_grad():
            times = interleaved_times(runs, 'cpu', budget, rounds, warm_up=1)
        for row in rows:
            seconds = statistics.median(times[row['name']])
            row['throughput'][f'{height} x {width}'] = batch / seconds
    return rows


def show(rows: list[dict]) -> None:
    """Print the table, throughput also relative to the network with non-local blocks."""
    base = next(row for row in rows if row['name'].startswith('NonLocal2d'))
    sizes = list(rows[0]['throughput'])
    header = ['network', 'added parameters']
    for size in sizes:
        header += [f'images/s, {size}', 'x NonLocal2d']
    cells = []
    for row in rows:
        line = [row['name'], f'{row["added"]:,}']
        for size in sizes:
            speed = row['throughput'][size]
            line += [f'{speed:.2f}', f'{speed / base["throughput"][size]:.2f}']
        cells.append(line)
    print('\nwhole backbones\n')
    print(markdown(header, cells), flush=True)
