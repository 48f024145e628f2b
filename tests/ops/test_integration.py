"""The operator inside what PyTorch builds around modules."""

from __future__ import annotations

import io

import pytest
import torch
from poly_nl_cases import (
    METHODS,
    make_input,
    make_params,
    relative_error,
    with_grads,
    with_norm,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from polynl_mmdet.ops import poly_nl, poly_nl_reference
from polynl_mmdet.ops.compat import ONNX_TRACING

FULL_GRAPH = pytest.mark.skipif(
    torch.__version__ < (2, 1), reason="torch 2.0's compiler breaks the graph"
)


class Layer(nn.Module):
    """poly_nl with parameters of its own."""

    def __init__(self, method: str = 'auto', bias: bool = True, norm: bool = True) -> None:
        super().__init__()
        for index, p in enumerate(make_params(8, bias, dtype=torch.float32)):
            self.register_parameter(f'p{index}', None if p is None else nn.Parameter(p.detach()))
        self.norm = nn.LayerNorm(8) if norm else None
        self.method = method

    def forward(self, x):
        params = [getattr(self, f'p{index}') for index in range(8)]
        return poly_nl(x, *params, context_norm=self.norm, method=self.method)


def make_x(*shape, **kwargs):
    return make_input(shape, dtype=torch.float32, **kwargs)


def close(a, b):
    return relative_error(a, b) < 1e-5


@FULL_GRAPH
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(('bias', 'norm'), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize('method', METHODS[:2])
def test_compile_in_one_graph(method, bias, norm, layout):
    torch._dynamo.reset()
    compiled = torch.compile(with_norm(poly_nl, method=method), fullgraph=True, backend='aot_eager')
    x, params = make_x(2, 8, 9, 10, layout=layout), make_params(8, bias, norm, torch.float32)
    grad = make_x(2, 8, 9, 10, seed=7).detach()
    found = with_grads(compiled, x, params, grad)
    exact = with_grads(with_norm(poly_nl_reference), x, params, grad)
    assert all(close(a, b) for a, b in zip(found, exact))
    with torch.no_grad():
        assert close(compiled(x, *params), exact[0])


@FULL_GRAPH
def test_compile_with_changing_sizes():
    torch._dynamo.reset()
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend='aot_eager')
    for shape in ((2, 8, 9, 10), (1, 8, 30, 17), (3, 8, 2, 2)):
        assert close(compiled(make_x(*shape)).detach(), layer(make_x(*shape)).detach())


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.filterwarnings('error::torch.jit.TracerWarning')
def test_jit_trace_holds_for_other_sizes(method, norm):
    layer, file = Layer(method, norm=norm), io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, make_x(2, 8, 9, 10).detach()), file)
    file.seek(0)
    loaded, x = torch.jit.load(file), make_x(1, 8, 5, 31)
    assert close(loaded(x), layer(x))
    found, expected = (
        torch.autograd.grad(module(x).square().sum(), x)[0] for module in (loaded, layer)
    )
    assert close(found, expected)


@pytest.mark.skipif(torch.__version__ < (2, 2), reason='torch.export.Dim is of torch 2.2')
@pytest.mark.parametrize('norm', [False, True])
def test_export_with_dynamic_sizes(norm):
    layer = Layer(norm=norm)
    batch, height, width = (torch.export.Dim(n, min=2, max=99) for n in ('b', 'h', 'w'))
    program = torch.export.export(
        layer,
        (make_x(2, 8, 9, 10).detach(),),
        dynamic_shapes=({0: batch, 2: height, 3: width},),
    )
    other = make_x(3, 8, 5, 31).detach()
    assert close(program.module()(other), layer(other))


@pytest.mark.parametrize('norm', [False, True])
def test_onnx_tracing_export(norm):
    onnx = pytest.importorskip('onnx')
    layer, file = Layer(norm=norm).eval(), io.BytesIO()
    torch.onnx.export(
        layer,
        (make_x(2, 8, 9, 10).detach(),),
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

    other = make_x(1, 8, 5, 31).detach()
    (found,) = ReferenceEvaluator(model).run(None, {'x': other.numpy()})
    assert close(torch.from_numpy(found), layer(other).detach())


@pytest.mark.parametrize('reentrant', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_activation_checkpointing(method, reentrant):
    layer, x = Layer(method), make_x(2, 8, 9, 10)
    leaves = (x, *layer.parameters())
    plain = torch.autograd.grad(layer(x).square().sum(), leaves)
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    assert all(close(found.grad, expected) for found, expected in zip(leaves, plain))


def _replica(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    layer = nn.parallel.DistributedDataParallel(Layer('moments'))
    x = make_x(4, 8, 9, 10).detach()[2 * rank : 2 * rank + 2]
    layer(x).square().mean().backward()
    torch.save([p.grad for p in layer.parameters()], f'{folder}/{rank}.pt')
    del layer
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(tmp_path):
    torch.multiprocessing.start_processes(_replica, (str(tmp_path),), nprocs=2, start_method='fork')
    layer = Layer('moments')
    layer(make_x(4, 8, 9, 10).detach()).square().mean().backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert all(close(grad, p.grad) for grad, p in zip(found, layer.parameters()))


def test_inference_mode_and_frozen_parameters():
    layer, x = Layer(), make_x(2, 8, 9, 10).detach()
    with torch.inference_mode():
        z = layer(x)
    assert close(z, layer(x).detach())
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    assert layer(x.requires_grad_()).requires_grad
