"""Runs a function in several gloo processes that import everything once."""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest
import torch
import work


def run_in(world, function, folder, *args, wait=120):
    """Call ``function(rank, world, *args)`` in each process of a group.

    Args:
        world (int): Processes.
        function (str): Its name in :mod:`work`.
        folder (Path): For what they exchange; must not have been used.
        *args: Can be pickled.
        wait (float): Seconds before those that are left are killed.

    Returns:
        list: By rank, what it gave, or the exit status where it gave nothing (None: killed here).
    """
    folder.mkdir(parents=True)
    # One process imports torch and mmdet, and the others are forked from it.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['work'])
    processes = [
        context.Process(target=work.enter, args=(rank, world, function, str(folder), args))
        for rank in range(world)
    ]
    with pytest.MonkeyPatch.context() as patch:
        # Where that one process looks for modules, when the first of these starts it.
        patch.setenv('PYTHONPATH', os.pathsep.join(path for path in sys.path if path))
        for process in processes:
            process.start()
    found = []
    for rank, process in enumerate(processes):
        process.join(wait)
        ended = process.exitcode is not None
        if not ended:
            process.kill()
            process.join()
        result = folder / f'result_{rank}'
        # Our own file of a moment ago: any object may be in it.
        found.append(
            torch.load(result, weights_only=False)
            if result.exists()
            else process.exitcode
            if ended
            else None
        )
    return found
