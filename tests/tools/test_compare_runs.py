"""compare_runs.py on work folders as mmengine writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from scipy import stats
from torch import nn

from polynl_mmdet.runs import paired_difference


def work_dir(folder, name, seed, aps, key='coco/segm_mAP'):
    """Write a training of two iterations per epoch, resumed after the first epoch."""
    folder.mkdir(parents=True)
    (folder / f'{name}.py').write_text(
        f'randomness = dict(seed={seed})\nval_dataloader = dict(batch_size=2)\n'
    )
    for part, epochs in (('20260101_000000', [0, 1]), ('20260101_010000', range(1, len(aps)))):
        log = folder / part / 'vis_data'
        log.mkdir(parents=True)
        records = []
        for epoch in epochs:
            last = part.endswith('10000') or epoch == 0
            records.append({'loss': 1.0, 'time': 0.25, 'epoch': epoch + 1, 'step': 2 * epoch + 2})
            records.append({'coco/bbox_mAP': 0.9, key: aps[epoch] if last else 0.0,
                            'time': 0.02, 'step': epoch + 1})  # fmt: skip
        (log / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    content = {
        'state_dict': model.state_dict(),
        'message_hub': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])},
        'optimizer': torch.optim.AdamW(model.parameters()).state_dict(),
    }
    torch.save(content, folder / 'epoch_1.pth')


@pytest.fixture
def runs(tmp_path):
    """Path: two groups of three seeds, their folders not in the order of the seeds."""
    for index, seed in enumerate((2, 0, 1)):
        work_dir(tmp_path / f'none_{seed}', 'plain', seed, [0.1, 0.5 + 0.1 * seed])
        work_dir(tmp_path / f'poly_{index}', 'poly', seed, [0.4, 0.53 + 0.11 * seed, 0.2])
    return tmp_path


def test_groups_seeds_and_the_paired_difference(runs, run_tool):
    words = ('none:none_*', 'polynl:poly_*', '--plot', 'ap.png')
    done = run_tool('compare_runs.py', *words, cwd=runs)
    assert done.returncode == 0, done.stdout
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in done.stdout.splitlines()[4:6]
    ]
    assert rows[0][:5] == ['none', '3', '0.600 ± 0.100', '0.600 ± 0.100', '']
    assert rows[1] == ['polynl', '3', '0.640 ± 0.110', '0.200 ± 0.000', '-0.400 [-0.648, -0.152]',
                       '130', '0.250', '10.0']  # fmt: skip
    assert (runs / 'ap.png').stat().st_size > 5000
    # By config, and another metric.
    folders = sorted(map(str, runs.glob('*_*')))
    done = run_tool('compare_runs.py', *folders, '--metric', 'coco/bbox_mAP', cwd=runs)
    names = [line.split('|')[1].strip() for line in done.stdout.splitlines()[4:6]]
    assert names == ['plain', 'poly']
    assert '0.900 ± 0.000' in done.stdout


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['x:nothing_*'], 'nothing_*: no such work folder'),
        (['none_0', '--metric', 'AP'], "none_0: no 'AP' in the log, only coco/segm_mAP"),
    ],
)
def test_errors(runs, run_tool, words, message):
    done = run_tool('compare_runs.py', *words, cwd=runs)
    assert done.returncode == 2
    assert message in done.stdout.splitlines()[-1]


def test_the_interval_is_students_t():
    values, baseline = [0.5, 0.7, 0.65, 0.6], [0.4, 0.65, 0.6, 0.62]
    found = paired_difference(values, baseline)
    differences = np.subtract(values, baseline)
    low, high = stats.t.interval(0.95, 3, loc=differences.mean(), scale=stats.sem(differences))
    assert found == pytest.approx((differences.mean(), low, high))
    assert np.isnan(paired_difference([0.5], [0.4])[1:]).all()
