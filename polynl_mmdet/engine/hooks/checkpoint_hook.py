"""Checkpoints that a kill or a full disk cannot spoil, and ``--resume`` from the last whole one."""

from __future__ import annotations

import os.path as osp
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.checkpoints import (
    BACKEND,
    checkpoint_defect,
    last_whole_checkpoint,
    remove_partial_files,
)
from polynl_mmdet.errors import InputError

SUPERSEDED = 'superseded_ckpts'


class RemoveLater(LocalBackend):
    """mmengine's backend for local files, whose removals wait until :meth:`remove_now`."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def remove(self, filepath: str) -> None:
        """Note a file for removal."""
        self.waiting.append(filepath)

    def rmtree(self, dir_path: str) -> None:
        """Note a folder for removal."""
        self.waiting.append(dir_path)

    def remove_now(self) -> None:
        """Remove what was noted."""
        while self.waiting:
            path = self.waiting.pop()
            if self.isdir(path):
                super().rmtree(path)
            elif self.isfile(path):
                super().remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against kills and full disks.

    A checkpoint is written under a temporary name, flushed and renamed, and only then are the
    checkpoints removed that it supersedes, also with ``save_best``. (mmengine removes first and
    writes over the names themselves.) A write that fails ends the run with an
    :class:`~polynl_mmdet.errors.InputError` that names the file and the space; what was there
    before is still there.

    With ``--resume`` the run goes on from the last whole checkpoint. Files that are cut off, empty
    or damaged are named in the log and passed over; if all are, the run stops. Where there are
    none, it starts from the beginning, as in mmengine. ``--resume FILE`` of a broken file stops
    the run, and names the one that could be used.

    This holds for local folders. Elsewhere (``file_client_args``, ``backend_args`` or an
    ``out_dir`` with ``://``) the hook is mmengine's, which the log says.

    Args are ``CheckpointHook``'s.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._out_dir = self.out_dir  # mmengine's before_train changes it.
        self.file_backend: Any = None
        backend = (self.backend_args or {}).get('backend', 'local')
        remote = self.file_client_args or backend != 'local' or '://' in str(self.out_dir)
        self._is_local = not remote

    def before_run(self, runner: Runner) -> None:
        """Choose what ``--resume`` means, before the runner loads anything.

        Raises:
            InputError: No checkpoint is whole, or the one asked for is not.
        """
        if runner._has_loaded or not runner._resume or not self._is_local:
            return
        found: list = [None]
        if is_main_process():
            try:
                found = [self._checkpoint_to_resume(runner)]
            except InputError as error:
                found = [error]
        # All processes stop where one does, rather than wait for it.
        broadcast_object_list(found)
        if isinstance(found[0], InputError):
            raise found[0]
        runner._load_from = found[0]
        # Where there is none, mmengine would still follow what an empty last_checkpoint says.
        runner._resume = found[0] is not None

    def _checkpoint_to_resume(self, runner: Runner) -> str | None:
        asked = runner._load_from
        defect = checkpoint_defect(asked) if asked is not None and '://' not in asked else None
        if asked is not None and defect is None:
            return asked
        # By the rule of CheckpointHook.before_train.
        folder = runner.work_dir
        if self._out_dir not in (None, folder):
            folder = osp.join(str(self._out_dir), osp.basename(folder.rstrip(osp.sep)))
        choice = last_whole_checkpoint(runner.work_dir, folder, self.filename_tmpl)
        if asked is not None:
            usable = f'; the last whole one is {choice.path}' if choice.path else ''
            raise InputError(asked, defect, f'accepted by --resume: a whole checkpoint{usable}')
        for path, reason in choice.broken.items():
            runner.logger.warning(f'{path}: {reason}; passed over')
        if choice.path is None and choice.broken:
            found = ', '.join(f'{path.name} is {why}' for path, why in choice.broken.items())
            raise InputError(
                folder,
                f'--resume finds no whole checkpoint: {found}',
                'train without --resume to start from the beginning',
            )
        if choice.path is None:
            runner.logger.warning(f'{folder}: no checkpoint to resume; starts from the beginning')
            return None
        return str(choice.path)

    def before_train(self, runner: Runner) -> None:
        """Set up as mmengine does, then clear what a killed run left."""
        self.out_dir = self._out_dir
        super().before_train(runner)
        hub = runner.message_hub
        if runner._resume and hub.get_info('last_ckpt'):
            # Written again where the next validation is the best so far, as in a run that was not
            # interrupted; mmengine forgets it.
            self.last_ckpt = osp.join(self.out_dir, osp.basename(hub.get_info('last_ckpt')))
        if not self._is_local:
            runner.logger.warning(
                f'{self.out_dir} is not a local folder: its backend decides whether a kill can '
                'leave half a checkpoint there'
            )
            return
        self.backend_args = dict(backend=BACKEND)
        self.file_backend = RemoveLater()
        if is_main_process():
            for name in remove_partial_files(self.out_dir):
                path = osp.join(self.out_dir, name)
                runner.logger.warning(f'{path}: half-written by a run that was killed; removed')
            for name in hub.get_info(SUPERSEDED, []):
                path = osp.join(self.out_dir, osp.basename(name))
                if osp.isfile(path):  # Nothing else: a checkpoint may come from a stranger.
                    self.file_backend.remove(path)
            self.file_backend.remove_now()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Name in a checkpoint those that it supersedes, in case of a kill before their removal."""
        if self._is_local and self.file_backend is not None:
            names = [osp.basename(path) for path in self.file_backend.waiting]
            checkpoint['message_hub']['runtime_info'][SUPERSEDED] = names

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        runner.call_hook('before_gather_checkpoint')  # On all processes; only the first one writes.
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_superseded()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if self.file_backend is None:
            return  # Runner.val() alone: nothing is being trained.
        super()._save_best_checkpoint(runner, metrics)
        self._remove_superseded()

    def _remove_superseded(self) -> None:
        if self._is_local:
            self.file_backend.remove_now()
