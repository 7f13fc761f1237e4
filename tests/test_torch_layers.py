"""Layers and cells of `rnncore.nn` from torch's modules and back: the same weights and numbers."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import parametrizations

import rnncore.torch
from rnncore import nn

LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, np.ndarray):
        return [value]
    return [array for part in value if part is not None for array in flat(part)]


def assert_alike(layer, module, tolerance=None):
    """Compare a layer with torch's module on random input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, layer.input_size) if is_cell(layer) else (3, 4, layer.input_size))
    x = x.astype(layer.dtype)
    with torch.no_grad():
        expected = flat(module.eval()(torch.from_numpy(x)))
    tolerance = tolerance or {"float32": 1e-5, "float64": 1e-12}[layer.dtype.name]
    for ours, theirs in zip(flat(layer(x)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance)


def is_cell(layer):
    return type(layer).__name__.endswith("Cell")


def assert_same_weights(layer, module):
    theirs = module.state_dict()
    ours = layer.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name].numpy(), err_msg=name)


@st.composite
def arguments(draw, name):
    found = {
        "input_size": draw(st.integers(1, 9)),
        "hidden_size": draw(st.integers(1, 18)),
        "bias": draw(st.booleans()),
    }
    if name in LAYERS:
        found["num_layers"] = draw(st.integers(1, 3))
        found["batch_first"] = draw(st.booleans())
        found["bidirectional"] = draw(st.booleans())
        if found["num_layers"] > 1:
            found["dropout"] = draw(st.sampled_from([0.0, 0.3, 1.0]))
    if name == "LSTM" and found["hidden_size"] > 1:
        found["proj_size"] = draw(st.integers(0, found["hidden_size"] - 1))
    if name.startswith("RNN"):
        found["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return found, draw(st.sampled_from(list(DTYPES)))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@given(st.data(), st.sampled_from(LAYERS + CELLS), st.booleans())
def test_modules_become_layers_and_layers_modules(data, name, ours):
    options, dtype = data.draw(arguments(name))
    module = getattr(rnncore.torch if ours else torch.nn, name)(**options, dtype=DTYPES[dtype])
    layer = getattr(nn, name).from_torch(module)
    for option, value in options.items():
        assert getattr(layer, option) == value
    assert layer.dtype == dtype
    assert_same_weights(layer, module)
    assert_alike(layer, module)

    back = layer.to_torch()
    assert type(back) is getattr(rnncore.torch, name)
    assert repr(back) == repr(module)
    assert_same_weights(layer, back)
    assert_alike(layer, back)
    assert all(p.requires_grad and p.is_leaf for p in back.parameters())
    assert type(rnncore.torch.revert(back)) is getattr(torch.nn, name)


@pytest.mark.parametrize("name", LAYERS + CELLS)
def test_weights_are_copies_on_both_sides(name):
    module = getattr(torch.nn, name)(3, 4)
    layer = getattr(nn, name).from_torch(module)
    before = layer.state_dict()
    for parameter in module.parameters():
        parameter.data.zero_()
    back = layer.to_torch()
    for parameter in back.parameters():
        parameter.data.zero_()
    for weight, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[weight])


def test_a_layer_in_torch_learns():
    module = nn.LSTM(3, 4, 2, random_state=0).to_torch()
    x, losses = torch.randn(6, 5, 3), []
    for _ in range(20):
        loss = (module(x)[0].mean(2) - x.cumsum(0).mean(2)).square().mean()
        weights = list(module.parameters())
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.5 * slope
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert_alike(nn.LSTM.from_torch(module), module)


def test_torchs_generator_is_left_alone():
    before = torch.get_rng_state()
    nn.GRU(3, 4, 2).to_torch()
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_come_from_the_seed():
    module = torch.nn.GRU(3, 4, 2, dropout=0.5)
    x = np.ones((5, 2, 3), np.float32)
    first, second = (nn.GRU.from_torch(module, random_state=1).forward(x)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_parametrized_weights_come_as_they_are():
    module = parametrizations.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(2)
    assert_alike(nn.LSTM.from_torch(module), module)
    cell = parametrizations.orthogonal(torch.nn.GRUCell(4, 4), "weight_hh")
    assert_alike(nn.GRUCell.from_torch(cell), cell)


def test_derived_classes_come_as_what_they_compute():
    class Named(torch.nn.GRU):
        pass

    class Ours(nn.GRU):
        pass

    module = Named(3, 4)
    layer = Ours.from_torch(module)
    assert type(layer) is Ours
    assert_alike(layer, module)
    assert type(layer.to_torch()) is rnncore.torch.GRU


class Doubled(torch.nn.LSTM):
    def forward(self, x, hx=None):
        output, state = super().forward(x, hx)
        return 2 * output, state


def hooked(register):
    module = torch.nn.LSTM(3, 4)
    getattr(module, register)(lambda *_: None)
    return module


def patched():
    module = torch.nn.LSTM(3, 4)
    module.forward = lambda x: x
    return module


def mixed():
    module = torch.nn.LSTM(3, 4)
    module.weight_ih_l0 = torch.nn.Parameter(module.weight_ih_l0.double())
    return module


def misshapen():
    module = torch.nn.LSTM(3, 4)
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(5, 5))
    return module


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: None, TypeError, r"module: expected a torch.nn.LSTM, got None"),
        (lambda: torch.nn.GRU(3, 4), TypeError, r"expected a torch.nn.LSTM, got GRU GRU\(3, 4\)"),
        (lambda: torch.nn.LSTMCell(3, 4), TypeError, r"expected a torch.nn.LSTM, got LSTMCell"),
        (lambda: nn.LSTM(3, 4), TypeError, r"expected a torch.nn.LSTM, got LSTM LSTM\(3, 4\)"),
        (lambda: Doubled(3, 4), TypeError, r"expected torch.nn.LSTM's own forward, .* of Doubled"),
        (patched, TypeError, r"expected torch.nn.LSTM's own forward"),
        (lambda: hooked("register_forward_hook"), ValueError, r"expected no hooks around forward"),
        (lambda: hooked("register_forward_pre_hook"), ValueError, r"expected no hooks around"),
        (lambda: torch.nn.LSTM(3, 4).bfloat16(), TypeError, r"weights .* got torch.bfloat16"),
        (lambda: torch.nn.LSTM(3, 4).half(), TypeError, r"weights .* got torch.float16"),
        (
            misshapen,
            ValueError,
            r"module\['weight_hh_l0'\]: expected shape \(16, 4\), got \(5, 5\)",
        ),
        (mixed, TypeError, r"got torch.float32 and torch.float64"),
        (
            lambda: torch.nn.LSTM(3, 4, device="meta"),
            ValueError,
            r"module.weight_ih_l0: expected weights that hold numbers, got .* 'meta'",
        ),
    ],
)
def test_from_torch_refuses(make, error, match):
    with pytest.raises(error, match=match):
        nn.LSTM.from_torch(make())


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (nn.RNN(2, 3, nonlinearity="leaky_relu"), r"nonlinearity: expected 'tanh' or 'relu', .*"),
        (nn.RNNCell(2, 3, nonlinearity="sigmoid"), r"nonlinearity: .* got 'sigmoid'"),
        (nn.RNN(2, 3, residual=True), r"residual: expected False, as torch has it, got True"),
        (nn.RNNCell(2, 3, residual=True), r"residual: expected False"),
        (nn.GRU(2, 3, 2, dropout=0.1, locked_dropout=True), r"locked_dropout: expected False"),
    ],
)
def test_to_torch_refuses_what_torch_lacks(layer, match):
    with pytest.raises(ValueError, match=match):
        layer.to_torch()


HIDE = """
import sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, *args):
        {answer}
        return super().find_spec(name, *args)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
"""
ANSWERS = {
    "nothing": "if name == 'torch': return None",
    "an error": "if name == 'torch': raise ModuleNotFoundError(name)",
}


@pytest.fixture(params=ANSWERS)
def printed_without_torch(request):
    def printed(code):
        code = HIDE.format(answer=ANSWERS[request.param]) + code
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout

    return printed


def test_without_torch_the_error_says_what_to_install(printed_without_torch):
    code = """
import rnncore
for ask in (lambda: rnncore.nn.LSTM(2, 3).to_torch(), lambda: rnncore.torch):
    try:
        ask()
    except ImportError as error:
        print(error)
"""
    needs = "rnncore.torch needs torch: pip install rnncore[torch]\n"
    assert printed_without_torch(code) == 2 * needs


@pytest.mark.slow
def test_without_torch_all_that_is_named_is_there(printed_without_torch):
    code = """
import inspect, pydoc
from rnncore import *
import rnncore
names = [name for name, _ in inspect.getmembers(rnncore)]
print({"LSTM", "plot"} <= {*names} & {*rnncore.__all__}, "torch" in {*names, *rnncore.__all__})
print("torch" in globals(), "rnncore.text" in pydoc.render_doc(rnncore))
"""
    assert printed_without_torch(code) == "True False\nFalse True\n"
    assert "torch" in rnncore.__all__
    assert "torch" in dir(rnncore)
