"""What `rnncore.torch` leaves to torch's own implementation: silently, and right."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import rnncore.torch
from rnncore.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, _autograd

from .torchs import parts, same, theirs

LAYERS = [RNN, LSTM, GRU]
CELLS = [RNNCell, LSTMCell, GRUCell]


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


# Other places.


def moves(kind, device):
    """What a module on a device comes to: values and gradients, packed and not, and back home."""
    module = kind(3, 4, dtype=torch.float64)
    expected = theirs(module)
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    inputs = [x[0]] if kind in CELLS else [x, pack_sequence([x[:, 0], x[:3, 1], x[:1, 2]])]
    for given in inputs:
        found = []
        for one in (module, expected):
            output = one.to(device)(given.to(device))
            output = output[0] if isinstance(output, tuple) else output
            output = output.data if isinstance(output, PackedSequence) else output
            assert output.device.type == device
            found.append([output, *torch.autograd.grad(output.sum(), list(one.parameters()))])
        if device != "meta":
            same(*found)
    return module, x


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_cuda(kind, calls):
    module, x = moves(kind, "cuda")
    assert not calls
    # Home again the kernels compute.
    found = parts(module.cpu()(x[0]))[0]
    same(found, parts(theirs(module)(x[0]))[0])
    assert len(calls) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_weights_on_one_device_and_input_on_another():
    layer, messages = GRU(3, 4).cuda(), []
    for module in (layer, theirs(layer)):
        with pytest.raises(RuntimeError) as caught:
            module(torch.randn(5, 2, 3))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_meta(kind, calls):
    before = set(_autograd._stacks)
    moves(kind, "meta")
    assert not calls
    assert set(_autograd._stacks) <= before  # which would take memory


@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_fake_tensors(kind, calls):
    x = torch.randn(5, 2, 3)
    x = x[0] if kind in CELLS else x
    expected = kind(3, 4)(x)
    assert len(calls) == 1
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = kind(3, 4)(torch.empty(x.shape))
    for fake, real in zip(parts(found), parts(expected), strict=True):
        assert type(fake) is not torch.Tensor
        assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
    assert len(calls) == 1


# Other types and ways to compute.


def test_autocast_and_half(calls):
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        same(layer(x), theirs(layer)(x), 0)
    half = copy.deepcopy(layer).bfloat16()
    same(half(x.bfloat16()), theirs(half)(x.bfloat16()), 0)
    assert not calls


@pytest.mark.parametrize("kind", LAYERS)
def test_a_module_of_another_type_keeps_no_stack(kind, calls):
    layer, x = kind(3, 4), torch.randn(5, 2, 3)
    layer(x)
    weight = layer.weight_ih_l0
    assert id(weight) in _autograd._stacks
    layer.bfloat16()(x.bfloat16())
    assert layer.weight_ih_l0 is weight
    assert id(weight) not in _autograd._stacks
    assert len(calls) == 1


@pytest.mark.parametrize("kind", LAYERS + CELLS)
@pytest.mark.parametrize("retain", [False, True])
def test_autocast_comes_too_late_for_backward(kind, retain, calls):
    module, x = kind(3, 4), torch.randn(5, 2, 3)
    x = x[0] if kind in CELLS else x
    found = []
    for autocast in (False, True):
        loss = sum(part.square().sum() for part in parts(module(x)))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in range(2 if retain else 1):
                got = torch.autograd.grad(loss, list(module.parameters()), retain_graph=retain)
        found.append(got)
    same(*found, 0)
    assert len(calls) == (4 if retain else 2)


@pytest.mark.parametrize("kind", LAYERS)
def test_transforms(kind, calls):
    layer = kind(3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    weights = dict(layer.named_parameters())

    def loss(weights):
        return torch.func.functional_call(layer, weights, (x,))[0].pow(2).sum()

    found = torch.func.grad(loss)(weights)
    assert not calls
    expected = torch.autograd.grad(layer(x)[0].pow(2).sum(), list(weights.values()))
    same(list(found.values()), expected)
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_products_with_jacobians(kind, calls):
    module = kind(3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    x = x[0] if kind in CELLS else x
    found = []
    for one in (module, theirs(module)):

        def first(x, one=one):
            output = one(x)
            return output[0] if isinstance(output, tuple) else output

        output, back = torch.func.vjp(first, x)
        products = [torch.func.jvp(first, (x,), (x.sin(),)), back(output.cos())]
        assert not calls
        products.append(torch.autograd.functional.jacobian(first, x))
        products.append(torch.autograd.functional.hvp(lambda x, f=first: f(x).sum(), x, x)[1])
        found.append(products)
        # Those were torch.autograd's, which are the kernels' as far as they go.
        assert (one is module) == bool(calls)
        calls.clear()
    same(*found)


def test_vmap_is_torchs(calls):
    layer, x = GRU(3, 4), torch.randn(6, 5, 2, 3)
    messages = []
    for module in (layer, theirs(layer)):
        # torch has none for recurrent operations.
        with pytest.raises(RuntimeError) as caught:
            torch.func.vmap(lambda x, run=module: run(x)[0])(x)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not calls


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_forward_mode(calls):
    layer, x = GRU(3, 4, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    found = []
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        for module in (layer, theirs(layer)):
            found.append(list(torch.autograd.forward_ad.unpack_dual(module(dual)[0])))
    same(*found)
    assert not calls


def test_gradients_of_many_at_once():
    layer, x = GRU(3, 4, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    found = []
    for module in (layer, theirs(layer)):
        output = module(x)[0]
        many = torch.eye(output.numel(), dtype=x.dtype).view(-1, *output.shape)
        weights = list(module.parameters())
        found.append(torch.autograd.grad(output, weights, many, is_grads_batched=True))
    same(*found)


def test_gradients_of_gradients():
    layer = LSTM(3, 4, 2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for module in (layer, theirs(layer)):
        torch.manual_seed(1)
        (dx,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        found.append(
            torch.autograd.grad(dx.pow(2).sum(), [x, *module.parameters()], allow_unused=True)
        )
    same(*found)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")
def test_scripted_and_exported():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = GRU(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    model, x = Model(), torch.randn(5, 2, 3)
    expected = model(x)
    same(torch.jit.script(copy.deepcopy(model))(x), expected, 1e-6)
    same(torch.export.export(model, (x,), strict=False).module()(x), expected, 1e-6)


@pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast:FutureWarning")  # an older torch's own
def test_checkpointing(calls):
    layer, x = GRU(3, 4, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    weights = list(layer.parameters())
    expected = torch.autograd.grad(layer(x)[0].sum(), weights)
    output, _ = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    # Nothing is kept until it is made anew, once.
    assert output.grad_fn.made[-1] is None
    assert not _autograd._bytes
    same(torch.autograd.grad(output.sum(), weights), expected, 0)
    assert len(calls) == 3
    assert not _autograd._bytes


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_what_goes_by_classes_wants_torchs():
    model, x = torch.nn.Sequential(LSTM(3, 4)), torch.randn(5, 2, 3)
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(model)
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM})
    assert type(quantized[0]) is LSTM
    expected = rnncore.torch.revert(model)(x)
    same(torch.fx.symbolic_trace(model)(x), expected, 0)
    if "fbgemm" in torch.backends.quantized.supported_engines:
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM})
        assert type(quantized[0]) is torch.ao.nn.quantized.dynamic.LSTM
