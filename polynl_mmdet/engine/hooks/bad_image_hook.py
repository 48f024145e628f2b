"""Counts the images that were left out, and says so at the end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

SKIPPED = 'skipped_images'  # As the datasets write it: polynl_mmdet.datasets.bad_images.


@HOOKS.register_module()
class BadImageHook(Hook):
    """Logs, after training and after a test, which images were left out and why.

    Samples carry the names of those that were left out before them, so that all data workers and
    all processes are counted. An image counts once, however often it was asked for.

    Args:
        most_named (int): Images that are named. Defaults to 20.
    """

    priority = 'LOWEST'  # The last lines of the log.

    def __init__(self, most_named: int = 20) -> None:
        self.most_named = most_named
        self.skipped: dict[str, str] = {}

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: object = None,
        mode: str = 'train',
    ) -> None:
        del runner, batch_idx, outputs, mode
        samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
        for sample in _flat(samples):
            self.skipped.update(getattr(sample, SKIPPED, ()))

    def after_train(self, runner: Runner) -> None:
        """Log the count of the training."""
        self._report(runner, 'training')

    def after_test(self, runner: Runner) -> None:
        """Log the count of the test."""
        self._report(runner, 'the test')

    def _report(self, runner: Runner, what: str) -> None:
        everywhere: dict[str, str] = {}
        for skipped in all_gather_object(self.skipped):
            everywhere.update(skipped)
        runner.logger.info(f'{len(everywhere)} images were left out of {what}')
        for path, reason in sorted(everywhere.items())[: self.most_named]:
            runner.logger.info(f'left out: {path}: {reason}')


def _flat(samples: object) -> Iterator[object]:
    """Samples of a batch; with test-time augmentation they lie in lists of their own."""
    if isinstance(samples, (list, tuple)):
        return chain.from_iterable(map(_flat, samples))
    return iter((samples,))
