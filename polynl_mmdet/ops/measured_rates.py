"""Rates of the cost model that were measured on this machine, in a file in the user's cache.

``benchmarks/calibrate.py --save`` writes it. Nothing is measured while a model runs: a machine
without such a file keeps the table of cost.py.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import torch

from polynl_mmdet.errors import InputError

from .cost import Rates, table_rates


def rates_file() -> Path:
    """Return where the rates are kept: ``rates.json`` in POLYNL_CACHE, else in the user's cache."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(os.environ.get('POLYNL_CACHE') or cache / 'polynl_mmdet') / 'rates.json'


def rates_key(device_type: str, library: str) -> str:
    """Return what rates depend on: device, torch, and how float32 products are made."""
    if device_type == 'cuda':
        made = f'{torch.version.cuda or torch.version.hip}, {torch.get_float32_matmul_precision()}'
        return f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {made}'
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f'CPU {capability}, torch {torch.__version__}, {library}, {threads} threads'


def rates_in_use(device_type: str, dtype: torch.dtype, library: str) -> Rates:
    """Return the rates measured for a device and dtype, or the table's where there are none.

    Args:
        device_type (str): As in ``torch.device.type``; 'cpu' and 'cuda' can have measured ones.
        dtype (torch.dtype): What the layer computes in.
        library (str): What multiplies on a CPU, 'torch' or 'onednn'.

    Raises:
        InputError: The file is none of ours.
    """
    kept = _read(rates_file()) if device_type in ('cpu', 'cuda') else {}
    values = kept and kept.get(rates_key(device_type, library), {}).get(str(dtype))
    return Rates(*values) if values else table_rates(device_type, dtype, library)


def store_rates(device_type: str, library: str, rates: dict[torch.dtype, Rates]) -> Path:
    """Add the rates of a device to the file, over those that it has for the same; return it."""
    path = rates_file()
    kept = _read.__wrapped__(path)
    kept.setdefault(rates_key(device_type, library), {}).update(
        {str(dtype): list(values) for dtype, values in rates.items()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.part')
    partial.write_text(json.dumps(kept, indent=1) + '\n', encoding='utf-8')
    partial.replace(path)
    return path


@lru_cache(maxsize=1)
def _read(path: Path) -> dict[str, dict[str, list[float]]]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding='utf-8'))
        rows = [values for rates in kept.values() for values in rates.values()]
        fine = all(float(value) > 0 for values in rows for value in Rates(*values))
    except (OSError, ValueError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise InputError(
            str(path), 'no rates of the cost model', 'delete it, or calibrate.py --save anew'
        )
    return kept
