"""Figures of README, docs and metafiles are those that stored results and stated commands give."""

from __future__ import annotations

import json
import re
import sys

import pytest
from doc_pages import PAGES, ROOT, commands
from mmengine.fileio import load as load_yaml

sys.path.insert(0, str(ROOT))

from benchmarks import coco_metric, far_cue_detection, layer_networks, layers, pyramid_levels
from benchmarks.measure import markdown
from benchmarks.real_images_tables import print_scores

README = (ROOT / 'README.md').read_text(encoding='utf-8')
# What tools/demo_report.py printed after each demo.
DEMOS = json.loads((ROOT / 'docs/demo_figures.json').read_text(encoding='utf-8'))
SHAPES = DEMOS['mask-rcnn_r18-polynl-site-c4_fpn_toy-coco']
FACES = DEMOS['retinaface_r18-polynl-site-c4_merge-fpn_toy-wider']
# Commands of the documentation that print tables which their page shows.
PRINTING = [
    command
    for page in PAGES
    for command in commands(page)
    if '--table' in command.words or command.text == 'python tools/insertion_sites.py'
]


def tables(text):
    """Markdown tables of a text: lists of rows, each a tuple of cells, the header first."""
    found = []
    for block in re.findall(r'(?:^\|.*\|$\n?)+', text, flags=re.MULTILINE):
        rows = [[' '.join(cell.split()) for cell in line[1:-1].split('|')]
                for line in block.splitlines()]  # fmt: skip
        found.append([tuple(row) for row in rows if set(''.join(row)) - set('-:')])
    return found


def table_of(page, *columns):
    """Rows of the first table of a page with these columns, as dicts by column."""
    for header, *rows in tables((ROOT / page).read_text(encoding='utf-8')):
        if set(columns) <= set(header):
            return [dict(zip(header, row)) for row in rows]
    raise AssertionError(f'{page} has no table with the columns {columns}')


def agrees(shown, value):
    """Whether a figure, as text, is ``value`` rounded to its digits (or to those of a page)."""
    digits = len(shown.partition('.')[2])
    return abs(float(shown) - value) <= 0.55 * 10**-digits


def check_tables(page, text, source):
    """Check that a page shows every table of a text, cell by cell."""
    printed, shown = tables(text), tables((ROOT / page).read_text(encoding='utf-8'))
    assert printed, f'{source} gives no table'
    for table in printed:
        alike = [other for other in shown if other[0] == table[0]]
        differences = [set(table) ^ set(other) for other in alike]
        assert table in alike, (
            f'{page} differs from {source}: {min(differences, key=len, default=table)}'
        )


def print_layers(report):
    """Print the tables of benchmarks/layers.py: layers at two sites, exponents, networks."""
    for shape in dict.fromkeys(tuple(row['shape']) for row in report['sites']):
        layers.show([row for row in report['sites'] if tuple(row['shape']) == shape], '')
    columns = ('forward', 'step', 'peak')
    exponents = [
        [name, f'{line["from"]:,} to {line["to"]:,}', *(f'{line[key]:.2f}' for key in columns)]
        for name, line in report['exponents'].items()
    ]
    print('\n' + markdown(['', 'N', *columns], exponents))
    layer_networks.show(report['networks'])


# Stored results whose scripts print their tables only after a measurement.
WITHOUT_COMMAND = {
    'docs/layers.json': ('docs/comparison.md', print_layers),
    'docs/far_cue_detection.json': (
        'docs/comparison.md',
        lambda report: print(far_cue_detection.table(report)),
    ),
    'docs/real_images.json': (
        'docs/real_images.md',
        lambda report: [print_scores(*item) for item in report['scores'].items()],
    ),
    'docs/coco_metric.json': ('docs/coco.md', lambda report: print(coco_metric.table(report))),
    'docs/pyramid_levels.json': (
        'docs/where_to_insert.md',
        lambda report: print(pyramid_levels.table(report['levels'], pyramid_levels.LEVELS)),
    ),
}


def test_pages_show_what_commands_print(tool_server):
    for command in PRINTING:
        status, output = tool_server.run(argv=list(command.words[1:]), cwd=str(ROOT))
        assert status == 0, f'{command.text}: {output[-2000:]}'
        check_tables(command.where.partition(':')[0], output, command.text)


@pytest.mark.parametrize('path', WITHOUT_COMMAND)
def test_pages_show_what_is_stored(path, capsys):
    page, show = WITHOUT_COMMAND[path]
    show(json.loads((ROOT / path).read_text(encoding='utf-8')))
    check_tables(page, capsys.readouterr().out, path)


def test_every_stored_result_is_shown():
    named = {word for command in PRINTING for word in command.words if word.endswith('.json')}
    stored = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'docs').glob('*.json')}
    assert stored == {*named, *WITHOUT_COMMAND, 'docs/demo_figures.json'}


def test_readme_has_the_operators_figures():
    ratios = {row['']: row for row in table_of('docs/benchmarks.md', 'geometric mean')}
    shown = re.search(
        r'([\d.]+) x as fast forward, ([\d.]+) x with backward; '
        r'channels last ([\d.]+) x and ([\d.]+) x',
        README,
    ).groups()
    rivals = ('conv2d / auto', 'conv2d, channels last / auto, channels last')
    for i, rival in enumerate(rivals):
        for j, quantity in enumerate(('forward', 'step')):
            row = ratios[f'N >= 16 C: {quantity}, {rival}']
            assert agrees(shown[2 * i + j], float(row['geometric mean']))
    rows = table_of('docs/benchmarks.md', 'NonLocal2d, embedded')
    (row,) = [row for row in rows if row['B x C x H x W'] == '1 x 256 x 50 x 84']
    (times,) = re.findall(r'50 x 84 positions, C = 256 \| ([\d.]+) x as fast', README)
    assert agrees(times, float(row['NonLocal2d, embedded']) / float(row['auto']))


def test_readme_has_the_counts_of_one_layer():
    rows = table_of('docs/where_to_insert.md', 'M parameters', 'G multiply-adds')
    (row,) = [
        row for row in rows if (row['place'], row['stage']) == ('before the last block', 'c4')
    ]
    parameters, operations = re.search(
        r'([\d.]+) M parameters, ([\d.]+) G multiply', README
    ).groups()
    assert agrees(parameters, float(row['M parameters']))
    assert agrees(operations, float(row['G multiply-adds']))


def test_readme_has_the_difference_on_real_images():
    scores = json.loads((ROOT / 'docs/real_images.json').read_text(encoding='utf-8'))['scores']
    shown = re.search(r'People in photographs.*?\| ([^|]+) \|', README)[1]
    expected = []
    for part in ('person/val', 'person/pedestrians_val', 'face/masks_val'):
        (found,) = [value for name, value in scores.items() if name.startswith(f'{part}-')]
        mean, low, high = found['difference']['PolyNL-LN']['bbox AP']
        expected.append(f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]')
    assert re.findall(r'[+-][\d.]+ \[[^]]+\]', shown) == expected


def test_demo_figures():
    """README, docs/wider_face.md and the metafile against docs/demo_figures.json."""
    masks = re.findall(r'[Mm]ask AP50[^|:]*[|:] (0\.\d+)', README)
    assert len(masks) == 2
    assert all(agrees(shown, SHAPES['mask AP50']) for shown in masks)
    faces = [FACES[f'{setting} AP'] for setting in ('Easy', 'Medium', 'Hard')]
    for page in ('README.md', 'docs/wider_face.md'):
        (line,) = re.findall(r'^\| `make demo-face`.*$', (ROOT / page).read_text(), re.MULTILINE)
        shown = re.search(r'([\d.]+) / ([\d.]+) / ([\d.]+)', line).groups()
        assert all(map(agrees, shown, faces)), f'{page}: {shown}'
    assert agrees(re.search(r'landmark error of ([\d.]+) ', line)[1], FACES['landmark error'])
    assert agrees(re.search(r'([\d.]+) false boxes', line)[1], FACES['false boxes an image'])


@pytest.mark.parametrize('name', DEMOS)
def test_metafile_has_the_demos_figures(name):
    metafile = load_yaml(ROOT / 'configs/demo/metafile.yml')
    (model,) = [model for model in metafile['Models'] if model['Name'] == name]
    shown = {k: v for result in model['Results'] for k, v in result['Metrics'].items()}
    assert shown
    for metric, value in shown.items():
        assert agrees(str(value), 100 * DEMOS[name][metric]), metric
