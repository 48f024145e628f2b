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

PNG = b'\x89PNG'


@pytest.fixture
def truth(data_root):
    """The official ground truth."""
    return data_root / 'wider_eval/ground_truth'


@pytest.fixture
def picnic(data_root, tmp_path):
    """A real detector's prediction files of one event, unpacked."""
    with zipfile.ZipFile(data_root / 'wider_eval/predictions.zip') as archive:
        names = [name for name in archive.namelist() if name.startswith('22--Picnic/')]
        archive.extractall(tmp_path / 'first', names)
    return tmp_path / 'first'


def rewrite(source, out, change):
    """Write prediction files again; ``change`` gives the lines after the name."""
    (out / '22--Picnic').mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob('22--Picnic/*.txt')):
        name, count, *rows = file.read_text().splitlines()
        text = '\n'.join([name, *change(count, rows)])
        (out / '22--Picnic' / file.name).write_text(text)
    return out


def easy(done):
    assert done.returncode == 0, done.stdout
    return float(re.search(r'easy +(\S+)', done.stdout)[1])


def test_official_figures_to_full_precision(run_tool, data_root, truth, tmp_path):
    done = run_tool('eval_wider_face.py', data_root / 'wider_eval/predictions.zip', truth,
                    '--json', tmp_path / 'out.json', '--plot', tmp_path / 'out.png')  # fmt: skip
    assert done.returncode == 0, done.stdout
    figures = re.findall(r'^(\w+) +(0\.\d{4})$', done.stdout, re.MULTILINE)
    assert figures == [('easy', '0.9448'), ('medium', '0.9245'), ('hard', '0.8153')]
    assert json.loads((tmp_path / 'out.json').read_text()) == dict(
        easy=0.9448373912694071, medium=0.9244706568389409, hard=0.8153250447873874
    )
    assert (tmp_path / 'out.png').read_bytes().startswith(PNG)


def test_one_event_and_the_order_of_its_files(run_tool, truth, picnic):
    """Sorted by score the order makes no difference; else --file-order reads as the port does."""

    def run(*options):
        return run_tool('eval_wider_face.py', picnic, truth, *options)

    count = len(list(picnic.glob('22--Picnic/22_*.txt')))
    (picnic / '22--Picnic/other.txt').write_text('not read')
    whole, subset = run(), run('--subset')
    for done, effect in ((whole, 'counted as no detections'), (subset, 'skipped')):
        assert f'{3226 - count} images without a prediction file, {effect}' in done.stdout
        assert '1 files match no image: 22--Picnic/other.txt' in done.stdout
        assert 'warning' not in done.stdout
    assert easy(whole) < 0.1 < 0.8 < easy(subset)
    (picnic / '22--Picnic/other.txt').unlink()
    assert easy(run('--subset', '--file-order')) == easy(subset)
    rewrite(picnic, picnic, lambda count, rows: ['777', *reversed(rows)])
    done = run('--subset')
    assert f'the first of {count} files whose count differs from their rows' in done.stdout
    assert easy(done) == easy(subset) > easy(run('--subset', '--file-order'))


def test_a_malformed_row_is_one_line(run_tool, truth, picnic):
    file = sorted(picnic.glob('22--Picnic/*.txt'))[3]
    file.write_text('name\n1\n1 2 3 4')
    done = run_tool('eval_wider_face.py', picnic, truth)
    assert done.returncode == 2
    assert done.stdout.startswith(f'error: {file}:3: got 4 columns in "1 2 3 4"')
    assert done.stdout.count('\n') == 1


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--iou', '0'], 'iou_thr: got 0.0'),
        (['--images', '.'], '--images and --misses: expected both'),
        (['--plot', 'out.xyz'], '--plot: out.xyz'),
        (['--images', '.', '--misses', 'm.png'], '--images: no 22--Picnic/'),
    ],
)
def test_bad_options_are_one_line(run_tool, truth, picnic, options, words):
    done = run_tool('eval_wider_face.py', picnic, truth, *options)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith(f'error: {words}')


@pytest.mark.parametrize(
    ('convert', 'words'),
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
    run_tool, truth, picnic, tmp_path, convert, words, options
):
    def change(count, rows):
        rows = np.array([row.split() for row in rows], dtype=float).reshape(-1, 5)
        rows[:, :4] = np.column_stack(convert(*rows[:, :4].T))
        return [count, *(' '.join(map(str, row)) for row in rows.tolist())]

    done = run_tool(
        'eval_wider_face.py', rewrite(picnic, tmp_path / 'new', change), truth, *options
    )
    (line,) = re.findall('^warning: .*$', done.stdout, re.MULTILINE)
    assert re.search(rf'\d+ detections match \d+ of \d+ faces: .*{words}', line)


def test_several_detectors_their_curves_and_the_misses(
    run_tool, truth, data_root, picnic, tmp_path
):
    """The second detector is the first one without its surest quarter."""
    images = data_root / 'wider_mini/WIDER_val/images'
    small = {path.stem for path in images.rglob('*.jpg')}
    for file in picnic.glob('22--Picnic/*.txt'):
        if file.stem not in small:
            file.unlink()
    other = rewrite(
        picnic, tmp_path / 'other', lambda count, rows: [count, *rows[len(rows) // 4 :]]
    )
    plot, misses = tmp_path / 'x.png', tmp_path / 'm.png'
    done = run_tool('eval_wider_face.py', picnic, other, truth, '--subset', '--json',
                    tmp_path / 'x.json', '--plot', plot, '--images', images,
                    '--misses', misses)  # fmt: skip
    assert done.returncode == 0, done.stdout
    aps = json.loads((tmp_path / 'x.json').read_text())
    assert list(aps) == ['first', 'other']
    assert aps['first']['hard'] > aps['other']['hard']
    assert plot.read_bytes()[:4] == misses.read_bytes()[:4] == PNG


def test_needs_numpy_and_scipy_alone(repo_root, truth, picnic):
    """A process without torch, mm* and all that is not needed, in which nothing else is loaded."""
    code = (
        "import runpy, sys; blocked = ['torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'matplotlib', "
        "'PIL', 'tqdm']; sys.modules.update(dict.fromkeys(blocked)); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    tool = repo_root / 'tools/eval_wider_face.py'
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, tool, picnic, truth],
        env={**os.environ, 'PYTHONPATH': str(repo_root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ''
    assert 'hard ' in done.stdout
