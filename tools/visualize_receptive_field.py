"""Draw which pixels of an image a detector's feature depends on, for one model or two.

    python tools/visualize_receptive_field.py CONFIG [CHECKPOINT] --image IMAGE --stage c4 \\
        --out field.png [--versus CONFIG [CHECKPOINT]] [--at X Y] [--cfg-options KEY=VALUE ...]

The effective receptive field (Luo et al., "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks", NeurIPS 2016, https://arxiv.org/abs/1701.04128): the gradient of one
position's features, their sum over the channels, with respect to the pixels; drawn as its absolute
value over its maximum, on a logarithmic scale. Without CHECKPOINT the model is initialised as its
config says, so that layers which start as the identity show nothing yet.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import polynl_mmdet
from polynl_mmdet.cli.config_check import check_plugins
from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import InputError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DECADES = 5  # Of the logarithmic scale.


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?')
    parser.add_argument('--image', required=True, help='image to look at')
    parser.add_argument(
        '--stage', default='c4', help='c2 to c5 of the backbone, or neck0, neck1, ... (default: c4)'
    )
    parser.add_argument('--out', default='receptive_field.png', help='image to write')
    parser.add_argument(
        '--versus', nargs='+', metavar=('CONFIG', 'CHECKPOINT'), help='a second model'
    )
    parser.add_argument(
        '--at', nargs=2, type=float, default=(0.5, 0.5), metavar=('X', 'Y'),
        help='place of the feature, shares of width and height (default: the centre)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of weights without a CHECKPOINT')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='for both configs')
    args = parser.parse_args()
    if args.versus and len(args.versus) > 2:
        parser.error('--versus: CONFIG [CHECKPOINT]')
    return args


def build(
    config: str, checkpoint: str | None, args: argparse.Namespace
) -> tuple[Config, nn.Module]:
    """Build a detector and load its weights.

    Args:
        config (str): Config file.
        checkpoint (str or None): Checkpoint; None: initialise as the config says.
        args (argparse.Namespace): The command line.

    Returns:
        tuple[Config, nn.Module]: The config and the detector, in evaluation mode.

    Raises:
        InputError: A file is missing, or the checkpoint lacks weights of the backbone.
    """
    if not Path(config).is_file():
        raise InputError(config, 'no such config file')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope('mmdet')
    check_plugins(cfg.model)
    torch.manual_seed(args.seed)
    model = MODELS.build(cfg.model)
    if checkpoint is None:
        model.init_weights()
    else:
        state = load_checkpoint(checkpoint)
        state = state.get('state_dict', state)
        missing = model.load_state_dict(state, strict=False).missing_keys
        missing = [key for key in missing if key.startswith('backbone.')]
        if missing:
            raise InputError(
                checkpoint,
                f'lacks {len(missing)} weights of the backbone, {missing[0]} first',
                f'accepted: a checkpoint of {config}',
            )
    model.eval()
    return cfg, model


def prepare(image: str, cfg: Config, model: nn.Module) -> Tensor:
    """Read an image as the config does for testing.

    Returns:
        Tensor: (1, 3, H, W), normalised and padded.

    Raises:
        InputError: The image cannot be read.
    """
    if not Path(image).is_file():
        raise InputError('--image', f'{image}: no such file')
    steps = [s for s in cfg.test_dataloader.dataset.pipeline if s['type'] != 'LoadAnnotations']
    try:
        data = Compose(steps)(dict(img_path=image, img_id=0, instances=[]))
    except (AssertionError, AttributeError, TypeError, ValueError):
        raise InputError('--image', f'{image} is not an image that can be read') from None
    batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    return model.data_preprocessor(batch, False)['inputs']


def receptive_field(model: nn.Module, x: Tensor, stage: str, at: tuple[float, float]) -> np.ndarray:
    """Compute the gradient of one position's features with respect to the pixels.

    Args:
        model (nn.Module): A detector.
        x (Tensor): (1, 3, H, W).
        stage (str): 'c2' for the backbone's output of index 0, and so on; 'neck0' for the neck's
            first.
        at (tuple[float, float]): x and y of the position, shares of width and height.

    Returns:
        np.ndarray: (H, W) float64, absolute values summed over the colours.

    Raises:
        InputError: The model does not give this stage, or the position is outside.
    """
    if not all(0 <= share <= 1 for share in at):
        raise InputError('--at', f'{at[0]:g} {at[1]:g}', 'accepted: two shares from 0 to 1')
    x = x.detach().clone().requires_grad_()
    outputs = model.backbone(x)
    indices = getattr(model.backbone, 'out_indices', ())
    maps = {f'c{index + 2}': output for index, output in zip(indices, outputs)}
    if stage not in maps and getattr(model, 'neck', None) is not None:
        maps |= {f'neck{n}': output for n, output in enumerate(model.neck(outputs))}
    if stage not in maps:
        raise InputError('--stage', repr(stage), f'accepted: {", ".join(maps)}')
    features = maps[stage]
    height, width = features.shape[2:]
    row = min(int(at[1] * height), height - 1)
    column = min(int(at[0] * width), width - 1)
    (gradient,) = torch.autograd.grad(features[0, :, row, column].sum(), x)
    return gradient[0].abs().sum(dim=0).double().numpy()


def describe(field: np.ndarray, at: tuple[float, float]) -> dict[str, float]:
    """Compute the size of a field.

    Args:
        field (np.ndarray): (H, W), not negative.
        at (tuple[float, float]): The position, shares of width and height.

    Returns:
        dict[str, float]: ``reached``: share of the pixels with a gradient; ``radius50`` and
        ``radius90``: pixels around the position within which half and nine tenths of it lie.
    """
    height, width = field.shape
    rows, columns = np.mgrid[:height, :width]
    distances = np.hypot(rows + 0.5 - at[1] * height, columns + 0.5 - at[0] * width).ravel()
    order = np.argsort(distances)
    held = np.cumsum(field.ravel()[order])
    result = {'reached': float((field > 0).mean())}
    for percent in (50, 90):
        index = int(np.searchsorted(held, percent / 100 * held[-1]))
        result[f'radius{percent}'] = float(distances[order[min(index, len(order) - 1)]])
    return result


def draw(image: Tensor, fields: dict[str, np.ndarray], at: tuple[float, float], out: str) -> None:
    """Draw the image and each model's field side by side.

    Args:
        image (Tensor): (3, H, W), of any range.
        fields (dict[str, np.ndarray]): Title to (H, W).
        at (tuple[float, float]): The position, shares of width and height.
        out (str): File to write.
    """
    height, width = image.shape[1:]
    shown = image.permute(1, 2, 0).numpy()
    shown = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12)
    figure, axes = plt.subplots(
        1,
        len(fields) + 1,
        figsize=(4 * (len(fields) + 1), 4 * height / width + 0.6),
        layout='constrained',
    )
    axes[0].imshow(shown)
    axes[0].plot(at[0] * width, at[1] * height, 'r+', markersize=12)
    axes[0].set_title('image, and the place', fontsize=9)
    for axis, (title, field) in zip(axes[1:], fields.items()):
        scaled = np.log10(np.maximum(field / field.max(), 10.0**-DECADES))
        heat_map = axis.imshow(scaled, cmap='inferno', vmin=-DECADES, vmax=0)
        axis.set_title(title, fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(heat_map, ax=axes[-1], label='log10 of the gradient / its maximum')
    try:
        figure.savefig(out, dpi=80)
    except (ValueError, OSError) as error:
        raise InputError('--out', f'{out} ({error})') from None
    plt.close(figure)


def main(args: argparse.Namespace) -> None:
    """Compute the fields, print their figures and draw them."""
    polynl_mmdet.guard_checkpoints()
    # mmengine logs every parameter's initialisation.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    fields: dict[str, np.ndarray] = {}
    image = None
    models = [(args.config, args.checkpoint)]
    if args.versus:
        models.append((args.versus[0], args.versus[1] if len(args.versus) > 1 else None))
    for config, checkpoint in models:
        cfg, model = build(config, checkpoint, args)
        x = prepare(args.image, cfg, model)
        field = receptive_field(model, x, args.stage, tuple(args.at))
        if not np.isfinite(field).all() or not field.any():
            raise InputError(config, f'the gradient at {args.stage} is zero or not finite')
        title = f'{Path(config).stem}\n{Path(checkpoint).name if checkpoint else "untrained"}'
        if title in fields:
            title += ' (2)'
        fields[title] = field
        image = x[0] if image is None else image
        figures = describe(field, args.at)
        print(
            f'{Path(config).stem}, {args.stage}: {figures["reached"]:.1%} of the pixels reached; '
            f'half of the gradient within {figures["radius50"]:.0f} pixels, 90 % within '
            f'{figures["radius90"]:.0f}'
        )
    draw(image, fields, args.at, args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
