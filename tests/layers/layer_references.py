"""The layers' equations as they read, position by position, from a layer's own weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def rows(x: Tensor) -> Tensor:
    """(C, H, W) -> (N, C)."""
    return torch.stack([x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])])


def apply(conv, x: Tensor) -> Tensor:
    """A 1x1 convolution on (N, C)."""
    weight = conv.weight.flatten(1)
    out = x @ weight.T
    return out if conv.bias is None else out + conv.bias


def one_by_one(function):
    """Lift a reference on (N, C), given the map's size, to (B, C, H, W)."""

    def lifted(layer, x: Tensor) -> Tensor:
        results = [function(layer, rows(image), x.shape[2:]) for image in x]
        return torch.stack([r.T.reshape(x.shape[1:]) for r in results])

    return lifted


def pool(grid: Tensor, tall: int, wide: int) -> Tensor:
    """Means (tall * wide, C) of regions of (H, W, C), by PyTorch's rule for nearly equal sizes."""
    height, width = grid.shape[:2]
    regions = []
    for i in range(tall):
        for j in range(wide):
            top, bottom = i * height // tall, -(-(i + 1) * height // tall)
            left, right = j * width // wide, -(-(j + 1) * width // wide)
            regions.append(grid[top:bottom, left:right].mean(dim=(0, 1)))
    return torch.stack(regions)


@one_by_one
def double_attention(layer, x: Tensor, size) -> Tensor:
    a, b, v = (apply(conv, x) for conv in (layer.features, layer.gather, layer.distribute))
    b = b.exp() / b.exp().sum(dim=0)  # over positions
    v = v.exp() / v.exp().sum(dim=1, keepdim=True)  # over descriptors
    descriptors = torch.stack([(b[:, [k]] * a).sum(dim=0) for k in range(b.shape[1])])
    y = torch.stack([sum(v[i, k] * d for k, d in enumerate(descriptors)) for i in range(len(x))])
    return x + apply(layer.conv_out, y)


@one_by_one
def efficient_attention(layer, x: Tensor, size) -> Tensor:
    parts = []
    q, k, v = (apply(conv, x) for conv in (layer.queries, layer.keys, layer.values))
    width = q.shape[1] // layer.num_heads
    for head in range(layer.num_heads):
        s = slice(head * width, (head + 1) * width)
        # The order of the formula's left-hand side: an N x N matrix of weights.
        weights = q[:, s].softmax(dim=1) @ k[:, s].softmax(dim=0).T
        parts.append(weights @ v[:, s])
    return x + apply(layer.conv_out, torch.cat(parts, dim=1))


@one_by_one
def cgnl(layer, x: Tensor, size) -> Tensor:
    theta, phi, g = (apply(conv, x) for conv in (layer.theta, layer.phi, layer.g))
    width = theta.shape[1] // layer.num_heads
    out_width = x.shape[1] // layer.num_heads
    norm = layer.conv_out
    weight = layer.conv_z.weight.flatten(1)
    parts = []
    for group in range(layer.num_heads):
        s = slice(group * width, (group + 1) * width)
        o = slice(group * out_width, (group + 1) * out_width)
        pairs = torch.outer(theta[:, s].flatten(), phi[:, s].flatten())  # all pairs of entries
        y = (pairs @ g[:, s].flatten()).reshape(-1, width)
        if layer.use_scale:
            y = y / math.sqrt(y.numel())
        z = y @ weight[o].T
        z = (z - z.mean()) / (z.var(unbiased=False) + norm.eps).sqrt()
        parts.append(z * norm.weight[o] + norm.bias[o])
    return x + torch.cat(parts, dim=1)


@one_by_one
def dnl(layer, x: Tensor, size) -> Tensor:
    q, k, v, m = (apply(c, x) for c in (layer.queries, layer.keys, layer.values, layer.mask))
    q, k = q - q.mean(dim=0), k - k.mean(dim=0)
    y = torch.zeros_like(v)
    for i in range(len(x)):
        a = torch.stack([q[i] @ k[j] for j in range(len(x))])
        a = (a / (math.sqrt(q.shape[1]) * layer.temperature)).softmax(dim=0)
        b = m[:, 0].softmax(dim=0)
        y[i] = sum((a[j] + b[j]) * v[j] for j in range(len(x)))
    return x + apply(layer.conv_out, y)


@one_by_one
def pnl(layer, x: Tensor, size) -> Tensor:
    height, width = size
    levels = []
    for scale in layer.scales:
        grid = x.reshape(height, width, -1)
        regions = pool(grid, -(-height // scale), -(-width // scale))
        q, k, v = apply(layer.theta, x), apply(layer.phi, regions), apply(layer.g, regions)
        levels.append((q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) @ v)
    return x + apply(layer.conv_out, torch.cat(levels, dim=1))


@one_by_one
def squeeze_excitation(layer, x: Tensor, size) -> Tensor:
    hidden = apply(layer.squeeze, x.mean(dim=0, keepdim=True)).clamp_min(0)
    return x / (1 + (-apply(layer.conv_out, hidden)).exp())


@one_by_one
def global_response_norm(layer, x: Tensor, size) -> Tensor:
    norms = [sum(value**2 for value in channel).sqrt() for channel in x.T]
    share = [norm / (sum(norms) / len(norms) + layer.eps) for norm in norms]
    columns = [
        x[:, c] + layer.gamma[c, 0, 0] * x[:, c] * share[c] + layer.beta[c, 0, 0]
        for c in range(x.shape[1])
    ]
    return torch.stack(columns, dim=1)


@one_by_one
def relu_linear_attention(layer, x: Tensor, size) -> Tensor:
    q, k, v = (apply(conv, x) for conv in (layer.queries, layer.keys, layer.values))
    width = q.shape[1] // layer.num_heads
    parts = []
    for head in range(layer.num_heads):
        s = slice(head * width, (head + 1) * width)
        pairs = q[:, s].clamp_min(0) @ k[:, s].clamp_min(0).T  # all N x N similarities
        total = pairs.sum(dim=1, keepdim=True)
        parts.append(torch.where(total > 0, pairs / total.clamp_min(1e-300), 0) @ v[:, s])
    return x + apply(layer.conv_out, torch.cat(parts, dim=1))


@one_by_one
def agent_attention(layer, x: Tensor, size) -> Tensor:
    height, width = size
    q, k, v = (apply(conv, x) for conv in (layer.queries, layer.keys, layer.values))
    agents = pool(q.reshape(height, width, -1), layer.grid, layer.grid)
    depth = q.shape[1] // layer.num_heads
    parts = []
    for head in range(layer.num_heads):
        s = slice(head * depth, (head + 1) * depth)
        gathered = (agents[:, s] @ k[:, s].T / math.sqrt(depth)).softmax(dim=1) @ v[:, s]
        parts.append((q[:, s] @ agents[:, s].T / math.sqrt(depth)).softmax(dim=1) @ gathered)
    y = torch.cat(parts, dim=1)
    around = []
    for i in range(height):
        for j in range(width):
            total = layer.local.bias
            for di in range(-1, 2):
                for dj in range(-1, 2):
                    if 0 <= i + di < height and 0 <= j + dj < width:
                        tap = layer.local.weight[:, 0, di + 1, dj + 1]
                        total = total + tap * v[(i + di) * width + j + dj]
            around.append(total)
    return x + apply(layer.conv_out, y + torch.stack(around))


def spatial_bias(layer, x: Tensor) -> Tensor:
    h = torch.einsum('oc,bchw->bohw', layer.reduce.weight.flatten(1), x)
    h = batch_norm(layer.reduce_norm, h).clamp_min(0)
    pooled = F.adaptive_avg_pool2d(h, layer.grid).flatten(2)  # (B, S + 2, r^2)
    maps = []
    for s in range(layer.num_maps):
        window = pooled[:, s : s + 3]  # three neighbouring channels, all positions
        maps.append(torch.einsum('oit,bti->bo', layer.mix.weight, window) + layer.mix.bias)
    maps = torch.stack(maps, dim=1).unflatten(2, (layer.grid, layer.grid))
    maps = F.interpolate(maps, size=x.shape[2:], mode='bilinear', align_corners=False)
    maps = batch_norm(layer.maps_norm, maps).clamp_min(0)
    return x + torch.einsum('os,bshw->bohw', layer.conv_out.weight.flatten(1), maps)


def batch_norm(norm, x: Tensor) -> Tensor:
    """Batch norm of (B, C, H, W) by statistics of the batch in training, kept ones otherwise."""
    if norm.training:
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    else:
        mean, var = norm.running_mean, norm.running_var
    scale = norm.weight / (var + norm.eps).sqrt()
    return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
