"""Give damaged files to every reader, and count what they say.

    python validation/fuzz.py [--examples 2000] [--readers NAME ...]

A case is a valid file to which a few things were done (bytes flipped, lines dropped, doubled or
swapped, numbers replaced, the end cut off) or plain bytes. A reader may return or raise InputError,
in one line, within an amount of memory that its file's size bounds: 4 MiB and 300 bytes for each of
the file ("memory" is the largest peak in relation to that). The exit status is 1 if anything else
happened.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import traceback
import tracemalloc
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mmengine.logging import MMLogger
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, sys.path[0] + '/tests/validation')  # The cases are those of the tests.

from fuzz_readers import READERS, Reader

from benchmarks.measure import markdown
from polynl_mmdet.errors import InputError

# Bytes of memory for one of the file, and for any file: parsers keep a Python object or more for
# a few bytes of text.
MEMORY_PER_BYTE, MEMORY_ANYHOW = 300, 4 << 20


@dataclass
class Found:
    """What a reader did: files taken, documented errors, all else with the smallest file."""

    cases: int = 0
    taken: int = 0
    errors: int = 0
    undocumented: dict[str, bytes] = field(default_factory=dict)
    memory: float = 0.0


def fuzz(reader: Reader, examples: int) -> Found:
    """Give a reader as many damaged files."""
    found, draw = Found(), Random(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        reader.read(reader.files[0], Path(folder))  # Its imports are not counted.
        tracemalloc.start()
        for _ in range(examples):
            _try_one(reader, reader.damaged(draw), Path(folder), found)
        tracemalloc.stop()
    return found


def _try_one(reader: Reader, data: bytes, folder: Path, found: Found) -> None:
    found.cases += 1
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    problem = ''
    try:
        reader.read(data, folder)
        found.taken += 1
    except InputError as error:
        found.errors += 1
        if '\n' in str(error) or len(str(error)) > 1000 + len(str(folder)):
            problem = f'not one short line: {str(error)[:200]!r}'
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        problem = f'{type(error).__name__} in {Path(place.filename).name}:{place.name}'
    peak = tracemalloc.get_traced_memory()[1] - before
    memory = peak / (MEMORY_ANYHOW + MEMORY_PER_BYTE * len(data))
    found.memory = max(found.memory, memory)
    if memory > 1:
        problem = problem or 'more memory than the size of the file bounds'
    if problem:
        found.undocumented[problem] = min(found.undocumented.get(problem, data), data, key=len)


def main() -> int:
    """Run and print; 1 if a reader did what it must not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--examples', type=int, default=2000, help='for each reader')
    parser.add_argument('--readers', nargs='+', choices=READERS, default=READERS, metavar='NAME')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    header = ['reader', 'cases', 'taken', 'errors', 'undocumented', 'memory']
    rows, problems = [], {}
    for name in tqdm(args.readers, disable=None):
        found = fuzz(READERS[name], args.examples)
        counts = found.cases, found.taken, found.errors, len(found.undocumented)
        rows.append([name, *(f'{count:,}' for count in counts), f'{found.memory:.2f}'])
        problems.update({f'{name}: {key}': data for key, data in found.undocumented.items()})
    print(markdown(header, rows))
    for problem, data in problems.items():
        print(f'{problem}\n    {data.hex()[:400]}')
    return int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
