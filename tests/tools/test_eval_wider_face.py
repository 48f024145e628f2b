"""tools/eval_wider_face.py from the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
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
    assert re.search(r'3226 files, 143889 detections: \d+\.\d\d s', done.stdout)
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
    (picnic / '22--Picnic' / 'other.txt').write_text('not read')
    count = len(list(picnic.glob('22--Picnic/22_*.txt')))
    arguments = ('eval_wider_face.py', picnic, wider_eval / 'ground_truth')
    whole, subset = run_tool(*arguments), run_tool(*arguments, '--subset')
    assert whole.returncode == subset.returncode == 0
    for done, effect in ((whole, 'counted as no detections'), (subset, 'skipped')):
        assert f'{3226 - count} images without a prediction file, {effect}' in done.stdout
        assert '1 files match no image: 22--Picnic/other.txt' in done.stdout
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
    assert done.stdout.startswith(f'error: {file}:3: got 4 columns in "1 2 3 4"')


def test_odd_rows_are_reported(run_tool, wider_eval, picnic):
    files = sorted(picnic.glob('22--Picnic/*.txt'))
    for file in files[:3]:
        name, _, *rows = file.read_text().splitlines()
        file.write_text('\n'.join([name, '7.0', rows[0] + ' 0 0', '5 5 -3 9 0.01', *rows[1:]]))
    done = run_tool('eval_wider_face.py', picnic, wider_eval / 'ground_truth')
    assert done.returncode == 0
    for line in (
        f'{files[0]}:3: the first of 3 rows with more than 5 columns',
        f'{files[0]}:4: the first of 3 boxes of negative size',
        f'{files[0]}:2: the first of 3 files whose count differs from their rows',
    ):
        assert line in done.stdout


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (['--iou', '0'], 'iou_thr: got 0.0'),
        (['--images', '.'], '--images and --misses: expected both'),
        (['--json', 'absent/out.json'], '--json: absent/out.json'),
        (['--plot', 'out.xyz'], '--plot: out.xyz'),
    ],
)
def test_bad_options_are_one_line(run_tool, wider_eval, picnic, options, says):
    done = run_tool('eval_wider_face.py', picnic, wider_eval / 'ground_truth', *options)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith(f'error: {says}')


def write_rows(source, out, convert):
    """Write prediction files again with other rows."""
    for file in source.glob('22--Picnic/*.txt'):
        name, count, *rows = file.read_text().splitlines()
        rows = np.array([row.split() for row in rows], dtype=float).reshape(-1, 5)
        rows[:, :4] = np.column_stack(convert(*rows[:, :4].T))
        (out / file.parent.name).mkdir(parents=True, exist_ok=True)
        lines = [name, count, *(' '.join(map(str, row)) for row in rows.tolist())]
        (out / file.parent.name / file.name).write_text('\n'.join(lines))


@pytest.mark.parametrize(
    ('convert', 'says'),
    [
        (lambda x, y, w, h: (x, y, x + w, y + h), r'as x1 y1 x2 y2 they would match \d\d+, '),
        (lambda x, y, w, h: (x + w / 2, y + h / 2, w, h), r'as cx cy width height they would'),
        (lambda x, y, w, h: (x / 1024, y / 999, w / 1024, h / 999), 'coordinates are below 1.5'),
        (lambda x, y, w, h: (3 * x, 3 * y, 3 * w, 3 * h), 'pixels of the original image'),
    ],
    ids=['corners', 'centres', 'fractions', 'another size'],
)
@pytest.mark.parametrize('options', [(), ('--subset',)], ids=' '.join)
def test_a_wrong_form_of_box_is_explained(
    run_tool, wider_eval, picnic, tmp_path, convert, says, options
):
    write_rows(picnic, tmp_path / 'new', convert)
    found = run_tool('eval_wider_face.py', tmp_path / 'new', wider_eval / 'ground_truth', *options)
    (line,) = re.findall('^warning: .*$', found.stdout, re.MULTILINE)
    assert re.search(rf'\d+ detections match \d+ of \d+ faces: .*{says}', line)


@pytest.mark.parametrize('options', [(), ('--subset',)], ids=' '.join)
def test_right_boxes_of_few_images_are_no_reason_to_warn(run_tool, wider_eval, picnic, options):
    found = run_tool('eval_wider_face.py', picnic, wider_eval / 'ground_truth', *options)
    assert 'warning' not in found.stdout


def test_several_detectors_their_curves_and_the_misses(
    run_tool, wider_eval, data_root, picnic, tmp_path
):
    """The second detector is the first one without its surest quarter."""
    other = tmp_path / 'other'
    (other / '22--Picnic').mkdir(parents=True)
    for file in picnic.glob('22--Picnic/*.txt'):
        name, _, *rows = file.read_text().splitlines()
        rows = rows[len(rows) // 4 :]
        text = '\n'.join([name, str(len(rows)), *rows])
        (other / '22--Picnic' / file.name).write_text(text)
    small = tmp_path / 'small'
    (small / '22--Picnic').mkdir(parents=True)
    for image in (data_root / 'wider_mini').rglob('*.jpg'):
        name = f'22--Picnic/{image.stem}.txt'
        (small / name).write_text((picnic / name).read_text())
    truth = wider_eval / 'ground_truth'
    images = data_root / 'wider_mini/WIDER_val/images'
    done = run_tool(
        'eval_wider_face.py', small, other, truth, '--subset', '--json', tmp_path / 'x.json',
        '--plot', tmp_path / 'x.png', '--images', images, '--misses', tmp_path / 'm.png',
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    aps = json.loads((tmp_path / 'x.json').read_text())
    assert list(aps) == ['small', 'other']
    assert aps['small']['hard'] > aps['other']['hard']
    for name in ('x.png', 'm.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')
    done = run_tool(
        'eval_wider_face.py', other, truth, '--images', images, '--misses', tmp_path / 'm.png'
    )
    assert re.search(r'^error: --images: no 22--Picnic/.*\.jpg in ', done.stdout, re.MULTILINE)


def test_needs_numpy_and_scipy_alone(repo_root, wider_eval, picnic):
    """A process without torch, mm* and all that is not needed, in which nothing else is loaded."""
    code = (
        "import runpy, sys; blocked = ['torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'matplotlib', "
        "'PIL', 'tqdm']; sys.modules.update(dict.fromkeys(blocked)); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, repo_root / 'tools/eval_wider_face.py',
         picnic, wider_eval / 'ground_truth'],
        env={**os.environ, 'PYTHONPATH': str(repo_root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ''
    assert 'hard ' in done.stdout
