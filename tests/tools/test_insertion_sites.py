"""tools/insertion_sites.py: its counts against counting by hand, and its drawing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.analysis import get_model_complexity_info

from polynl_mmdet.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('sites', ROOT / 'tools/insertion_sites.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    MODELS.register_module(module=module.Probe, force=True)
    return module


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ('position', 'stage', 'expected'),
    [
        # In the first block of a stage, conv1 still works on the larger map.
        ('after_conv1', 1, [(128, 24, 32)] + [(128, 12, 16)] * 3),
        ('after_conv2', 2, [(256, 6, 8)] * 6),
        ('after_conv3', 3, [(2048, 3, 4)] * 3),
        ('before the last block', 2, [(1024, 6, 8)]),
    ],
)
def test_sizes_are_the_backbones(tool, position, stage, expected):
    assert tool.shapes(50, position, stage, (96, 128)) == expected


def test_parameters_are_those_added_to_a_backbone(tool):
    rows = {(row[0], row[1]): row for row in tool.table({'type': 'PolyNL'}, 50, (96, 128))}
    plain = parameters(MODELS.build(dict(type='ResNet', depth=50)))
    plugin = dict(cfg=dict(type='PolyNL'), position='after_conv2')
    for index, stage in enumerate(('c2', 'c3', 'c4', 'c5')):
        stages = tuple(i == index for i in range(4))
        net = MODELS.build(dict(type='ResNet', depth=50, plugins=[dict(plugin, stages=stages)]))
        shown = float(rows['`after_conv2`', stage][5])
        assert shown == pytest.approx((parameters(net) - plain) / 1e6, abs=0.005)


@pytest.mark.parametrize(
    'layer',
    [
        {'type': 'PolyNL'},
        {'type': 'NonLocal2d', 'reduction': 2, 'mode': 'embedded_gaussian'},
        {'type': 'ContextBlock', 'ratio': 0.25},
        {'type': 'DoubleAttention'},
    ],
)
def test_operations_on_any_map_follow_from_small_ones(tool, layer):
    shape = (16, 30, 41)
    direct = get_model_complexity_info(
        MODELS.build(dict(layer, in_channels=16)),
        input_shape=shape,
        show_table=False,
        show_arch=False,
    )
    assert tool.count(layer, shape) == (direct['params'], direct['flops'])


def test_operations_of_poly_nl_are_those_of_its_form(tool):
    """Two products over the N positions, and one of C x C matrices."""
    n, c = 50 * 84, 64
    count = tool.count({'type': 'PolyNL'}, (c, 50, 84))
    assert count == (3 * c * c + 2, pytest.approx(2 * n * c * c + c**3, rel=0.01))


def test_drawing_and_bad_input(tool, tmp_path):
    out = tmp_path / 'places.svg'
    tool.main(tool.parse_args(['--plot', str(out)]))
    assert out.read_text().lstrip().startswith('<?xml')
    with pytest.raises(InputError, match='--plot'):
        tool.main(tool.parse_args(['--plot', str(tmp_path / 'no' / 'places.svg')]))
    with pytest.raises(InputError, match='HEIGHTxWIDTH'):
        tool.main(tool.parse_args(['--input', '800']))
    with pytest.raises(InputError, match='NoSuchLayer'):
        tool.count({'type': 'NoSuchLayer'}, (8, 4, 4))
