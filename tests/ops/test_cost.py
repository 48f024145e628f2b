"""The choice between the forms."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from polynl_mmdet.errors import InputError
from polynl_mmdet.ops import measured_rates, poly_nl
from polynl_mmdet.ops.cost import RATES, cheaper_method, seconds
from polynl_mmdet.ops.measured_rates import rates_file, store_rates

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('device', ['cpu', 'cuda', 'xpu'])
@pytest.mark.parametrize('grad', [False, True])
def test_many_positions_take_covariance_and_few_take_literal(dtype, device, grad):
    assert cheaper_method((1, 256, 100, 168), dtype, device, grad) == 'covariance'
    assert cheaper_method((1, 2048, 5, 5), dtype, device, grad) == 'literal'


@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('method', ['literal', 'covariance'])
def test_time_grows_with_every_axis(method, grad):
    def time(*shape):
        return seconds(method, shape, torch.float32, 'cpu', grad)

    base = time(2, 64, 30, 40)
    assert time(4, 64, 30, 40) > base
    assert time(2, 128, 30, 40) > base
    assert time(2, 64, 60, 40) > base


def test_no_gradient_costs_less():
    shape = (2, 64, 30, 40)
    for method in ('literal', 'covariance'):
        assert seconds(method, shape, torch.float32, 'cpu', False) < seconds(
            method, shape, torch.float32, 'cpu', True
        )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Rates in a folder of the test's."""
    monkeypatch.setenv('POLYNL_CACHE', str(tmp_path))
    measured_rates._read.cache_clear()
    yield tmp_path
    measured_rates._read.cache_clear()


def test_measured_rates_decide_instead_of_the_table(cache, monkeypatch):
    shape = (1, 64, 40, 40)
    asked = torch.float32, 'cpu', False
    find = measured_rates.rates_in_use
    assert cheaper_method(shape, *asked) == 'covariance'
    assert find('cpu', torch.float32, 'torch') is RATES['cpu', torch.float32]
    measured_rates._read.cache_clear()
    slow_moments = RATES['cpu', torch.float32]._replace(second_moment=10.0)
    assert store_rates('cpu', 'torch', {torch.float32: slow_moments}) == rates_file()
    store_rates('cpu', 'torch', {torch.float64: RATES['cpu', torch.float64]})
    assert rates_file().parent == cache
    assert find('cpu', torch.float32, 'torch') == slow_moments
    assert find('cpu', torch.float32, 'onednn') is RATES['onednn', torch.float32]
    assert find('xpu', torch.float32, 'torch') is RATES['cuda', torch.float32]
    assert cheaper_method(shape, *asked, slow_moments) == 'literal'

    module = import_module('polynl_mmdet.ops.poly_nl')
    module._cached_method.cache_clear()
    monkeypatch.setattr(module, 'library_in_use', lambda kind: 'torch')
    used = []
    literal = module.FORMS['literal'].context
    monkeypatch.setattr(
        module.FORMS['literal'], 'context', lambda *args: used.append(1) or literal(*args)
    )
    weights = [torch.eye(64)] * 3
    with torch.no_grad():
        poly_nl(torch.ones(shape), *weights, torch.ones(1), torch.ones(1))
    module._cached_method.cache_clear()
    assert used


@pytest.mark.parametrize('text', ['', '[]', '{"GPU": {"torch.float32": [1, 2]}}', '{"GPU": 3}'])
def test_a_file_of_other_rates_is_refused(cache, text):
    rates_file().write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=r'rates\.json: no rates of the cost model; delete it'):
        measured_rates.rates_in_use('cpu', torch.float32, 'torch')
