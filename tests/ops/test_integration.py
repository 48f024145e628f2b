"""The operator inside what PyTorch builds around modules."""

from __future__ import annotations

import io

import pytest
import torch
from poly_nl_cases import make_input, make_params, relative_error, with_grads, with_norm
from torch import nn
from torch.utils.checkpoint import checkpoint

from polynl_mmdet.ops import poly_nl, poly_nl_reference
from polynl_mmdet.ops.compat import ONNX_TRACING

METHODS = ('projections', 'moments', 'auto')
FULL_GRAPH = pytest.mark.skipif(
    torch.__version__ < (2, 1), reason="torch 2.0's compiler breaks the graph"
)


class Layer(nn.Module):
    """poly_nl with parameters of its own."""

    def __init__(
        self, channels: int, method: str = 'auto', bias: bool = False, norm: bool = False
    ) -> None:
        super().__init__()
        params = make_params(channels, (bias,) * 3, dtype=torch.float32)
        names = ('w1', 'w2', 'w3', 'alpha', 'beta', 'b1', 'b2', 'b3')
        for name, p in zip(names, params):
            self.register_parameter(name, None if p is None else nn.Parameter(p.detach()))
        self.norm = nn.LayerNorm(channels) if norm else None
        self.method = method

    def forward(self, x):
        weights = (self.w1, self.w2, self.w3, self.alpha, self.beta)
        biases = (self.b1, self.b2, self.b3)
        return poly_nl(x, *weights, *biases, context_norm=self.norm, method=self.method)


def close(a, b):
    return relative_error(a, b) < 1e-5


@FULL_GRAPH
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(('bias', 'norm'), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize('method', ['projections', 'moments'])
def test_compile_in_one_graph(method, bias, norm, channels_last):
    torch._dynamo.reset()
    compiled = torch.compile(with_norm(poly_nl, method=method), fullgraph=True, backend='aot_eager')
    x = make_input((2, 8, 9, 10), 'channels_last' if channels_last else 'contiguous', torch.float32)
    params = make_params(8, (bias,) * 3, torch.float32, norm=norm)
    grad = make_input((2, 8, 9, 10), dtype=torch.float32, seed=7).detach()
    found = with_grads(compiled, x, params, grad)
    exact = with_grads(with_norm(poly_nl_reference), x, params, grad)
    assert all(close(a, b) for a, b in zip(found, exact))
    with torch.no_grad():
        assert close(compiled(x, *params), exact[0])


@FULL_GRAPH
def test_compile_with_changing_sizes():
    torch._dynamo.reset()
    layer = Layer(8, norm=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend='aot_eager')
    for shape in ((2, 8, 9, 10), (1, 8, 30, 17), (3, 8, 2, 2)):
        x = make_input(shape, dtype=torch.float32)
        assert close(compiled(x).detach(), layer(x).detach())


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.filterwarnings('error::torch.jit.TracerWarning')
def test_jit_trace_holds_for_other_sizes(method, norm):
    layer = Layer(8, method, bias=True, norm=norm)
    traced = torch.jit.trace(layer, make_input((2, 8, 9, 10), dtype=torch.float32).detach())
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    x = make_input((1, 8, 5, 31), dtype=torch.float32)
    expected = layer(x)
    assert close(loaded(x), expected)
    found = torch.autograd.grad(loaded(x).square().sum(), x)[0]
    assert close(found, torch.autograd.grad(expected.square().sum(), x)[0])


@pytest.mark.skipif(torch.__version__ < (2, 2), reason='torch.export.Dim is of torch 2.2')
@pytest.mark.parametrize('norm', [False, True])
def test_export_with_dynamic_sizes(norm):
    layer = Layer(8, bias=True, norm=norm)
    x = make_input((2, 8, 9, 10), dtype=torch.float32).detach()
    batch, height, width = (torch.export.Dim(n, min=2, max=99) for n in ('b', 'h', 'w'))
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch, 2: height, 3: width},))
    other = make_input((3, 8, 5, 31), dtype=torch.float32).detach()
    assert close(program.module()(other), layer(other))


@pytest.mark.parametrize('norm', [False, True])
def test_onnx_tracing_export(norm):
    onnx = pytest.importorskip('onnx')
    layer = Layer(8, bias=True, norm=norm).eval()
    x = make_input((2, 8, 9, 10), dtype=torch.float32).detach()
    file = io.BytesIO()
    torch.onnx.export(
        layer,
        (x,),
        file,
        **ONNX_TRACING,
        input_names=['x'],
        output_names=['z'],
        dynamic_axes={'x': [0, 2, 3]},
    )
    model = onnx.load_model_from_string(file.getvalue())
    onnx.checker.check_model(model)
    assert all(node.domain == '' for node in model.graph.node)
    from onnx.reference import ReferenceEvaluator

    other = make_input((1, 8, 5, 31), dtype=torch.float32).detach()
    (found,) = ReferenceEvaluator(model).run(None, {'x': other.numpy()})
    assert close(torch.from_numpy(found), layer(other).detach())


@pytest.mark.parametrize('reentrant', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_activation_checkpointing(method, reentrant):
    layer = Layer(8, method, norm=True)
    x = make_input((2, 8, 9, 10), dtype=torch.float32)
    plain = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))
    out = checkpoint(layer, x, use_reentrant=reentrant)
    out.square().sum().backward()
    for found, expected in zip((x, *layer.parameters()), plain):
        assert close(found.grad, expected)


def _replica(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    _save_replica_grads(rank, folder)
    torch.distributed.destroy_process_group()


def _save_replica_grads(rank, folder):
    layer = nn.parallel.DistributedDataParallel(Layer(8, 'moments', bias=True, norm=True))
    x = make_input((4, 8, 9, 10), dtype=torch.float32).detach()[2 * rank : 2 * rank + 2]
    layer(x).square().mean().backward()
    torch.save([p.grad for p in layer.parameters()], f'{folder}/{rank}.pt')


def test_distributed_data_parallel(tmp_path):
    torch.multiprocessing.spawn(_replica, (str(tmp_path),), nprocs=2)
    layer = Layer(8, 'moments', bias=True, norm=True)
    layer(make_input((4, 8, 9, 10), dtype=torch.float32).detach()).square().mean().backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert all(close(grad, p.grad) for grad, p in zip(found, layer.parameters()))


def test_inference_mode_and_frozen_parameters():
    layer, x = Layer(8), make_input((2, 8, 9, 10), dtype=torch.float32).detach()
    with torch.inference_mode():
        z = layer(x)
    assert close(z, layer(x).detach())
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    assert layer(x.requires_grad_()).requires_grad
