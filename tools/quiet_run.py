"""Runs a command with all that it prints in a log file, and shows how far it has come.

A progress bar follows mmengine's lines of training and testing. A command that fails is told in
one line, with the log's place; this tool then exits with its status.

Examples:
    python tools/quiet_run.py 'training' work_dirs/demo/train.log python tools/train.py CONFIG
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

# Epoch(train)  [2][10/50]  lr: ...  eta: 0:01:20  ...  loss: 1.23  ...
ITERATION = re.compile(r'Epoch\((train|val|test)\) +(?:\[(\d+)\])?\[ *(\d+)/(\d+)\]')
EPOCHS = re.compile(r'\bmax_epochs ?= ?(\d+)')
LOSS = re.compile(r' loss: (\S+)')


class Progress:
    """A bar over the iterations that mmengine logs, with the loss and the time left."""

    def __init__(self) -> None:
        self.epochs = 1
        self.bar: tqdm | None = None

    def follow(self, line: str) -> None:
        """Move the bar to where a line of the log says the run is."""
        epochs = EPOCHS.search(line)
        if epochs:
            self.epochs = int(epochs[1])
        found = ITERATION.search(line)
        if not found or found[1] == 'val':  # the validation within a training
            return
        epoch, iteration, length = (int(number or 1) for number in found.groups()[1:])
        if self.bar is None:
            self.bar = tqdm(
                desc='   ',
                total=length * (self.epochs if found[1] == 'train' else 1),
                mininterval=1 if sys.stderr.isatty() else 30,
                bar_format='{desc}{percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt}, '
                '{elapsed} gone, {remaining} left{postfix}',
            )
        loss = LOSS.search(line)
        if loss:
            self.bar.set_postfix_str(f'loss {loss[1]}', refresh=False)
        self.bar.update((epoch - 1) * length + iteration - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def last_error(log: Path) -> str:
    """Return the last line of a log that names an error, or its last line."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'(error:|[\w.]*(Error|Exception)\b)', line)]
    return (errors or lines or ['it printed nothing'])[-1].removeprefix('error: ')


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('title', help='what the command does, to be shown')
    parser.add_argument('log', type=Path, help='file for all that the command prints')
    parser.add_argument('command', nargs=argparse.REMAINDER, help='the command with its arguments')
    args = parser.parse_args()
    args.log.parent.mkdir(parents=True, exist_ok=True)
    print(f'== {args.title} (log: {args.log})', flush=True)
    with args.log.open('w') as log:
        process = subprocess.Popen(
            args.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        progress = Progress()
        for line in process.stdout:
            log.write(line)
            progress.follow(line)
        progress.close()
    if process.wait():
        print(f'error: {last_error(args.log)}; the whole log: {args.log}', file=sys.stderr)
        raise SystemExit(process.returncode if process.returncode > 0 else 1)


if __name__ == '__main__':
    main()
