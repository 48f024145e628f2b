"""Products by oneDNN, and the choice between it and PyTorch's own library."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from forks import without_notice
from poly_nl_cases import make_input, make_params, relative_errors, with_grads, with_norm
from torch.utils.flop_counter import FlopCounterMode

from polynl_mmdet.ops import (
    cpu_library,
    poly_nl,
    poly_nl_reference,
    product_library,
    set_product_library,
)

CHANNELS = 256  # as many as it takes at these few positions


@pytest.fixture
def onednn():
    """Products by oneDNN for the length of a test."""
    try:
        cpu_library.onednn_product(torch.ones(2, 3), torch.ones(4, 3))
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f'no oneDNN: {error}')
    before = cpu_library._requested
    set_product_library('onednn')
    yield
    set_product_library(before)


@pytest.mark.usefixtures('onednn')
@pytest.mark.parametrize('make', [
    lambda: torch.randn(6, 9)[:, 1:8],
    lambda: torch.randn(7, 12)[:, ::2].t(),
    lambda: torch.randn(1, 7).expand(6, 7),
    lambda: torch.ones(()).expand(6, 7),
], ids=['crop', 'steps', 'rows', 'one number'])  # fmt: skip
def test_onednn_is_given_no_second_operand_with_gaps(make, monkeypatch):
    """It takes hundreds of times as long with one."""
    given = []
    product = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn,
        '_linear_pointwise',
        lambda a, b, *rest: given.append(b) or product(a, b, *rest),
    )
    a, b = torch.randn(5, 7), make()
    torch.testing.assert_close(cpu_library.onednn_product(a, b), a @ b.t())
    assert given[0].is_contiguous()


@pytest.mark.usefixtures('onednn')
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'cropped'])
@pytest.mark.parametrize('method', ['literal', 'covariance'])
@pytest.mark.parametrize('batch', [1, 2])
def test_results_and_gradients(batch, method, layout, monkeypatch):
    called = []
    for user in ('products.onednn_product', 'products.onednn_moment', 'literal.onednn_moment'):
        original = getattr(cpu_library, user.split('.')[1])
        monkeypatch.setattr(
            f'polynl_mmdet.ops.{user}',
            lambda a, b, f=original: called.append(a.shape) or f(a, b),
        )
    x = make_input((batch, CHANNELS, 9, 23), layout, torch.float32)
    params = make_params(CHANNELS, (True,) * 3, torch.float32, norm=True)
    grad = make_input(x.shape, dtype=torch.float32, seed=7).detach()
    found = with_grads(with_norm(poly_nl, method=method), x, params, grad)
    assert len(called) > 4
    wide = [p.detach().double().requires_grad_() for p in params]
    wide_x = x.detach().double().requires_grad_()
    exact = with_grads(with_norm(poly_nl_reference), wide_x, wide, grad.double())
    for name, error in relative_errors(found, exact, x, grad).items():
        assert error < 1e-5, name
    assert found[0].stride() == poly_nl(x.detach(), *params[:8], method=method).stride()


@pytest.mark.usefixtures('onednn')
@pytest.mark.parametrize(
    ('dtype', 'channels'), [(torch.float32, 64), (torch.float64, 256), (torch.bfloat16, 256)]
)
def test_small_products_and_other_types_stay_with_torch(dtype, channels, monkeypatch):
    monkeypatch.setattr('polynl_mmdet.ops.products.onednn_product', None)
    monkeypatch.setattr('polynl_mmdet.ops.literal.onednn_moment', None)
    params = make_params(channels, dtype=dtype)
    poly_nl(
        make_input((1, channels, 5, 7), dtype=dtype), *params, method='literal'
    ).sum().backward()


@pytest.mark.usefixtures('onednn')
def test_a_counter_of_operations_sees_them_all():
    x = make_input((1, CHANNELS, 20, 20), dtype=torch.float32).detach()
    params = make_params(CHANNELS, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        poly_nl(x, *params, method='literal')
    assert counter.get_total_flops() == 3 * 2 * 400 * CHANNELS**2


@pytest.mark.parametrize(
    ('seconds', 'faster'), [((3, 2), 'onednn'), ((3, 2.9), 'torch'), ((2, 3), 'torch')]
)
def test_onednn_is_taken_where_it_is_clearly_faster(seconds, faster, monkeypatch):
    """Each run lasts as long as said, by a clock of our own."""
    now = [0.0]
    monkeypatch.setattr(cpu_library.time, 'perf_counter', lambda: now[0])

    def lasting(length):
        return lambda a, b: now.__setitem__(0, now[0] + length)

    monkeypatch.setattr(cpu_library.torch, 'mm', lasting(seconds[0]))
    monkeypatch.setattr(cpu_library, 'onednn_product', lasting(seconds[1]))
    assert cpu_library._faster_library.__wrapped__() == faster


def test_a_build_without_the_operator_uses_torch(monkeypatch):
    def missing(a, b):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(cpu_library, 'onednn_product', missing)
    assert cpu_library._faster_library.__wrapped__() == 'torch'


def test_the_choice_is_made_once_and_can_be_handed_on(monkeypatch):
    calls = []
    original = cpu_library._faster_library.__wrapped__
    monkeypatch.setattr(
        cpu_library, '_faster_library', cpu_library.lru_cache(lambda: calls.append(1) or original())
    )
    monkeypatch.setattr(cpu_library, '_requested', 'auto')
    state = torch.get_rng_state()
    assert product_library() == product_library()
    assert len(calls) == 1
    assert torch.equal(torch.get_rng_state(), state)
    set_product_library(product_library())
    assert cpu_library._requested in ('torch', 'onednn')


def test_nothing_is_measured_while_a_graph_is_made(monkeypatch):
    monkeypatch.setattr(cpu_library, '_requested', 'auto')

    def never():
        raise AssertionError('measured')

    monkeypatch.setattr(cpu_library, '_faster_library', never)
    params = [None if p is None else p.detach() for p in make_params(CHANNELS, dtype=torch.float32)]
    x = make_input((1, CHANNELS, 5, 7), dtype=torch.float32).detach()

    class Layer(torch.nn.Module):
        def forward(self, x):
            return poly_nl(x, *params)

    torch.jit.trace(Layer(), x, check_trace=False)
    torch.export.export(Layer(), (x,))
    torch._dynamo.reset()
    torch.compile(Layer(), backend='aot_eager', fullgraph=True)(x)
    with pytest.raises(AssertionError, match='measured'):
        poly_nl(x, *params)


@pytest.mark.parametrize('name', ['torch', 'mkl'])
def test_the_environment_variable(name, repo_root):
    done = subprocess.run(
        [sys.executable, '-c', 'from polynl_mmdet.ops import product_library as p; print(p())'],
        env={'POLYNL_PRODUCTS': name, 'PYTHONPATH': str(repo_root), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    if name == 'torch':
        assert without_notice(done).stdout == 'torch\n'
    else:
        assert "product library 'mkl' (from POLYNL_PRODUCTS" in done.stderr
        assert done.stderr.strip().endswith('accepted: auto, torch, onednn')
