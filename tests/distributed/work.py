"""What the processes of the distributed tests do. ``world`` 1 is the single process."""

from __future__ import annotations

import os
import signal

import torch
from mmcv.cnn import build_norm_layer
from mmengine.dataset import DefaultSampler
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn

from polynl_mmdet.cli.mmdet_tools import leave_process_group
from polynl_mmdet.evaluation import FaceLandmarkMetric, OrderedCocoMetric, WIDERFaceMetric
from polynl_mmdet.layers import PolyNL


def enter(rank, world, function, folder, args):
    """Entry point of a process: makes the group and stores the result."""
    torch.set_num_threads(1)
    os.chdir(folder)  # mmengine makes .dist_test where it is.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world
    )
    result = globals()[function](rank, world, *args)
    torch.save(result, f'{folder}/part_{rank}')
    os.rename(f'{folder}/part_{rank}', f'{folder}/result_{rank}')
    leave_process_group()


def make_net(norm, dtype):
    """A net with PolyNL between convolutions, its branch switched on."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3), PolyNL(8, bias=True), nn.ReLU(), nn.Conv2d(8, 2, 3)]
    if norm is not None:
        layers.insert(2, build_norm_layer(dict(type=norm), 8)[1])
    net = nn.Sequential(*layers)
    nn.init.xavier_uniform_(net[1].w3)
    nn.init.constant_(net[1].beta, 0.7)
    return net.to(dtype)


def train(rank, world, norm, dtype, steps=4, batch=12):
    """Train some steps on this process's share of each global batch.

    Returns:
        dict: Gradients of the first step and weights, norm statistics too, after the last.
    """
    net = make_net(norm, dtype)
    model = net
    if world > 1:
        model = MMDistributedDataParallel(net, device_ids=None, broadcast_buffers=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    draw = torch.Generator().manual_seed(11)
    gradients = None
    for _ in range(steps):
        x = torch.randn(batch, 3, 12, 10, generator=draw, dtype=torch.float64).to(dtype)
        target = torch.randn(batch, 2, 8, 6, generator=draw, dtype=torch.float64).to(dtype)
        share = slice(rank * batch // world, (rank + 1) * batch // world)
        optimizer.zero_grad()
        (model(x[share]) - target[share]).square().mean().backward()
        if gradients is None:
            gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
        optimizer.step()
    return dict(gradients=gradients, weights=net.state_dict())


def evaluate(rank, world, kind, options, samples, batch):
    """Feed a metric this process's share of the images, as mmengine's sampler gives them."""
    kinds = dict(coco=OrderedCocoMetric, wider=WIDERFaceMetric, landmarks=FaceLandmarkMetric)
    meta = options.pop('dataset_meta', None)
    metric = kinds[kind](**options)
    metric.dataset_meta = meta
    indices = list(DefaultSampler(samples, shuffle=False))
    for begin in range(0, len(indices), batch):
        metric.process({}, [samples[index] for index in indices[begin : begin + batch]])
    return metric.evaluate(len(samples))


def reduced_step(rank, world, dies):
    """Train until one process is killed. The others do not return."""
    for step in range(1000):
        if rank == dies and step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.all_reduce(torch.ones(1000))
    return 'all steps'
