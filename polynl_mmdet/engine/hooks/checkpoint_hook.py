"""Checkpoints that a kill or a full disk cannot spoil, and ``--resume`` from the last whole one."""

from __future__ import annotations

import hashlib
import os.path as osp
import pickle
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process, master_only
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, save_checkpoint

from polynl_mmdet.engine.checkpoints import (
    BACKEND,
    POINTER,
    checkpoint_defect,
    last_whole_checkpoint,
    load_checkpoint,
    remove_partial_files,
    write_atomically,
)
from polynl_mmdet.errors import InputError

STALE = 'stale_ckpts'


class RemoveLater:
    """A file backend whose removals wait until :meth:`remove_now`.

    Args:
        backend (BaseStorageBackend): What does everything else, and removes in the end.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._waiting: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)
        return getattr(self._backend, name)

    @property
    def waiting(self) -> list[str]:
        """list[str]: what :meth:`remove_now` would remove."""
        return [path for _, path in self._waiting]

    def remove(self, path: str) -> None:
        """Note a file for removal."""
        self._waiting.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Note a folder for removal."""
        self._waiting.append((self._backend.rmtree, path))

    def remove_now(self) -> None:
        """Remove what was noted."""
        while self._waiting:
            remove, path = self._waiting.pop()
            if self._backend.exists(path):
                remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against kills and full disks.

    A checkpoint is written under a temporary name, flushed and renamed; then ``last_checkpoint``
    is replaced in the same way; only then are the checkpoints removed that it supersedes, also
    with ``save_best``. (mmengine removes first and writes over the names themselves.) A write that
    fails ends the run with an :class:`~polynl_mmdet.errors.InputError` that names the file and the
    space; what was there before is still there.

    With ``--resume`` the run goes on from the last whole checkpoint. Files that are cut off, empty
    or damaged are named in the log and passed over; if all are, the run stops. Where there are
    none, it starts from the beginning, as in mmengine. ``--resume FILE`` of a broken file stops
    the run, and names the one that could be used.

    This holds for local folders. Elsewhere (``file_client_args``, ``backend_args`` or an
    ``out_dir`` with ``://``) checkpoints are written by that backend, which the log says, and
    ``--resume`` follows ``last_checkpoint`` alone.

    Args are ``CheckpointHook``'s.
    """

    def before_run(self, runner: Runner) -> None:
        """Choose what ``--resume`` means, before the runner loads anything.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: No checkpoint is whole, or the one asked for is not.
        """
        folder = self._folder(runner)
        if runner._has_loaded or not runner._resume or not self._is_local(folder):
            return
        found: list = [None]
        if is_main_process():
            try:
                found = [self._choose(runner, folder)]
            except InputError as error:
                found = [error]
        # All processes stop where one does, rather than wait for it.
        broadcast_object_list(found)
        if isinstance(found[0], InputError):
            raise found[0]
        runner._load_from = found[0]
        # Where there is none, mmengine would still follow what an empty last_checkpoint says.
        runner._resume = found[0] is not None

    def _choose(self, runner: Runner, folder: str) -> str | None:
        asked = runner._load_from
        if asked is not None and '://' in asked:
            return asked
        wrong = checkpoint_defect(asked) if asked is not None else None
        if asked is not None and wrong is None:
            return asked
        choice = last_whole_checkpoint(runner.work_dir, folder, self.filename_tmpl)
        if asked is not None:
            usable = f'; the last whole one is {choice.path}' if choice.path else ''
            raise InputError(asked, wrong, f'accepted by --resume: a whole checkpoint{usable}')
        for path, reason in choice.broken.items():
            runner.logger.warning(f'{path}: {reason}; passed over')
        if choice.path is not None:
            return str(choice.path)
        if choice.broken:
            found = ', '.join(f'{path.name} is {why}' for path, why in choice.broken.items())
            raise InputError(
                folder,
                f'--resume finds no whole checkpoint: {found}',
                'train without --resume to start from the beginning',
            )
        runner.logger.warning(f'{folder}: no checkpoint to resume from; starts from the beginning')
        return None

    def before_train(self, runner: Runner) -> None:
        """Set up as mmengine does, then clear what a killed run left.

        Args:
            runner (Runner): The runner.
        """
        # mmengine would remove at once what max_keep_ckpts has no room for; that can wait.
        super().before_train(runner)
        if runner._resume and runner.message_hub.get_info('last_ckpt'):
            # Written again where the next validation is the best so far, as in a run that was not
            # interrupted; mmengine forgets it.
            name = osp.basename(runner.message_hub.get_info('last_ckpt'))
            self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        local = self._is_local(self.out_dir)
        if local:
            self.backend_args = dict(backend=BACKEND)
            self.file_backend = get_file_backend(self.out_dir, backend_args=self.backend_args)
        else:
            runner.logger.warning(
                f'{self.out_dir} is not a local folder: its backend decides whether a kill can '
                'leave half a checkpoint there'
            )
        self.file_backend = RemoveLater(self.file_backend)
        if local and is_main_process():
            for folder in dict.fromkeys((self.out_dir, runner.work_dir)):
                for name in remove_partial_files(folder):
                    runner.logger.warning(
                        f'{osp.join(folder, name)}: half-written by a run that was killed; removed'
                    )
            for path in runner.message_hub.get_info(STALE, []):
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            self.file_backend.remove_now()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self._note_removal(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        # A run that is killed before it removes them does so when it goes on.
        runner.message_hub.update_info(STALE, list(self.file_backend.waiting))
        runner.call_hook('before_gather_checkpoint')
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(osp.join(runner.work_dir, POINTER), self.last_ckpt.encode())
            self.file_backend.remove_now()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        runner.call_hook('before_gather_checkpoint')
        super()._save_best_checkpoint(runner, metrics)
        if is_main_process():
            self.file_backend.remove_now()

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        if not self._is_local(self.out_dir):
            super()._publish_model(runner, ckpt_path)
            return
        checkpoint = load_checkpoint(ckpt_path)
        removed = [key for key in checkpoint if key not in self.published_keys]
        for key in removed:
            del checkpoint[key]
        digest = hashlib.sha256(pickle.dumps(checkpoint)).hexdigest()
        path = f'{osp.splitext(ckpt_path)[0]}-{digest[:8]}.pth'
        save_checkpoint(checkpoint, path, backend_args=self.backend_args)
        runner.logger.info(f'{ckpt_path} is published as {path}, without {removed}')

    def _note_removal(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process():
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # as DeepSpeed writes them
                self.file_backend.rmtree(path)

    def _folder(self, runner: Runner) -> str:
        """str: where checkpoints will be, by the rule of ``CheckpointHook.before_train``."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return runner.work_dir
        return osp.join(str(self.out_dir), osp.basename(runner.work_dir.rstrip(osp.sep)))

    def _is_local(self, folder: str) -> bool:
        others = self.file_client_args or (self.backend_args or {}).get('backend') not in (
            None,
            'local',
            BACKEND,
        )
        return not others and '://' not in str(folder)
