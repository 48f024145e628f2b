"""Find the checkpoint to resume from: the last one that is whole."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from polynl_mmdet.errors import InputError, in_one_line

from .load import load_checkpoint

POINTER = 'last_checkpoint'
_NEEDED = ('meta', 'state_dict', 'message_hub')


@dataclass
class Choice:
    """What was found in the folders of a run.

    Args:
        path (Path, optional): The last whole checkpoint. None: there is none.
        broken (dict[Path, str]): What was passed over, and what is wrong with it.
    """

    path: Path | None = None
    broken: dict[Path, str] = field(default_factory=dict)


def checkpoint_defect(path: str | Path) -> str | None:
    """Check that training can go on from a local checkpoint.

    Every byte is compared with the archive's checksums, then the pickle in it is loaded as
    :func:`.load.load_checkpoint` does; tensors are not loaded.

    Args:
        path (str or Path): The checkpoint.

    Returns:
        str, optional: What is wrong with it, in one line. None: it is whole.
    """
    path = Path(path)
    if not path.is_file():
        return 'missing'
    if not path.stat().st_size:
        return 'empty'
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            # First: a changed pickle may also ask for what a load refuses.
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                return f'damaged (checksum of {in_one_line(damaged)})'
        checkpoint = load_checkpoint(path, mmap=zipped)
    except InputError as error:
        return error.found
    # A damaged archive can fail in any way that a parser can.
    except Exception as error:
        return f'damaged ({type(error).__name__}: {in_one_line(error)})'
    if not isinstance(checkpoint, dict):
        return f'no checkpoint: it holds a {type(checkpoint).__name__}'
    missing = [key for key in _NEEDED if key not in checkpoint]
    missing += [f'meta.{key}' for key in ('epoch', 'iter') if key not in checkpoint.get('meta', {})]
    return f'not made to go on from: no {", ".join(missing)}' if missing else None


def last_whole_checkpoint(work_dir: str | Path, out_dir: str | Path, template: str) -> Choice:
    """Find the last whole checkpoint of a run.

    Args:
        work_dir (str or Path): The run's folder, with its ``last_checkpoint`` file.
        out_dir (str or Path): Where its checkpoints are; often the same.
        template (str): Their names, with {} for the number of the epoch or iteration.

    Returns:
        Choice: The checkpoint, and those passed over. Both are empty where the run wrote none.
    """
    choice = Choice()
    for path in _candidates(Path(work_dir), Path(out_dir), template):
        defect = checkpoint_defect(path)
        if defect is None:
            choice.path = path
            break
        choice.broken[path] = defect
    return choice


def _candidates(work_dir: Path, out_dir: Path, template: str) -> list[Path]:
    """Return the checkpoints of a run, last first.

    ``last_checkpoint`` is followed, but for a later file: a run may be killed after it has written
    a checkpoint and before it has noted that. Numbers above it that are older files come from
    another run in the same folder, which this run does not follow; they come last.
    """
    numbers = _numbered(out_dir, template)
    newest_first = sorted(numbers, key=numbers.get, reverse=True)
    noted = _noted(work_dir, out_dir)
    if noted is None:
        return newest_first
    number = numbers.get(noted, _number(noted.name, template))
    if number is None or not noted.exists():
        return [noted, *(path for path in newest_first if path != noted)]
    time = noted.stat().st_mtime_ns
    above = [path for path in newest_first if numbers[path] > number]
    later = [path for path in above if path.stat().st_mtime_ns >= time]
    below = [path for path in newest_first if numbers[path] < number]
    return [*later, noted, *below, *(path for path in above if path not in later)]


def _noted(work_dir: Path, out_dir: Path) -> Path | None:
    """Return the checkpoint that ``last_checkpoint`` names."""
    pointer = work_dir / POINTER
    text = pointer.read_text(errors='replace').strip('\0 \r\n') if pointer.is_file() else ''
    if not text:
        return None
    noted = Path(text)
    # A run's folder may have been moved or copied since.
    moved = out_dir / noted.name
    return moved if not noted.exists() and moved.exists() else noted


def _numbered(folder: Path, template: str) -> dict[Path, int]:
    """Return the files named like checkpoints, with their numbers."""
    if not folder.is_dir():
        return {}
    found = {path: _number(path.name, template) for path in folder.iterdir() if path.is_file()}
    return {path: number for path, number in found.items() if number is not None}


def _number(name: str, template: str) -> int | None:
    match = re.fullmatch(re.escape(template).replace(r'\{\}', r'(\d+)'), name)
    return int(match.group(1)) if match else None
