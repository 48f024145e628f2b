"""The long-range study: its tasks, its bounds, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from polynl_mmdet.errors import InputError
from studies.long_range import run as long_range
from studies.long_range.model import (
    LAYERS,
    MAX_PARAMETERS,
    build_trunk,
    layer_parameters,
    receptive_field,
)
from studies.long_range.tasks import NO_LABEL, TASKS, deciding_distance, draw

FOLDER = Path(long_range.__file__).parent


SIZE = 18


def images_of(task, batch=200, seed=0):
    return draw(task, batch, SIZE, torch.Generator().manual_seed(seed))


def objects(image, size):
    """Corners and mean colours of the 2 x 2 squares, read from the pixels."""
    strong = image.abs().amax(dim=0) > 0.6
    found = []
    for y in range(size):
        for x in range(size):
            above, before = strong[y - 1, x], strong[y, x - 1]  # Index -1 wraps, as the torus.
            if strong[y, x] and not above and not before:
                ys, xs = [y, (y + 1) % size], [x, (x + 1) % size]
                found.append(((y, x), image[:, ys][:, :, xs].mean(dim=(1, 2))))
    return found


def expected_label(task, own, others, position, size):
    colours = [colour for _, colour in others]

    def like(colour, *reference):
        return (colour - torch.tensor(reference)).norm() < 0.6

    reds = [place for place, colour in others if like(colour, 1.0, -1.0, -1.0)]
    blues = [place for place, colour in others if like(colour, -1.0, -1.0, 1.0)]
    if task in ('cue', 'majority'):
        return int(len(reds) > len(blues))
    if task == 'side':
        return int(reds[0][1] < position[1])
    return int(any((own - colour).norm() < 0.5 for colour in colours))


@pytest.mark.parametrize('task', TASKS)
def test_labels_follow_from_the_pixels(task):
    wrong = total = 0
    for image, labels in zip(*images_of(task, batch=60)):
        found = objects(image, SIZE)
        for (y, x), colour in found:
            label = int(labels[y, x])
            ys, xs = [y, (y + 1) % SIZE], [x, (x + 1) % SIZE]
            assert (labels[ys][:, xs] == label).all()
            if label == NO_LABEL:
                continue
            others = [one for one in found if one[0] != (y, x)]
            wrong += label != expected_label(task, colour, others, (y, x), SIZE)
            total += 1
        squares = 4 * sum(int(labels[y, x]) != NO_LABEL for (y, x), _ in found)
        assert (labels != NO_LABEL).sum() == squares
    assert total > 60
    # Any two colours of a sphere can be close by chance.
    assert wrong <= (0.05 * total if task == 'match' else 0)


@pytest.mark.parametrize('task', TASKS)
def test_guessing_is_right_half_of_the_time(task):
    _, labels = images_of(task, batch=4000)
    known = labels[labels != NO_LABEL].double()
    assert abs(known.mean() - 0.5) < 0.03


@pytest.mark.parametrize('task', TASKS)
def test_nothing_that_decides_is_in_sight_of_the_trunk(task):
    """A labelled object's features change with nothing but its own square and the noise."""
    trunk = build_trunk().eval()
    reach = receptive_field(trunk) // 2
    assert reach < deciding_distance(SIZE)
    for image, labels in zip(*images_of(task, batch=20)):
        for (y, x), _ in objects(image, SIZE):
            if labels[y, x] == NO_LABEL:
                continue
            sight = [(y + d) % SIZE for d in range(-reach, 2 + reach)]
            across = [(x + d) % SIZE for d in range(-reach, 2 + reach)]
            rest = torch.ones(SIZE, SIZE, dtype=torch.bool)
            for row in sight:
                rest[row, across] = False
            shuffled = image.clone()
            shuffled[:, rest] = torch.randn(3, int(rest.sum()))
            one, other = trunk(torch.stack([image, shuffled]))
            torch.testing.assert_close(one[:, y, x], other[:, y, x])
            break


def test_every_layer_is_within_the_bounds():
    counts = {name: layer_parameters(name) for name in LAYERS if name != 'none'}
    assert counts.pop('GlobalResponseNorm') == 64, 'it has two numbers a channel'
    assert all(2000 <= count <= MAX_PARAMETERS for count in counts.values()), counts


def test_poly_nl_learns_the_far_cue_and_the_trunk_alone_does_not():
    settings = dict(long_range.QUICK, steps=120, images=256)
    assert long_range.train('cue', 'PolyNL', 1e-2, 1, settings)['accuracy'] > 0.9
    assert long_range.train('cue', 'none', 1e-2, 1, settings)['accuracy'] < 0.65


SMALL = dict(long_range.QUICK, steps=2, seeds=2, images=64)


def study(output, settings=SMALL):
    return long_range.study(settings, ['cue'], ['none', 'PolyNL'], output, workers=1)


def test_a_stopped_study_goes_on_where_it_was(tmp_path, capsys):
    output = tmp_path / 'out.json'
    runs = study(output)['runs']
    assert 'receptive field of the trunk: 5 x 5 pixels' in capsys.readouterr().out
    assert len(runs) == 2 * (2 + 2)  # layers x (rates + seeds)
    stored = json.loads(output.read_text())
    dropped = next(name for name in runs if name.endswith(' 2'))
    del stored['runs'][dropped]
    output.write_text(json.dumps(stored))
    again = study(output)
    assert capsys.readouterr().out.count('step_ms') == 1, 'one run'
    # The same seed gives the same result.
    assert {name: run['accuracy'] for name, run in again['runs'].items()} == {
        name: run['accuracy'] for name, run in runs.items()
    }
    assert json.loads(output.read_text()) == again
    with pytest.raises(InputError, match="'steps': 2"):
        study(output, dict(SMALL, steps=3))


def test_the_stored_study_is_shown_again(repo_root):
    table = long_range.table(json.loads((FOLDER / 'results/quick.json').read_text()))
    assert '| PolyNL                  |      3,138 |' in table
    assert table.count('±') > 50
