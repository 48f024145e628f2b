"""Exportable graphs: equal to mmdet's own path in PyTorch, and to their ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from polynl_mmdet.deploy.graphs import FaceDetectorGraph, PixelInput, PyramidGraph
from polynl_mmdet.layers import PolyNL

CONFIGS = Path(__file__).parents[2] / 'configs'
MOBILENET = CONFIGS / 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'


def face_detector(**options):
    """A small RetinaFace with weights drawn at random."""
    cfg = Config.fromfile(MOBILENET)
    cfg.merge_from_dict(options)
    detector = MODELS.build(cfg.model).eval()
    detector.init_weights()
    for parameter in detector.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.1)
    return detector


def own_results(detector, image):
    """What the detector itself gives for one image, every anchor, without the NMS."""
    height, width = image.shape[2:]
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    data = detector.data_preprocessor(dict(inputs=[image[0]], data_samples=[sample]))
    outputs = detector(data['inputs'], data['data_samples'], mode='tensor')
    cfg = detector.test_cfg.copy()
    cfg.update(score_thr=-1.0, nms_pre=-1, max_per_img=-1)
    metas = [dict(img_shape=(height, width))]
    return detector.bbox_head.predict_by_feat(*outputs, metas, cfg=cfg, with_nms=False)[0]


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'model.bbox_head.loss_cls.use_sigmoid': True},
        {'model.bbox_head.bbox_coder.clip_border': True},
        {'model.data_preprocessor.bgr_to_rgb': True, 'model.data_preprocessor.std': [58, 57, 56]},
        {'model.data_preprocessor.pad_size_divisor': 32},
    ],
)
def test_faces_are_those_of_the_detector(options):
    detector = face_detector(**options)
    image = (torch.rand(1, 3, 70, 113) * 255).round()
    with torch.no_grad():
        boxes, scores, points = FaceDetectorGraph(detector)(image)
        own = own_results(detector, image)
    order = scores[0].argsort(descending=True, stable=True)
    if 'model.data_preprocessor.pad_size_divisor' in options:
        # The detector leaves anchors in the padding out; the graph gives them no score.
        assert len(own) < len(order)
        assert not scores[0][order[len(own) :]].any()
        order = order[: len(own)]
    torch.testing.assert_close(scores[0][order], own.scores)
    falls = torch.cat([torch.tensor([True]), own.scores.diff() < 0, torch.tensor([True])])
    distinct = falls[:-1] & falls[1:]
    assert distinct.float().mean() > 0.9
    torch.testing.assert_close(boxes[0][order][distinct], own.bboxes[distinct])
    torch.testing.assert_close(points[0][order][distinct], own.keypoints[distinct])


def test_what_cannot_be_exported_is_named():
    with pytest.raises(ValueError, match='expected DetDataPreprocessor'):
        PixelInput(nn.Identity())
    with pytest.raises(ValueError, match='RetinaFaceHead of 2 classes, expected'):
        FaceDetectorGraph(face_detector(**{'model.bbox_head.num_classes': 2}))


class Plain(nn.Module):
    """A detector's interface around a layer."""

    def __init__(self, layer):
        super().__init__()
        self.data_preprocessor = MODELS.build(
            dict(type='DetDataPreprocessor', pad_size_divisor=8, bgr_to_rgb=True)
        )
        self.layer = layer

    def extract_feat(self, x):
        return (self.layer(x),)


def write(layer, path):
    """Write an ONNX file; give the graph and a session of the file."""
    onnxruntime = pytest.importorskip('onnxruntime')
    from polynl_mmdet.deploy.onnx_file import write_onnx

    graph = PyramidGraph(Plain(layer)).eval()
    free = {'level_0': {0: 'batch', 2: 'height_0', 3: 'width_0'}}
    write_onnx(graph, torch.rand(2, 3, 17, 30), path, free, {'kind': 'pyramid'})
    return graph, onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


@pytest.mark.parametrize(
    'layer',
    [
        # Windows of different sizes, of maps smaller than the grid too.
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d(4),
        nn.AdaptiveAvgPool2d((3, 10)),
        PolyNL(3, bias=True),
        PolyNL(3, bias=True, context_norm=True),
    ],
    ids=repr,
)
def test_a_layer_in_a_file(layer, tmp_path):
    """For sizes never traced."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    graph, session = write(layer, tmp_path / 'graph.onnx')
    from polynl_mmdet.deploy.onnx_file import compare

    for shape in ((1, 3, 5, 41), (3, 3, 64, 64), (2, 3, 33, 7)):
        (difference,) = compare(graph, session, torch.rand(shape) * 3)
        assert difference.relative < 1e-5


def test_differences_are_seen(tmp_path):
    """A graph that is not the file's, and a result that is no number."""
    layer = nn.Conv2d(3, 2, 1)
    graph, session = write(layer, tmp_path / 'graph.onnx')
    from polynl_mmdet.deploy.onnx_file import compare

    image = torch.rand(1, 3, 16, 8)
    layer.bias.data += 0.5
    (difference,) = compare(graph, session, image)
    assert difference.absolute == pytest.approx(0.5, rel=1e-4)
    scale = max(1.0, float(graph(image)[0].abs().max()))
    assert difference.relative == pytest.approx(0.5 / scale, rel=1e-4)
    image[0, 0, 0, 0] = float('nan')
    assert np.isinf(compare(graph, session, image)[0].relative)
