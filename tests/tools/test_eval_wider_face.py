"""tools/eval_wider_face.py from the command line."""

from __future__ import annotations

import json
import re
import zipfile

import pytest


@pytest.fixture
def wider_eval(data_root):
    """The official ground truth and a real detector's predictions."""
    return data_root / 'wider_eval'


def test_official_figures_to_full_precision(run_tool, wider_eval, tmp_path):
    done = run_tool(
        'eval_wider_face.py',
        wider_eval / 'predictions.zip',
        wider_eval / 'ground_truth',
        '--json',
        tmp_path / 'out.json',
        '--plot',
        tmp_path / 'out.png',
    )
    assert done.returncode == 0, done.stdout
    assert re.findall(r'^(\w+) +(0\.\d{4})$', done.stdout, re.MULTILINE) == [
        ('easy', '0.9448'),
        ('medium', '0.9245'),
        ('hard', '0.8153'),
    ]
    assert re.search(r'3226 files, 143889 detections: read and scored in \d+\.\d\d s', done.stdout)
    assert json.loads((tmp_path / 'out.json').read_text()) == dict(
        easy=0.9448373912694071, medium=0.9244706568389409, hard=0.8153250447873874
    )
    assert (tmp_path / 'out.png').read_bytes().startswith(b'\x89PNG')


@pytest.fixture
def picnic(wider_eval, tmp_path):
    """The prediction files of one event, unpacked."""
    with zipfile.ZipFile(wider_eval / 'predictions.zip') as archive:
        archive.extractall(
            tmp_path, [name for name in archive.namelist() if name.startswith('22--Picnic/')]
        )
    return tmp_path


def test_one_event(run_tool, wider_eval, picnic):
    (picnic / '22--Picnic' / 'stranger.txt').write_text('not read')
    count = len(list(picnic.glob('22--Picnic/22_*.txt')))
    arguments = ('eval_wider_face.py', picnic, wider_eval / 'ground_truth')
    whole, subset = run_tool(*arguments), run_tool(*arguments, '--subset')
    assert whole.returncode == subset.returncode == 0
    for done, effect in ((whole, 'counted as no detections'), (subset, 'left out')):
        assert f'{3226 - count} images without a prediction file, {effect}' in done.stdout
        assert 'matches no image: 22--Picnic/stranger.txt' in done.stdout
    easy = [float(re.search(r'easy +(\S+)', done.stdout)[1]) for done in (whole, subset)]
    assert easy[0] < 0.1 < 0.8 < easy[1]


def test_the_order_of_a_file(run_tool, wider_eval, picnic):
    """Sorted by score it makes no difference; else --file-order reads as the Python port does."""

    def easy(*options):
        done = run_tool(
            'eval_wider_face.py', picnic, wider_eval / 'ground_truth', '--subset', *options
        )
        assert done.returncode == 0, done.stdout
        return re.search(r'easy +(\S+)', done.stdout)[1]

    official = easy()
    assert easy('--file-order') == official
    for file in picnic.glob('22--Picnic/*.txt'):
        name, count, *rows = file.read_text().splitlines()
        file.write_text('\n'.join([name, count, *reversed(rows)]))
    assert easy() == official
    assert float(easy('--file-order')) < float(official)


def test_a_malformed_line_is_one_line(run_tool, wider_eval, picnic):
    file = sorted(picnic.glob('22--Picnic/*.txt'))[3]
    lines = file.read_text().splitlines()
    lines[2] = '1 2 3 4'
    file.write_text('\n'.join(lines))
    done = run_tool('eval_wider_face.py', picnic, wider_eval / 'ground_truth')
    assert done.returncode == 2
    assert done.stdout.count('\n') == 1
    assert done.stdout.startswith(f'error: {file}:3: 4 columns in "1 2 3 4"')


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (['--iou', '0'], 'iou_thr: 0.0'),
        (['--json', 'absent/out.json'], '--json: absent/out.json'),
        (['--plot', 'out.xyz'], '--plot: out.xyz'),
    ],
)
def test_bad_options_are_one_line(run_tool, wider_eval, picnic, options, says):
    done = run_tool('eval_wider_face.py', picnic, wider_eval / 'ground_truth', *options)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith(f'error: {says}')


def test_predictions_of_something_else(run_tool, wider_eval, tmp_path):
    (tmp_path / 'a.txt').write_text('x')
    done = run_tool('eval_wider_face.py', tmp_path, wider_eval / 'ground_truth')
    assert done.returncode == 2
    assert '1 files, none for an image' in done.stdout
