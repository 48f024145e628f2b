"""Repeats the iteration that :class:`NonFiniteStopHook` stopped at.

    python -m polynl_mmdet.engine.replay work_dirs/x/non_finite/iter_123

Prints the losses and the gradients that are not finite. The exit status is 0 where it found any, 1
where all were finite (for example because the first run had other kernels).
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import autocast

from polynl_mmdet.engine.non_finite_record import CONFIG, read_record
from polynl_mmdet.engine.resume.random_state import set_generator_states
from polynl_mmdet.errors import InputError, one_line_errors


def replay(folder: str | Path, device: str = 'cpu') -> tuple[dict[str, float], list[str]]:
    """Run a recorded iteration's forward and backward pass.

    Args:
        folder (str or Path): The record. Its ``config.py`` is run, as any config is.
        device (str): Where to. Defaults to 'cpu'.

    Returns:
        tuple: The losses (dict[str, float]) and the parameters whose gradients are not finite
            (list[str]).

    Raises:
        InputError: The record is missing, damaged or does not fit its config.
    """
    record = read_record(folder)
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(str(path), 'no such file', 'accepted: the config beside the iteration')
    config = Config.fromfile(str(path))
    init_default_scope(config.get('default_scope', 'mmdet'))
    model = MODELS.build(config.model).to(device)
    try:
        model.load_state_dict(record['state_dict'])
    except RuntimeError as error:
        found = str(error).splitlines()[-1].strip()
        raise InputError(
            str(folder), found, 'accepted: weights of the model in config.py'
        ) from None
    model.train()
    wrapper = config.get('optim_wrapper') or {}
    mixed = str(wrapper.get('type', '')).endswith('AmpOptimWrapper')
    dtype = wrapper.get('dtype')
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    set_generator_states(record['generators'])
    with autocast(dtype=dtype) if mixed else contextlib.nullcontext():
        data = model.data_preprocessor(record['batch'], True)
        losses = model._run_forward(data, mode='loss')
    total, parts = model.parse_losses(losses)
    total.backward()
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    return {name: float(value) for name, value in parts.items()}, bad


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folder', help='work_dir/non_finite/iter_N')
    parser.add_argument('--device', default='cpu', help='defaults to cpu')
    args = parser.parse_args()
    with one_line_errors():
        about = read_record(args.folder)['about']
        print(f'iteration {about["iteration"]}, epoch {about["epoch"]}')
        print('images: ' + ', '.join(about['images']))
        losses, bad = replay(args.folder, args.device)
    print(f'{"loss":<24}{"recorded":>16}{"now":>16}')
    for name, value in losses.items():
        print(f'{name:<24}{about["losses"].get(name, float("nan")):>16.6g}{value:>16.6g}')
    print(f'gradients that are not finite: {len(bad)} ({", ".join(bad[:10])})')
    finite = all(abs(value) < float('inf') for value in losses.values())
    raise SystemExit(0 if bad or not finite else 1)


if __name__ == '__main__':
    main()
