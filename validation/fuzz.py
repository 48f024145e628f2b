"""Feeds damaged files to every reader, and counts what they say.

    python validation/fuzz.py [--examples 2000] [--readers NAME ...] [--seed N] [--output FILE]

A case is a valid file to which a few things were done (bytes flipped, lines dropped, doubled or
swapped, numbers replaced, the end cut off) or plain bytes. A reader may return or raise InputError,
in one line, within an amount of memory that its file's size bounds. Errors are counted by their
messages without names and numbers. The exit status is 1 if anything else happened.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, given, settings
from mmengine.logging import MMLogger

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from polynl_mmdet.errors import InputError  # noqa: E402
from validation.fuzz_readers import READERS, Reader  # noqa: E402

# Bytes of memory for one of the file, and for any file: parsers keep a Python object or more for
# a few bytes of text.
MEMORY_PER_BYTE, MEMORY_ANYHOW = 300, 4 << 20


@dataclass
class Statistics:
    """What one reader did.

    Attributes:
        cases (int): Files it was given.
        read (int): Files it took.
        errors (Counter): How often each documented error came, by its message.
        undocumented (dict[str, str]): Anything else, by its kind, with the file as hexadecimals.
        peak (float): Largest memory over its bound.
    """

    cases: int = 0
    read: int = 0
    errors: Counter = field(default_factory=Counter)
    undocumented: dict[str, str] = field(default_factory=dict)
    peak: float = 0.0


def fuzz(reader: Reader, examples: int, seed: int = 0) -> Statistics:
    """Give a reader many damaged files.

    Args:
        reader (Reader): What reads, and the files to damage.
        examples (int): How many.
        seed (int): Of the choice of files. Defaults to 0.

    Returns:
        Statistics: What it did.
    """
    statistics = Statistics()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        reader.read(reader.valid()[0], Path(folder))  # Its imports are not counted.

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(reader.strategy())
        def run(data: bytes) -> None:
            _one(reader, data, Path(folder), statistics)

        tracemalloc.start()
        try:
            run()
        finally:
            tracemalloc.stop()
    return statistics


def _one(reader: Reader, data: bytes, folder: Path, statistics: Statistics) -> None:
    statistics.cases += 1
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    problem = ''
    try:
        reader.read(data, folder)
        statistics.read += 1
    except InputError as error:
        statistics.errors[template(str(error))] += 1
        if '\n' in str(error) or len(str(error)) > 1000 + len(str(folder)):
            problem = f'not one short line: {str(error)[:200]!r}'
    except Exception as error:
        place = error.__traceback__
        while place.tb_next:
            place = place.tb_next
        code = place.tb_frame.f_code
        problem = f'{type(error).__name__} in {Path(code.co_filename).name}:{code.co_name}'
    share = (tracemalloc.get_traced_memory()[1] - before) / (
        MEMORY_ANYHOW + MEMORY_PER_BYTE * len(data)
    )
    statistics.peak = max(statistics.peak, share)
    if share > 1:
        problem = problem or 'more memory than the size of the file bounds'
    if problem and len(statistics.undocumented.get(problem, data.hex())) >= len(data.hex()):
        statistics.undocumented[problem] = data.hex()


def template(message: str) -> str:
    """A message without what differs from file to file."""
    message = re.sub(r'(/[^\s:;,()"\']*)+', 'PATH', message)
    message = re.sub(r'"[^"]*"|\'[^\']*\'', '"..."', message)
    message = re.sub(r'\[.*?\]|\{.*?\}', '[...]', message)
    message = re.sub(r'0x[0-9a-f]+|[-+.\d]*\d', 'N', message)
    return message.partition('; accepted')[0]


def main() -> int:
    """Run and print; 1 if a reader did what it must not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--examples', type=int, default=2000, help='for each reader')
    parser.add_argument('--readers', nargs='+', choices=list(READERS), metavar='NAME')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--messages', action='store_true', help='print every distinct error')
    parser.add_argument('--output', help='JSON to write')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    report = {}
    print(f'{"reader":<28}{"cases":>8}{"read":>8}{"errors":>8}{"distinct":>10}', end='')
    print(f'{"undocumented":>14}{"memory":>8}{"seconds":>9}')
    for name in args.readers or READERS:
        begin = time.perf_counter()
        found = fuzz(READERS[name], args.examples, args.seed)
        seconds = time.perf_counter() - begin
        print(
            f'{name:<28}{found.cases:>8}{found.read:>8}{sum(found.errors.values()):>8}'
            f'{len(found.errors):>10}{len(found.undocumented):>14}{found.peak:>8.2f}{seconds:>9.1f}',
            flush=True,
        )
        for problem, data in found.undocumented.items():
            print(f'    {problem}\n        {data[:400]}')
        if args.messages:
            for message, count in found.errors.most_common():
                print(f'    {count:>6}  {message}')
        report[name] = {
            'cases': found.cases,
            'read': found.read,
            'errors': dict(found.errors),
            'undocumented': found.undocumented,
            'memory': found.peak,
        }
    print('memory: the largest peak, 1 being 4 MiB and 300 bytes for each of the file')
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1), encoding='utf-8')
    return int(any(entry['undocumented'] for entry in report.values()))


if __name__ == '__main__':
    raise SystemExit(main())
