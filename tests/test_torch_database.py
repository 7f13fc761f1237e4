"""torch's own database of modules: every sample and every error of the six recurrent ones."""

import copy
import importlib
import pickle

import pytest
import torch
from hypothesis import settings
from torch.autograd import gradcheck, gradgradcheck

import rnncore.torch
from rnncore.torch import functional

# torch loads settings of its own for all property tests: put ours back.
before = settings.default
common_modules = importlib.import_module("torch.testing._internal.common_modules")
settings.register_profile("before", before)
settings.load_profile("before")

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.usefixtures("one_thread"),
]
NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
INFOS = {
    info.module_cls.__name__: info
    for info in common_modules.module_db
    if info.module_cls in [getattr(torch.nn, name) for name in NAMES]
}
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
all_modules = pytest.mark.parametrize("name", NAMES)


def samples(name, dtype, training, requires_grad=False):
    """The samples, and for each our module and torch's with the same weights."""
    torch.manual_seed(0)
    inputs = INFOS[name].module_inputs_func(
        INFOS[name], device="cpu", dtype=dtype, requires_grad=requires_grad, training=training
    )
    for sample in inputs:
        if sample.forward_input is None:
            continue
        arguments = sample.constructor_input
        theirs = getattr(torch.nn, name)(*arguments.args, **arguments.kwargs).to(dtype)
        ours = getattr(rnncore.torch, name)(*arguments.args, **arguments.kwargs).to(dtype)
        ours.load_state_dict(theirs.state_dict())
        ours.train(training)
        theirs.train(training)
        yield sample, ours, theirs


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in tensors(part)]
    return []


def mapped(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(part, change) for part in value)
    return value


def run(module, sample, change=lambda tensor: tensor):
    forward = sample.forward_input
    args = mapped(forward.args, change)
    kwargs = {key: mapped(value, change) for key, value in forward.kwargs.items()}
    return module(*args, **kwargs), tensors(args) + tensors(list(kwargs.values()))


def test_the_database_has_all():
    assert set(INFOS) == set(NAMES)


@all_modules
@both_types
@both_modes
def test_outputs_and_gradients(name, dtype, training):
    count = 0
    for sample, ours, theirs in samples(name, dtype, training):
        count += 1
        found = []
        for module in (ours, theirs):
            torch.manual_seed(3)
            output, inputs = run(module, sample, lambda t: t.clone().requires_grad_())
            sums = [(part * part).sum() for part in tensors(output)]
            wanted = [*module.parameters(), *inputs]
            gradients = torch.autograd.grad(sum(sums), wanted, allow_unused=True)
            found.append((tensors(output), gradients))
        rtol, atol = (1e-9, 1e-9) if dtype is torch.float64 else (1e-5, 1e-4)
        torch.testing.assert_close(found[0], found[1], rtol=rtol, atol=atol)
        if sample.reference_fn is not None:
            torch.manual_seed(3)
            output, _ = run(ours, sample)
            forward = sample.forward_input
            torch.manual_seed(3)
            expected = sample.reference_fn(ours, *forward.args, **forward.kwargs)
            torch.testing.assert_close(output, expected)
    assert count > 0


@all_modules
@both_types
def test_the_kernels_compute_every_sample(name, dtype, monkeypatch):
    # Whatever is left to torch now fails.
    monkeypatch.setattr(functional, "_VF", None)
    for sample, ours, _ in samples(name, dtype, training=True):
        output, inputs = run(ours, sample, lambda t: t.clone().requires_grad_())
        torch.autograd.backward([part.sum() for part in tensors(output)])
        assert all(tensor.grad is not None for tensor in [*inputs, *ours.parameters()])


@all_modules
@both_types
def test_errors(name, dtype):
    inputs = INFOS[name].module_error_inputs_func
    if inputs is None:
        pytest.skip("torch lists no errors")
    errors = inputs(INFOS[name], device="cpu", dtype=dtype, requires_grad=False, training=False)
    ours, theirs = getattr(rnncore.torch, name), getattr(torch.nn, name)
    assert errors
    for error in errors:
        sample = error.module_error_input
        arguments = sample.constructor_input
        messages = []
        for kind in (ours, theirs):
            if error.error_on is common_modules.ModuleErrorEnum.CONSTRUCTION_ERROR:
                with pytest.raises(error.error_type, match=error.error_regex) as caught:
                    kind(*arguments.args, **arguments.kwargs)
            else:
                module = kind(*arguments.args, **arguments.kwargs).to(dtype)
                with pytest.raises(error.error_type, match=error.error_regex) as caught:
                    run(module, sample)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@all_modules
@both_types
@both_modes
def test_tensors_that_are_not_contiguous(name, dtype, training):
    def scattered(tensor):
        wide = torch.repeat_interleave(tensor.detach(), 2, dim=-1)
        return wide[..., ::2].requires_grad_()

    for sample, ours, _ in samples(name, dtype, training):
        found = []
        for change in (lambda t: t.clone().requires_grad_(), scattered):
            torch.manual_seed(3)
            output, inputs = run(ours, sample, change)
            sums = [part.pow(2).sum() for part in tensors(output)]
            found.append((output, torch.autograd.grad(sum(sums), [*ours.parameters(), *inputs])))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@all_modules
@pytest.mark.filterwarnings(
    "ignore:You are using `torch.load`:FutureWarning"
)  # an older torch's own
def test_copies_and_state_dicts(name):
    for sample, ours, theirs in samples(name, torch.float32, False):
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        expected, _ = run(ours, sample)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert type(other) is getattr(rnncore.torch, name)
            torch.testing.assert_close(run(other, sample)[0], expected, rtol=0, atol=0)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.add_(1)
            torch.testing.assert_close(run(ours, sample)[0], expected, rtol=0, atol=0)


def check_inputs(module, sample):
    """A function of all parameters and inputs, as gradcheck wants it, and those."""
    names = [name for name, _ in module.named_parameters()]
    _, inputs = run(module, sample, lambda t: t)
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def function(*given):
        rest = list(given[len(weights) :])
        for name, value in zip(names, given, strict=False):
            delattr(module, name) if name in module._parameters else None
            setattr(module, name, value)
        torch.manual_seed(3)
        output, _ = run(module, sample, lambda _: rest.pop(0))
        return tuple(tensors(output))

    return function, [*weights, *inputs]


@pytest.mark.slow
@all_modules
@both_modes
def test_gradcheck(name, training):
    for sample, ours, _ in samples(name, torch.float64, training):
        function, given = check_inputs(ours, sample)
        # As torch checks its own, many gradients at once too.
        assert gradcheck(function, given, fast_mode=True, check_batched_grad=True)


def in_one(function, given):
    """The same function of one vector: one direction to go in, where each tensor would have one."""
    sizes = [tensor.numel() for tensor in given]

    def of_vector(vector):
        parts = [
            part.view(tensor.shape) for part, tensor in zip(vector.split(sizes), given, strict=True)
        ]
        return function(*parts)

    return of_vector, torch.cat([tensor.detach().flatten() for tensor in given]).requires_grad_()


@pytest.mark.slow
@all_modules
@both_modes
def test_gradgradcheck(name, training):
    for sample, ours, _ in samples(name, torch.float64, training):
        function, vector = in_one(*check_inputs(ours, sample))
        # Closer than by default, so that each tensor's share in that direction counts.
        assert gradgradcheck(
            function, vector, fast_mode=True, check_batched_grad=True, atol=1e-7, rtol=1e-6
        )
