"""benchmarks/coco_metric.py runs, and both backends give the same figures."""

from __future__ import annotations

import json

import pytest


def test_quick(run_tool, repo_root, tmp_path):
    pytest.importorskip('faster_coco_eval')
    out = tmp_path / 'out.json'
    done = run_tool(repo_root / 'benchmarks/coco_metric.py', '--quick', '--output', out)
    assert done.returncode == 0, done.stdout
    assert '40 images, 2,000 detections: seconds' in done.stdout
    report = json.loads(out.read_text())
    assert set(report['seconds']) == {
        f'{kind} {backend}' for kind in ('bbox', 'segm') for backend in ('pycocotools', 'faster')
    }
