"""The long-range study: its tasks, its bounds, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from polynl_mmdet.errors import InputError
from studies.long_range import run as long_range
from studies.long_range.model import build_trunk, receptive_field
from studies.long_range.tasks import NO_LABEL, TASKS, deciding_distance, draw

FOLDER = Path(long_range.__file__).parent
SIZE = 18


@pytest.mark.parametrize('task', TASKS)
def test_nothing_that_decides_is_in_sight_of_the_trunk(task):
    """A labelled object's features change with nothing but its own square and the noise."""
    _, labels = draw(task, 4000, SIZE, torch.Generator().manual_seed(0))
    assert abs(labels[labels != NO_LABEL].double().mean() - 0.5) < 0.03  # Guessing is right.
    trunk = build_trunk().eval()
    reach = receptive_field(trunk) // 2
    assert reach < deciding_distance(SIZE)
    for image, labels in zip(*draw(task, 20, SIZE, torch.Generator().manual_seed(0))):
        y, x = (labels != NO_LABEL).nonzero()[0].tolist()
        near = [(y + d) % SIZE for d in range(-reach - 1, 2 + reach)]
        beside = [(x + d) % SIZE for d in range(-reach - 1, 2 + reach)]
        rest = torch.ones(SIZE, SIZE, dtype=torch.bool)
        for row in near:
            rest[row, beside] = False
        shuffled = image.clone()
        shuffled[:, rest] = torch.randn(3, int(rest.sum()))
        one, other = trunk(torch.stack([image, shuffled]))
        torch.testing.assert_close(one[:, y, x], other[:, y, x])


def test_poly_nl_learns_the_far_cue_and_the_trunk_alone_does_not():
    settings = dict(long_range.SHORT, steps=120, images=256)
    assert long_range.train('cue', 'PolyNL', 1e-2, 1, settings)['accuracy'] > 0.9
    assert long_range.train('cue', 'none', 1e-2, 1, settings)['accuracy'] < 0.65


def test_a_stopped_study_goes_on_where_it_was(tmp_path, capsys):
    output = tmp_path / 'out.json'
    settings = dict(long_range.QUICK, seeds=2)

    def study(settings):
        return long_range.study(settings, ['cue'], ['PolyNL'], output, workers=1)

    runs = study(settings)['runs']
    assert len(runs) == 1 + 2  # rates + seeds
    stored = json.loads(output.read_text())
    dropped = next(name for name in runs if name.endswith(' 2'))
    del stored['runs'][dropped]
    output.write_text(json.dumps(stored))
    capsys.readouterr()
    assert study(settings)['runs'][dropped]['accuracy'] == runs[dropped]['accuracy'], 'seeded'
    assert capsys.readouterr().out.count('step_ms') == 1, 'one run'
    with pytest.raises(InputError, match=r"expected .*'steps': 4"):
        study(dict(settings, steps=4))
    table = long_range.table(json.loads((FOLDER / 'results/short.json').read_text()))
    assert table.count('±') > 50
