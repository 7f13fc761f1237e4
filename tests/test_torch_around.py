"""What torch's users do around modules: parametrize, prune, hook, share, move and trace them."""

import copy

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune

import rnncore.torch
from rnncore.torch import (
    GRU,
    LSTM,
    GRUCell,
    LSTMCell,
    RNNCell,
    _autograd,
    functional,
)

from .torchs import same, theirs

LAYERS = ["RNN", "LSTM", "GRU"]
DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def step(module, x):
    """Outputs, and the gradients of every parameter by name."""
    output = module(x)[0]
    names, weights = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.pow(2).sum(), weights, allow_unused=True)
    return output, dict(zip(names, gradients, strict=True))


def compare(ours, expected, x):
    torch.testing.assert_close(step(ours, x), step(expected, x), rtol=1e-9, atol=1e-9)


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


CHANGES = {
    "weight norm": lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
    "spectral norm": lambda m: parametrizations.spectral_norm(m, "weight_ih_l0").eval(),
    "orthogonal": lambda m: parametrizations.orthogonal(m, "weight_hh_l0"),
    "parametrization": lambda m: parametrize.register_parametrization(m, "weight_ih_l0", Doubled()),
    "pruning": lambda m: prune.l1_unstructured(m, "weight_hh_l0", amount=0.5),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_weights_that_are_computed(change, calls):
    x = torch.randn(5, 2, 4, **DOUBLE)
    pair = []
    for kind in (LSTM, torch.nn.LSTM):
        torch.manual_seed(3)
        module = kind(4, 4, **DOUBLE)
        change(module)
        pair.append(module)
    compare(*pair, x)
    for module in pair:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.5)
    compare(*pair, x)
    assert len(calls) == 2


def test_computed_weights_leave_no_stacks():
    layer = GRU(4, 4)
    parametrize.register_parametrization(layer, "weight_ih_l0", Doubled())
    before = len(_autograd._stacks)
    for _ in range(5):
        layer(torch.randn(5, 2, 4))
    assert len(_autograd._stacks) <= before + 1


@pytest.mark.parametrize("name", LAYERS)
def test_hooks(name, calls):
    layer = getattr(rnncore.torch, name)(3, 4)
    x, found = torch.randn(5, 2, 3, requires_grad=True), []
    for module in (layer, theirs(layer)):
        seen = []
        module.register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
        module.register_forward_hook(lambda _, args, out, seen=seen: seen.append((args, out)))
        module.register_full_backward_hook(lambda _, dx, dy, seen=seen: seen.append((dx, dy)))
        module.weight_hh_l0.register_hook(lambda g, seen=seen: seen.append(g))
        module(x)[0].sum().backward()
        assert len(seen) == 3
        found.append(seen)
    same(*found, 1e-6)
    assert len(calls) == 1


def test_shared_and_moved(calls):
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    expected = layer(x)[0]
    layer.flatten_parameters()
    layer.share_memory()
    torch.testing.assert_close(layer(x)[0], expected)
    assert layer.to(torch.float64)(x.double())[0].dtype is torch.float64
    torch.testing.assert_close(layer.to("cpu", torch.float32)(x)[0], expected)
    torch.testing.assert_close(layer.to("meta").to_empty(device="cpu")(x)[0].shape, expected.shape)
    assert len(calls) == 5


@pytest.mark.parametrize("name", LAYERS)
def test_flattened_parameters_stay(name):
    layer = getattr(rnncore.torch, name)(3, 4, 2)
    x = torch.randn(5, 2, 3)
    before, parameters = layer(x)[0], list(layer.parameters())
    layer.flatten_parameters()
    assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
    assert torch.equal(layer(x)[0], before)
    # Weights of another type, and weights that were exchanged, are seen.
    doubled = layer.double()
    same(doubled(x.double())[0], theirs(doubled)(x.double())[0])
    layer.weight_hh_l0 = torch.nn.Parameter(torch.zeros_like(layer.weight_hh_l0))
    layer.flatten_parameters()
    same(layer(x.double())[0], theirs(layer)(x.double())[0])


def test_weights_given_from_outside(calls):
    layer, x = LSTM(3, 4, 2, **DOUBLE), torch.randn(5, 2, 3, **DOUBLE)
    weights = {k: torch.randn_like(v).requires_grad_() for k, v in layer.named_parameters()}
    found = []
    for module in (layer, theirs(layer)):
        output = torch.func.functional_call(module, weights, (x,))[0]
        found.append((output, torch.autograd.grad(output.sum(), list(weights.values()))))
    same(*found)
    # They did not stay.
    same(layer(x), theirs(layer)(x))
    assert len(calls) == 2


def put(layer, name, weight):
    """Exchange a parameter unseen, as torch.func.functional_call does."""
    layer._parameters[name] = weight


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: None,
        lambda layer: put(layer, "bias_hh_l0", torch.nn.Parameter(torch.zeros(16))),
        lambda layer: put(layer, "weight_ih_l0", torch.zeros(16, 3)),
        lambda layer: put(layer, "weight_hh_l0", None),
        lambda layer: delattr(layer, "weight_hh_l0"),
        lambda layer: layer.double(),
        *CHANGES.values(),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_are_known_by_what_torch_knows_them(change):
    layer = LSTM(3, 4)
    change(layer)
    assert layer._weights_have_changed() is torch.nn.LSTM._weights_have_changed(layer)


def attributes(cell):
    """What is found under the names of a cell's weights, or the error."""
    found = []
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        try:
            found.append(getattr(cell, name))
        except AttributeError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("kind", [RNNCell, LSTMCell, GRUCell])
@pytest.mark.parametrize(
    "change",
    [
        lambda cell: None,
        lambda cell: setattr(cell, "bias_hh", None),
        lambda cell: delattr(cell, "weight_ih"),
        lambda cell: put(cell, "weight_hh", torch.ones(1)),
        lambda cell: torch.nn.utils.weight_norm(cell, "weight_hh"),
        lambda cell: parametrize.register_parametrization(cell, "weight_ih", Doubled()),
        lambda cell: prune.l1_unstructured(cell, "weight_hh", amount=0.5),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cell_has_its_weights_where_torch_has_them(kind, change):
    assert not any(hasattr(kind, name) for name in ("weight_ih", "bias_hh"))
    for bias in (True, False):
        cell = kind(3, 4, bias)
        expected = getattr(torch.nn, kind.__name__)(3, 4, bias)
        expected.load_state_dict(cell.state_dict())
        for module in (cell, expected):
            torch.manual_seed(1)
            change(module)
        for found, weight in zip(attributes(cell), attributes(expected), strict=True):
            assert type(found) is type(weight)
            is_tensor = isinstance(weight, torch.Tensor)
            assert torch.equal(found, weight) if is_tensor else found == weight


def test_data_parallel(calls):
    layer, x = GRU(3, 4), torch.randn(5, 2, 3)
    # Without devices it calls the module itself.
    torch.testing.assert_close(torch.nn.DataParallel(layer)(x), layer(x))
    assert len(calls) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning:torch")
def test_traced(calls):
    layer, x = GRU(3, 4), torch.randn(5, 2, 3)
    cell, h = LSTMCell(3, 4), (torch.randn(2, 4), torch.randn(2, 4))
    traced = [
        torch.jit.trace(module, given, check_trace=False)
        for module, given in ((layer, (x,)), (cell, (x[0], h)))
    ]
    assert not calls
    torch.testing.assert_close(traced[0](x), layer(x))
    torch.testing.assert_close(traced[1](x[0], h), cell(x[0], h))


def test_modes_that_watch(calls):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names = []
    layer, x = GRU(3, 4), torch.randn(5, 2, 3)
    with Names():
        found = layer(x)
    assert names
    assert not calls
    torch.testing.assert_close(found, layer(x))


def test_numbers_that_are_not_in_memory(calls):
    layer = GRU(3, 4, **DOUBLE)
    negated = torch.randn(5, 2, 3, dtype=torch.complex128).conj().imag
    assert negated.is_neg()
    twin = theirs(layer)
    torch.testing.assert_close(layer(negated), twin(negated))
    sparse = torch.randn(5, 3, **DOUBLE).to_sparse()
    messages = []
    for module in (layer, twin):
        with pytest.raises((RuntimeError, NotImplementedError)) as caught:
            module(sparse)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not calls
    # A gradient of this kind, too.
    x = torch.randn(5, 2, 3, **DOUBLE)
    weight = torch.randn(5, 2, 4, dtype=torch.complex128).conj().imag
    pairs = [
        torch.autograd.grad(module(x)[0], list(module.parameters()), weight)
        for module in (layer, twin)
    ]
    torch.testing.assert_close(*pairs, rtol=1e-9, atol=1e-9)


def test_parametrized_modules_are_converted_and_reverted(calls):
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4)).requires_grad_(False)
    parametrizations.weight_norm(model[0], "weight_hh_l0")
    x, twin = torch.randn(5, 2, 3), copy.deepcopy(model)
    expected = model(x)
    assert rnncore.torch.convert(model) is model
    torch.testing.assert_close(model(x), expected)
    assert len(calls) == 1
    assert isinstance(model[0], LSTM)
    assert repr(model) == repr(twin)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    # The copy that was made before has a class of its own now.
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)
    assert len(calls) == 2
    rnncore.torch.revert(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert len(calls) == 2
    parametrize.remove_parametrizations(rnncore.torch.convert(model)[0], "weight_hh_l0")
    assert type(model[0]) is LSTM
    torch.testing.assert_close(model(x), expected)


def test_what_is_saved_may_be_hooked():
    layer, x = LSTM(3, 4, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    weights = list(layer.parameters())
    expected = torch.autograd.grad(layer(x)[0].sum(), weights)
    for pack in (torch.clone, lambda tensor: tensor):
        with torch.autograd.graph.saved_tensors_hooks(pack, torch.clone):
            output, _ = layer(x)
        for _ in range(2):
            found = torch.autograd.grad(output.sum(), weights, retain_graph=True)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_default_device_does_not_keep_the_kernels_away(calls):
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.device("cpu"):
        layer(x)
    assert len(calls) == 1
    with torch.overrides.BaseTorchFunctionMode():
        layer(x)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_no_sequences(kind):
    # Batches may be empty, as the last of a loader with a sampler of its own.
    ours = getattr(rnncore.torch, kind)(3, 4, **DOUBLE)
    x = torch.zeros((0, 3) if "Cell" in kind else (5, 0, 3), requires_grad=True, **DOUBLE)
    found = []
    for module in (ours, theirs(ours)):
        output = module(x)
        output = output[0] if isinstance(output, tuple) else output
        wanted = [x, *module.parameters()]
        found.append([output, *torch.autograd.grad(output.sum(), wanted)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_operations(cell, calls):
    weights = list(getattr(torch.nn, cell.upper()[: 4 if cell == "lstm" else 3])(3, 4).parameters())
    x, h = torch.randn(5, 2, 3), torch.randn(1, 2, 4)
    state, one = ((h, h), (h[0], h[0])) if cell == "lstm" else (h, h[0])
    batch_sizes, rest = torch.tensor([2, 2, 1]), (weights, True, 1, 0.0, False, False)
    for name, *args in (
        (cell, x, state, *rest, False),
        (cell, torch.randn(5, 3), batch_sizes, state, *rest),
        (f"{cell}_cell", x[0], one, *weights),
    ):
        found = getattr(functional, name)(*args)
        torch.testing.assert_close(found, getattr(torch, name)(*args), rtol=1e-5, atol=1e-5)
    assert len(calls) == 3


class Residual(torch.nn.Module):
    """A layer of a user's own: a GRU whose input is added to its output, with normed weights."""

    def __init__(self, size):
        super().__init__()
        self.into = torch.nn.Parameter(torch.randn(3 * size, size))
        self.back = torch.nn.Parameter(torch.randn(3 * size, size))
        self.first = torch.nn.Parameter(torch.randn(1, 1, size))

    def forward(self, x, operations=functional):
        back = self.back / self.back.norm()
        h0 = self.first.expand(-1, len(x), -1)
        rest = ([self.into, back], False, 1, 0.0, self.training, False, True)
        return x + operations.gru(x, h0, *rest)[0]


def test_modules_of_your_own(calls):
    module, x = Residual(4), torch.randn(2, 5, 4)
    found = []
    for operations in (functional, torch):
        output = module(x, operations)
        found.append([output, *torch.autograd.grad(output.sum(), list(module.parameters()))])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    assert len(calls) == 1


def test_operations_refuse_as_torch():
    x, h = torch.randn(5, 2, 3), torch.zeros(1, 2, 4)
    with pytest.raises(TypeError):
        functional.lstm(x)
    with pytest.raises(RuntimeError):
        functional.gru(x, h, list(LSTM(3, 4).parameters()), True, 1, 0.0, False, False, False)
