"""Export a detector to ONNX, and compare the file with PyTorch.

    python tools/export_onnx.py CONFIG CHECKPOINT OUT.onnx [--image IMAGE ...] [--size HxW ...]

A RetinaFace is exported with decoded boxes, scores and landmarks of all anchors; score threshold
and NMS follow outside, as in tools/face_demo.py. Of any other detector (Mask R-CNN, RetinaNet, ...)
the backbone and neck are exported: the levels of the pyramid. Input: "image", (batch, channels,
height, width) float32, BGR pixels from 0 to 255, any size; channel order, normalization and padding
to the config's pad_size_divisor are inside.

Each image is run at each size by onnxruntime and by PyTorch. The relative difference of an output
is max |a - b| / max(1, max |a|). Above --tolerance nothing is written and the exit status is 1.

Examples:
    python tools/export_onnx.py CONFIG epoch_80.pth face.onnx --image photo.jpg
    python tools/export_onnx.py CONFIG none pyramid.onnx      # random weights, generated images
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from mmengine.config import Config, DictAction

SIZES = ('480x640', '683x1024', '1000x600')
EXAMPLE_SIZE = (97, 130)  # For the tracer: small, and no multiple of a stride.


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help="or 'none': random weights")
    parser.add_argument('out', metavar='OUT.onnx', type=Path)
    parser.add_argument(
        '--image', nargs='+', default=[], metavar='IMAGE', help='to compare on (default: generated)'
    )
    parser.add_argument(
        '--size', nargs='+', default=SIZES, metavar='HxW', help=f'default: {" ".join(SIZES)}'
    )
    parser.add_argument(
        '--tolerance', type=float, default=1e-4, help='max relative difference (default: 1e-4)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in train.py')
    return parser.parse_args(args)


if __name__ == '__main__':
    parse_args()  # --help, before the slow imports

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger
from torch import Tensor, nn

from polynl_mmdet import __version__
from polynl_mmdet.engine import check_loaded, force_weights_only, load_checkpoint
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.models import RetinaFaceHead
from polynl_mmdet.models.config_check import check_model

try:
    import onnxruntime

    from polynl_mmdet.deploy import graphs
    from polynl_mmdet.deploy.onnx_file import compare, write_onnx
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error.name} is missing; pip install 'polynl_mmdet[deploy]'"
    ) from None


def build(config: str, checkpoint: str, options: dict | None) -> tuple[Config, nn.Module]:
    """Build the config's detector, in evaluation mode, with weights ('none': random)."""
    if not Path(config).is_file():
        raise InputError(f'{config}: no such config file')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options or {})
    if 'model' not in cfg:
        raise InputError(f'{config}: got no model, expected the config of a detector')
    register_all_modules()
    check_model(cfg.model)
    for part in (cfg.model, cfg.model.get('backbone', {})):
        part['init_cfg'] = None  # No download.
    detector = MODELS.build(cfg.model).eval()
    if not hasattr(detector, 'extract_feat'):
        raise InputError(f'{config}: got a {cfg.model.type}, expected the config of a detector')
    if checkpoint == 'none':
        # mmengine logs every parameter's initialisation.
        MMLogger.get_current_instance().setLevel(logging.ERROR)
        torch.manual_seed(0)
        detector.init_weights()
        # A new context layer starts as the identity, because a parameter is zero: an error in its
        # branch would not show in the outputs.
        for parameter in detector.parameters():
            if not parameter.detach().any():
                nn.init.normal_(parameter, std=0.1)
        return cfg, detector
    state = load_checkpoint(checkpoint)
    state = state.get('state_dict', state)
    check_loaded(detector, state, checkpoint)
    missing = detector.load_state_dict(state, strict=False).missing_keys
    parts = ('backbone.', 'neck.') + (('bbox_head.',) if is_face_detector(detector) else ())
    missing = [key for key in missing if key.startswith(parts)]
    if missing:
        found = f'{len(missing)} weights of the model are missing, such as {missing[0]}'
        raise InputError(f'{checkpoint}: {found}; expected a checkpoint of {config}')
    return cfg, detector


def is_face_detector(detector: nn.Module) -> bool:
    """Return whether the whole detector is exported."""
    return isinstance(getattr(detector, 'bbox_head', None), RetinaFaceHead)


def read_images(paths: list[str], sizes: list[str]) -> dict[str, Tensor]:
    """Read every image at every size, (1, 3, H, W); without images, generate coloured noise."""
    images = {path: cv2.imread(path, cv2.IMREAD_COLOR) for path in paths if Path(path).is_file()}
    for path in paths:
        if images.get(path) is None:
            raise InputError(f'--image: {path} is not an image that can be read')
    if not images:
        random = np.random.default_rng(0)
        coarse = cv2.resize(random.integers(0, 256, (12, 16, 3), np.uint8), (640, 480))
        fine = random.integers(-20, 21, coarse.shape)
        images['generated'] = np.clip(coarse + fine, 0, 255).astype(np.uint8)
    inputs = {}
    for name, image in images.items():
        for size in sizes:
            if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', size):
                raise InputError(f'--size: got {size!r}, expected HEIGHTxWIDTH such as 480x640')
            height, width = map(int, size.split('x'))
            pixels = cv2.resize(image, (width, height)).astype(np.float32)
            inputs[f'{Path(name).name} {size}'] = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return inputs


def pyramid_graph(detector: nn.Module, example: Tensor) -> tuple[nn.Module, dict, dict]:
    """Return the graph of backbone and neck, its outputs' free axes, and the file's metadata."""
    graph = graphs.PyramidGraph(detector)
    with torch.no_grad():
        levels = graph(example)
    height = graph.pixels(example).shape[2]
    described = [
        {'channels': level.shape[1], 'stride': 2 ** round(np.log2(height / level.shape[2]))}
        for level in levels
    ]
    outputs = {
        f'level_{i}': {0: 'batch', 2: f'height_{i}', 3: f'width_{i}'} for i in range(len(levels))
    }
    metadata = {'kind': 'pyramid', 'levels': described, 'pad_size_divisor': graph.pixels.divisor}
    return graph, outputs, metadata


def main(args: argparse.Namespace) -> int:
    """Export, compare, and move the file to its place; 1 if it differs too much."""
    force_weights_only()
    if not args.out.absolute().parent.is_dir():
        raise InputError(f'OUT.onnx: {args.out} is in a folder that does not exist')
    inputs = read_images(args.image, args.size)
    cfg, detector = build(args.config, args.checkpoint, args.cfg_options)
    channels = graphs.input_channels(detector)
    example = torch.rand(2, channels, *EXAMPLE_SIZE) * 255
    if is_face_detector(detector):
        graph, metadata = graphs.FaceDetectorGraph(detector), graphs.face_settings(cfg)
        outputs = {name: {0: 'batch', 1: 'anchors'} for name in ('boxes', 'scores', 'landmarks')}
    else:
        graph, outputs, metadata = pyramid_graph(detector, example)
    graph.eval()
    metadata.update(
        input='BGR, float32, 0 to 255', config=Path(args.config).name, polynl_mmdet=__version__
    )
    if not args.image:
        print('no --image given: compared on a generated image')
    if args.checkpoint == 'none':
        print('no checkpoint: random weights, zeros replaced so that every branch counts')
    with tempfile.TemporaryDirectory(dir=args.out.absolute().parent) as folder:
        written = Path(folder) / args.out.name
        write_onnx(graph, example, written, outputs, metadata)
        print('differences from PyTorch: absolute (relative)')
        session = onnxruntime.InferenceSession(str(written), providers=['CPUExecutionProvider'])
        found = []
        for name, image in inputs.items():
            differences = compare(graph, session, image[:, :channels])
            found += [(d.relative, d.absolute, d.name, name) for d in differences]
            shown = ', '.join(f'{d.name} {d.absolute:.1e} ({d.relative:.1e})' for d in differences)
            print(f'{name}: {shown}', flush=True)
        relative, _, output, name = max(found)
        absolute = max(difference[1] for difference in found)
        summary = f'absolute {absolute:.1e}, relative {relative:.1e} ({output}, {name})'
        if not relative <= args.tolerance:
            summary += f', above {args.tolerance:g}; nothing was written'
            print(f'error: largest difference: {summary}', file=sys.stderr)
            return 1
        os.replace(written, args.out)
    what = 'boxes, scores and landmarks' if metadata['kind'] == 'faces' else 'pyramid levels'
    print(f'largest difference: {summary}, at most {args.tolerance:g}')
    print(f'wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB): {what}')
    return 0


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main(parse_args()))
