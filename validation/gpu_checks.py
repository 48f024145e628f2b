"""The single checks of validation/gpu_check.py, each a process of its own.

    python validation/gpu_checks.py CHECK [--device cuda] [--quick]

A check prints what it found, and ends with exit status 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mmcv
import mmdet
import mmengine
import torch
from mmcv.ops import RoIAlign, get_compiling_cuda_version, nms

from benchmarks.measure import machine, markdown
from benchmarks.rivals import make_parameters
from polynl_mmdet.datasets.toy.coco import make_toy_coco
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.layers import PolyNL
from polynl_mmdet.ops import poly_nl, poly_nl_reference
from validation.kill_resume import CONFIG, OPTIONS, ROOT

# Largest error relative to the largest value: rounding of the dtype, with TF32 off.
LIMITS = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}
WITHOUT_WORKERS = (
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
)


def environment(device: str, quick: bool) -> bool:
    """Print versions and flags, and run mmcv's NMS and RoIAlign on the device and on the CPU."""
    found = dict(machine(device), cuda=torch.version.cuda, mmcv_cuda=get_compiling_cuda_version())
    found.update({module.__name__: module.__version__ for module in (mmengine, mmcv, mmdet)})
    print('\n'.join(f'{key}: {value}' for key, value in found.items()))
    torch.manual_seed(0)
    corners = torch.rand(500, 2) * 100
    boxes, scores = torch.cat([corners, corners + 5 + torch.rand(500, 2) * 40], 1), torch.rand(500)
    maps = torch.randn(1, 8, 40, 40)
    rois = torch.cat([torch.zeros(500, 1), boxes], 1)
    align = RoIAlign(7, spatial_scale=0.25, sampling_ratio=2)
    kept = [nms(boxes.to(where), scores.to(where), 0.5)[1].cpu() for where in (device, 'cpu')]
    parts = [align(maps.to(where), rois.to(where)).cpu() for where in (device, 'cpu')]
    error = float((parts[0] - parts[1]).abs().max())
    print(f'NMS keeps {len(kept[0])} of 500 boxes, the CPU {len(kept[1])}; RoIAlign: {error:.1e}')
    return torch.equal(*kept) and error < 1e-4


def exactness(device: str, quick: bool) -> bool:
    """Compare outputs and gradients with the formula in float64, by dtype, layout and form."""
    torch.backends.cuda.matmul.allow_tf32 = False
    shapes = [(2, 16, 5, 7)] if quick else [(2, 64, 50, 84), (1, 256, 25, 42), (3, 512, 7, 7)]
    rows, right = [], True
    for dtype, limit in LIMITS.items():
        for layout in (torch.contiguous_format, torch.channels_last):
            for method in ('literal', 'covariance'):
                error = max(_error(shape, dtype, layout, method, device) for shape in shapes)
                right &= error <= limit
                names = [str(part).removeprefix('torch.') for part in (dtype, layout)]
                rows.append([names[0], names[1], method, f'{error:.1e}', f'{limit:.0e}'])
    print(markdown(['dtype', 'layout', 'form', 'largest error', 'accepted'], rows))
    return right


def _error(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    method: str,
    device: str,
) -> float:
    """Largest error of Z and all gradients, relative to the largest value of each."""
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    grad = torch.randn(shape).to(dtype)
    parameters = [p.detach() for p in make_parameters(shape[1], grad)]

    def run(function, where: str, wide: torch.dtype, **kwargs) -> list[torch.Tensor]:
        inputs = [t.to(where, wide).requires_grad_() for t in (x, *parameters)]
        z = function(*inputs, **kwargs)
        return [z, *torch.autograd.grad(z, inputs, grad.to(where, wide))]

    mine = run(poly_nl, device, dtype, method=method)
    truth = run(poly_nl_reference, 'cpu', torch.float64)
    pairs = [(m.detach().cpu().double(), t.detach()) for m, t in zip(mine, truth)]
    return max(float((m - t).abs().max() / t.abs().max().clamp_min(1e-3)) for m, t in pairs)


def compiled(device: str, quick: bool) -> bool:
    """Compare torch.compile, and a captured CUDA graph, with the eager layer; wait for nothing."""
    torch.manual_seed(0)
    layer = PolyNL(64, context_norm=dict(type='LN')).to(device)
    torch.nn.init.normal_(layer.w3, std=0.1)
    x = torch.randn(2, 64, 16, 16, device=device)
    truth = layer(x)
    errors = {'torch.compile': torch.compile(layer)(x) - truth}
    if torch.device(device).type == 'cuda':
        # One pass before: libraries are loaded, and rates measured, where that is allowed.
        layer(x.requires_grad_()).sum().backward()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error')
        layer(x).sum().backward()
        torch.cuda.set_sync_debug_mode('default')
        print('a forward and a backward pass wait for nothing')
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.no_grad():
            with torch.cuda.stream(stream):
                layer(x)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                captured = layer(x)
        graph.replay()
        errors['CUDA graph'] = captured - truth
    else:
        print('CUDA graph, synchronisation: needs CUDA: left out')
    found = {name: float(error.detach().abs().max()) for name, error in errors.items()}
    print(', '.join(f'{name}: differs by {error:.1e}' for name, error in found.items()))
    return max(found.values()) < 1e-3


def forced_nan(device: str, quick: bool) -> bool:
    """Train with a learning rate that breaks the weights: the hook must stop it with a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        breaking = ('optim_wrapper.optimizer.lr=1e20', 'param_scheduler=[]')
        training, log = _training(Path(folder), options=breaking)
        status = training.wait()
        lines = [line for line in log.read_text().splitlines() if 'not finite' in line]
    print(lines[0].strip()[:300] if lines else 'it was not stopped')
    return bool(status and lines)


def resumed(device: str, quick: bool) -> bool:
    """Kill a training after its first checkpoint and resume it: it must reach its last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        first, _ = _training(Path(folder))
        while not (Path(folder) / 'run/epoch_1.pth').exists() and first.poll() is None:
            time.sleep(0.05)
        first.kill()
        first.wait()
        second, log = _training(Path(folder), '--resume')
        status = second.wait()
        lines = [line[-120:] for line in log.read_text().splitlines() if 'resumed epoch' in line]
        print(*lines, sep='\n')
        return not status and (Path(folder) / 'run/epoch_3.pth').exists()


def _training(
    folder: Path, *arguments: str, options: Sequence[str] = ()
) -> tuple[subprocess.Popen, Path]:
    """Start tools/train.py with the small training of validation/kill_resume.py; return its log.

    It runs beside the data, where the config looks for it. A process of its own, not a fork: CUDA
    does not survive one.
    """
    data = folder / 'data/toy_coco'
    if not data.exists():
        make_toy_coco(data, 16, 4, size=96)
    options = [*OPTIONS, *WITHOUT_WORKERS, *options]
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG, '--work-dir', 'run', *arguments]
    log = folder / 'log.txt'
    with log.open('w') as output:
        process = subprocess.Popen(
            [*map(str, command), '--cfg-options', *options],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return process, log


CHECKS = {
    'environment': environment,
    'exactness': exactness,
    'compiled': compiled,
    'forced-nan': forced_nan,
    'resumed': resumed,
}


def main() -> None:
    """Run the check of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('check', choices=CHECKS)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--quick', action='store_true', help='small shapes')
    args = parser.parse_args()
    if not CHECKS[args.check](args.device, args.quick):
        raise InputError(args.check, 'a result is wrong', 'see above')


if __name__ == '__main__':
    with one_line_errors():
        main()
