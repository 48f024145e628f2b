"""The demos run from the command line, with few images."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from tools.report_run import CollectHook


@pytest.mark.parametrize(
    ('demo', 'folder', 'figure'),
    [('shapes', 'demo', 'mask AP50 0.'), ('faces', 'demo-face', 'Hard AP 0.')],
)
def test_a_demo_trains_tests_and_reports(tool_server, tmp_path, repo_root, demo, folder, figure):
    words = ['-m', 'demo.run', demo, '--train', '16', '--val', '4', '--epochs', '1']
    status, output = tool_server.run(words, cwd=str(tmp_path), env=dict(PYTHONPATH=str(repo_root)))
    assert status == 0, output
    for text in ('4 test images: ', figure, '2/2, elapsed'):
        assert text in output
    report = tmp_path / 'work_dirs' / folder / 'report'
    assert cv2.imread(str(report / 'images.jpg')).shape[1] > 1900
    assert {'curves.png', 'confusion_matrix.png'} <= {path.name for path in report.iterdir()}


def test_the_confusion_matrix(tmp_path):
    """A cat found, and found again; a dog taken for a cat; a dog with too low a score."""
    objects = ((0, 0, 0), (1, 100, 0), (1, 200, 0), (0, 300, 1))
    instances = [
        dict(bbox=[x, 0, x + 10, 10], bbox_label=label, ignore_flag=ignored)
        for label, x, ignored in objects
    ]
    dataset = SimpleNamespace(
        metainfo={'classes': ('cat', 'dog')}, get_data_info=lambda index: {'instances': instances}
    )
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [100, 0, 110, 9], [300, 0, 310, 10], [200, 0, 210, 10]]
    found = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor([0, 0, 0, 0, 1]),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.9, 0.4]),
    )
    hook = CollectHook(tmp_path, images=0, score_thr=0.5)
    hook.before_test(SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset)))
    hook.after_test_iter(None, 0, outputs=[DetDataSample(pred_instances=found)])
    assert hook.matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
