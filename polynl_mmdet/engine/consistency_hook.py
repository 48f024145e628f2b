"""Compare the parts of a run before its first step."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ConsistencyHook(Hook):
    """Stop a run whose parts do not fit each other before it starts.

    For a config of your own: ``custom_hooks = [dict(type='ConsistencyHook')]``.
    ``tools/train.py`` and ``tools/test.py`` add it.
    """

    def before_run(self, runner: Runner) -> None:
        """Check what ``--resume`` will load."""
        if is_main_process():
            _repair_last_checkpoint(Path(runner.work_dir))
        barrier()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights of ``load_from``, ``--resume`` or a test; see :func:`check_loaded`.

        Raises:
            ValueError: Less than half of the model's weights are filled.
        """
        from .checkpoints import check_loaded

        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = getattr(model, 'module', model)  # Of test-time augmentation.
        check_loaded(model, checkpoint.get('state_dict', checkpoint), str(runner._load_from))


def _repair_last_checkpoint(work_dir: Path) -> None:
    """Let mmengine's ``last_checkpoint`` name a file that exists.

    mmengine writes this file after the checkpoint, and not atomically: a run that is killed in
    between leaves it empty or with an older name.
    """
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named or os.path.isfile(named):
        return
    names = [p for p in work_dir.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', p.name)]
    if names:
        pointer.write_text(str(max(names, key=lambda path: path.stat().st_mtime)))
    elif pointer.is_file():
        pointer.unlink()
