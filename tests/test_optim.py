"""Optimizers against torch's: steps of training by hand, clipping, schedules, divergence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore import nn, optim

from .layers import ISAS, build, every_cell
from .optimizers import batches, copied, every_rule, gradients, step
from .reference import assert_near, twin

# Rates from 1e-4 to 1, as many between each two powers of ten.
rates = st.floats(-4, 0).map(lambda exponent: 10**exponent)
limits = st.one_of(st.none(), st.floats(-4, 2).map(lambda exponent: 10**exponent))


EPS = st.sampled_from([1e-8, 1e-3])
MOMENTUM = st.sampled_from([0.0, 0.5, 0.9, 0.99])
DECAY = st.sampled_from([0.0, 0.01, 0.3])


@st.composite
def sgd_options(draw) -> dict:
    options = {"momentum": draw(MOMENTUM)}
    options["nesterov"] = options["momentum"] > 0 and draw(st.booleans())
    if not options["nesterov"]:
        options["dampening"] = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return options


ADAM_OPTIONS = {
    "beta1": st.sampled_from([0.0, 0.5, 0.9]),
    "beta2": st.sampled_from([0.5, 0.99, 0.999]),
    "eps": EPS,
}
RMSPROP_OPTIONS = {
    "alpha": st.sampled_from([0.5, 0.9, 0.99]),
    "eps": EPS,
    "momentum": MOMENTUM,
    "centered": st.booleans(),
}
ADAGRAD_OPTIONS = {
    "lr_decay": st.sampled_from([0.0, 0.1]),
    "initial_accumulator": st.sampled_from([0.0, 0.5]),
    "eps": EPS,
}
OPTIONS = {
    optim.SGD: sgd_options(),
    optim.Adam: st.fixed_dictionaries(ADAM_OPTIONS),
    optim.AdamW: st.fixed_dictionaries(ADAM_OPTIONS),
    optim.RMSprop: st.fixed_dictionaries(RMSPROP_OPTIONS),
    optim.Adagrad: st.fixed_dictionaries(ADAGRAD_OPTIONS),
}


def drawn(rule):
    """Options of a rule, weight decay among them."""
    return st.tuples(OPTIONS[rule], DECAY).map(lambda pair: {**pair[0], "weight_decay": pair[1]})


def torch_optimizer(rule, parameters, learning_rate=None, **options):
    """The optimizer of torch that one of ours follows."""
    if rule in (optim.Adam, optim.AdamW) and "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if "initial_accumulator" in options:
        options["initial_accumulator_value"] = options.pop("initial_accumulator")
    if learning_rate is not None:
        options["lr"] = learning_rate
    return getattr(torch.optim, rule.__name__)(parameters, **options)


class Reference:
    """torch's layer and optimizer, fed with the same numbers as ours."""

    def __init__(self, layer, rule, options, clip_norm=None, clip_value=None):
        self.module = twin(layer)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.optimizer = torch_optimizer(rule, self.module.parameters(), **options)

    def set_learning_rate(self, value):
        self.optimizer.param_groups[0]["lr"] = value

    def step(self, x, target):
        output, _ = self.module(torch.tensor(x, dtype=torch.float64))
        error = output - torch.tensor(target, dtype=torch.float64)
        self.optimizer.zero_grad()
        (error**2).mean().backward()
        parameters = list(self.module.parameters())
        norm = torch.cat([p.grad.ravel() for p in parameters]).norm()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        self.optimizer.step()
        return float(norm)

    def weights(self):
        return {name: p.detach().numpy() for name, p in self.module.named_parameters()}


def check_ten_steps(layer, seed, rule, rate, options, clip_norm, clip_value, near=1e-9):
    optimizer = rule(rate, **options, clip_norm=clip_norm, clip_value=clip_value)
    reference = Reference(layer, rule, {**options, "learning_rate": rate}, clip_norm, clip_value)
    for number, batch in enumerate(batches(layer, seed)):
        if number == 5:
            optimizer.learning_rate = rate / 3
            reference.set_learning_rate(rate / 3)
        norm, want = step(layer, optimizer, *batch), reference.step(*batch)
        assert norm == pytest.approx(want, rel=near)
    for name, want in reference.weights().items():
        np.testing.assert_allclose(
            layer.state_dict()[name], want, rtol=0, atol=near * np.abs(want).max(), err_msg=name
        )


@every_cell
@settings(max_examples=settings.default.max_examples // 10)
@given(
    rate=rates,
    options=drawn(optim.SGD),
    clip_norm=limits,
    clip_value=limits,
    bias=st.booleans(),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_ten_steps_of_sgd(cell, rate, options, clip_norm, clip_value, bias, isa, seed):
    layer = build(cell, 3, 7, 2, bias=bias, dtype="float64", random_state=seed, isa=isa)
    check_ten_steps(layer, seed, optim.SGD, rate, options, clip_norm, clip_value)


@every_cell
@settings(max_examples=settings.default.max_examples // 10)
@given(
    rate=rates.map(lambda rate: rate / 10),
    options=drawn(optim.Adam),
    clip_norm=limits,
    clip_value=limits,
    bias=st.booleans(),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_ten_steps_of_adam(cell, rate, options, clip_norm, clip_value, bias, isa, seed):
    layer = build(cell, 3, 7, 2, bias=bias, dtype="float64", random_state=seed, isa=isa)
    check_ten_steps(layer, seed, optim.Adam, rate, options, clip_norm, clip_value)


@pytest.mark.parametrize(
    ("rule", "rate", "options"),
    [
        (optim.SGD, 0.3, {}),
        (optim.SGD, 0.1, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (optim.SGD, 0.1, {"momentum": 0.9, "dampening": 0.5}),
        (optim.Adam, 0.01, {}),
        (optim.Adam, 0.01, {"weight_decay": 0.01}),
    ],
    ids=["sgd", "nesterov", "dampening", "adam", "adam with decay"],
)
@every_cell
def test_ten_steps_in_single_precision(cell, rule, rate, options):
    layer = build(cell, 3, 7, 2, random_state=0)
    check_ten_steps(layer, 0, rule, rate, options, 0.5, 0.1, near=1e-4)


def check_twenty_steps(rule, seed, dtype, near, l1, clip_norm, clip_value, **options):
    """The same gradients for us and for torch, small and large, some of them 0."""
    rng = np.random.default_rng(seed)
    layer = nn.LSTM(3, 7, dtype=dtype, random_state=seed)
    optimizer = rule(**options, l1=l1, clip_norm=clip_norm, clip_value=clip_value)
    theirs = {
        name: torch.nn.Parameter(torch.tensor(value.astype("float64")))
        for name, value in layer.state_dict().items()
    }
    reference = torch_optimizer(rule, theirs.values(), **options)
    for _ in range(20):
        scale = 10 ** rng.uniform(-2, 1)
        grads = {
            name: (scale * rng.standard_normal(p.shape) * (rng.random(p.shape) < 0.9)).astype(dtype)
            for name, p in theirs.items()
        }
        layer.apply_gradients(grads, optimizer)
        for name, p in theirs.items():
            p.grad = torch.tensor(grads[name].astype("float64"))
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm)
        if clip_value is not None:
            torch.nn.utils.clip_grad_value_(theirs.values(), clip_value)
        for p in theirs.values():
            p.grad += l1 * p.detach().sign()
        reference.step()
    for name, want in theirs.items():
        want = want.detach().numpy()
        np.testing.assert_allclose(
            layer.state_dict()[name], want, rtol=0, atol=near * np.abs(want).max(), err_msg=name
        )


@every_rule
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_twenty_steps_of_every_rule(rule, data, seed):
    options = data.draw(drawn(rule))
    l1, clip_norm, clip_value = data.draw(st.tuples(DECAY, limits, limits))
    options["learning_rate"] = data.draw(rates) / (1 if rule is optim.SGD else 10)
    # A variance is a difference of two numbers that may be nearly equal; and a gradient by its own
    # size, which Adam takes, has no fewer wrong digits than the gradient has.
    near = 1e-9 if options.get("centered") else 1e-11
    check_twenty_steps(rule, seed, "float64", near, l1, clip_norm, clip_value, **options)


@pytest.mark.parametrize("l1", [0.0, 0.01])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (optim.Adam, {"weight_decay": 0.01}),
        (optim.AdamW, {"weight_decay": 0.1}),
        (optim.RMSprop, {}),
        (optim.RMSprop, {"momentum": 0.9, "centered": True}),
        (optim.Adagrad, {}),
        (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator": 0.5}),
    ],
)
def test_twenty_steps_in_single_precision(rule, options, l1):
    options = {"learning_rate": rule().learning_rate, **options}
    check_twenty_steps(rule, 0, "float32", 1e-5, l1, 5.0, 1.0, **options)


@every_rule
def test_defaults_are_those_of_torch(rule):
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch_optimizer(rule, [weight]).defaults
    options = rule().options
    want = {torch_name: options.pop(name) for name, torch_name in [("learning_rate", "lr")]}
    assert (options.pop("l1"), options.pop("clip_norm"), options.pop("clip_value")) == (
        0,
        None,
        None,
    )
    if "beta1" in options:
        want["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if rule is optim.Adagrad:
        want["initial_accumulator_value"] = options.pop("initial_accumulator")
    want |= options
    if rule is optim.SGD:
        assert want.pop("lr") == 0.01  # ten times torch's
    assert want == {name: theirs[name] for name in want}


def test_a_cell_learns_as_a_layer_does():
    cell, layer = nn.GRUCell(3, 7, dtype="float64"), nn.GRU(3, 7, dtype="float64")
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    optimizer = optim.Adam(0.1)
    for x, target in batches(layer, 0):
        state, tape = cell.forward(x[0])
        cell.apply_gradients(cell.backward(tape, state - target[0])[2], optimizer)
        output, _, tape = layer.forward(x[:1])
        layer.apply_gradients(layer.backward(tape, output - target[:1])[2], optimizer)
    for name, value in cell.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[f"{name}_l0"], value)


def test_summed_gradients_are_those_of_both_batches():
    layer = nn.LSTM(3, 7, dtype="float64", random_state=0)
    (x, target), (other_x, other_target) = batches(layer, 0, 2)
    first, second = gradients(layer, x, target), gradients(layer, other_x, other_target)
    want = gradients(layer, np.hstack([x, other_x]), np.hstack([target, other_target]))
    got = {name: (first[name] + second[name]) / 2 for name in first}
    assert_near(got, want, "float64")
    layer.apply_gradients(got, optim.SGD(0.1))


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam])
def test_one_optimizer_keeps_layers_apart(rule):
    """Layers of one optimizer that take different numbers of steps have each a state of its own."""
    options = {"momentum": 0.9, "dampening": 0.3} if rule is optim.SGD else {}
    optimizer = rule(0.05, **options)
    layers = [
        nn.LSTM(3, 7, dtype="float64", random_state=0),
        nn.GRU(3, 7, dtype="float64", random_state=1),
        nn.LSTM(3, 7, dtype="float64", random_state=2),
    ]
    references = [Reference(layer, rule, {**options, "learning_rate": 0.05}) for layer in layers]
    for number, batch in enumerate(batches(layers[0], 0)):
        for every, layer, reference in zip([1, 2, 3], layers, references, strict=True):
            if number % every == 0:
                step(layer, optimizer, *batch)
                reference.step(*batch)
    for layer, reference in zip(layers, references, strict=True):
        assert_near(layer.state_dict(), reference.weights(), "float64")


def test_one_optimizer_serves_both_dtypes():
    optimizer = optim.SGD(0.1, momentum=0.9)
    double = nn.GRU(3, 7, dtype="float64", random_state=0)
    single = nn.GRU(3, 7, random_state=0)
    for x, target in batches(double, 0):
        step(double, optimizer, x, target)
        step(single, optimizer, x, target.astype("float32"))
    assert_near(single.state_dict(), double.state_dict(), "float32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make", [lambda: optim.SGD(0.1, momentum=0.9), lambda: optim.Adam(0.1)], ids=["sgd", "adam"]
)
@every_cell
def test_a_gradient_that_is_not_finite_changes_nothing(cell, make, bad):
    layer, other = (build(cell, 3, 7, dtype="float64", random_state=0) for _ in range(2))
    optimizer, undisturbed = make(), make()
    for x, target in batches(layer, 0):
        before = copied(layer.state_dict())
        grads = gradients(layer, x, target)
        grads["weight_hh_l0"][-1, -1] = bad
        with pytest.raises(FloatingPointError, match="not finite"):
            layer.apply_gradients(grads, optimizer)
        assert copied(layer.state_dict()) == before
        # Nor has the optimizer's memory: the run goes on as if nothing had been tried.
        step(layer, optimizer, x, target)
        step(other, undisturbed, x, target)
        assert copied(layer.state_dict()) == copied(other.state_dict())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_would_overflow_are_not_written(dtype):
    layer = nn.GRU(3, 7, dtype=dtype, random_state=0)
    before = copied(layer.state_dict())
    largest = float(np.finfo(dtype).max)
    grads = {name: np.ones_like(value) for name, value in layer.state_dict().items()}
    grads["bias_hh_l0"][3] = largest / 2**600 if dtype == "float64" else largest
    optimizer = optim.SGD(1e300 if dtype == "float64" else 10.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        layer.apply_gradients(grads, optimizer)
    assert copied(layer.state_dict()) == before


def test_clipping_tames_a_gradient_of_any_finite_norm():
    layer = nn.GRU(3, 7, random_state=0)
    before = layer.state_dict()
    grads = {name: np.full_like(value, 1e30) for name, value in before.items()}
    norm = layer.apply_gradients(grads, optim.SGD(1.0, clip_norm=1.0))
    count = sum(value.size for value in before.values())
    assert norm == pytest.approx(1e30 * count**0.5, rel=1e-6)
    moved = sum(((before[name] - value) ** 2).sum() for name, value in layer.state_dict().items())
    assert moved == pytest.approx(1, rel=1e-4)


def test_a_rate_of_zero_is_a_pause():
    layer = nn.GRU(3, 7, random_state=0)
    before = copied(layer.state_dict())
    optimizer = optim.SGD(0.0, momentum=0.9)
    batch = next(batches(layer, 0))
    step(layer, optimizer, *batch)
    assert copied(layer.state_dict()) == before
    optimizer.learning_rate = 0.1
    step(layer, optimizer, *batch)
    assert copied(layer.state_dict()) != before
