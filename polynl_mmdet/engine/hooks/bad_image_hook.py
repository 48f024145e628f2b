"""Logs which images a training has left out."""

from __future__ import annotations

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.hooks.runner_parts import data_samples

SKIPPED = 'skipped_images'  # As the datasets write it: polynl_mmdet.datasets.bad_images.


@HOOKS.register_module()
class BadImageHook(Hook):
    """Log after training which images were left out, and why.

    A sample names the images that were left out before it, so that all data workers and all
    processes are counted. An image counts once, however often it was asked for.

    Args:
        most_named (int): Images to name. Defaults to 20.
    """

    priority = 'LOWEST'  # The last lines of the log.

    def __init__(self, most_named: int = 20) -> None:
        self.most_named = most_named
        self.skipped: dict[str, str] = {}

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Note the images that were left out while a batch was read."""
        for sample in data_samples(data_batch):
            self.skipped.update(sample.get(SKIPPED, ()))

    def after_train(self, runner: Runner) -> None:
        """Log their number and names, from all processes."""
        everywhere: dict[str, str] = {}
        for skipped in all_gather_object(self.skipped):
            everywhere.update(skipped)
        self.skipped = {}
        runner.logger.info(f'{len(everywhere)} images were left out of training')
        for path, reason in sorted(everywhere.items())[: self.most_named]:
            runner.logger.info(f'left out: {path}: {reason}')
