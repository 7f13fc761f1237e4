"""Random modules, inputs and wishes for gradients: all as torch.nn gives it."""

import copy
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import rnncore.torch

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
LAYERS = ("RNN", "LSTM", "GRU")
SCATTER = ("no", "transposed", "strided", "expanded")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Keep torch's threads from waiting for work where ours want to do some."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Case(NamedTuple):
    name: str
    arguments: dict
    lengths: list[int]
    is_packed: bool
    is_sorted: bool
    has_state: bool
    is_unbatched: bool
    scatter: str
    dtype: torch.dtype
    training: bool
    # Whether input, states and parameters want gradients, again and again.
    wishes: list[bool]
    seed: int


@st.composite
def cases(draw):
    name = draw(st.sampled_from(LAYERS))
    arguments = {
        "input_size": draw(st.integers(1, 9)),
        "hidden_size": draw(st.integers(1, 18)),
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }
    if arguments["num_layers"] > 1:
        arguments["dropout"] = draw(st.sampled_from([0, 0.3, 1]))
    if name == "RNN":
        arguments["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if name == "LSTM" and arguments["hidden_size"] > 1:
        arguments["proj_size"] = draw(st.just(0) | st.integers(1, arguments["hidden_size"] - 1))
    is_packed = draw(st.booleans())
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    return Case(
        name=name,
        arguments=arguments,
        lengths=lengths,
        is_packed=is_packed,
        is_sorted=draw(st.booleans()),
        has_state=draw(st.booleans()),
        is_unbatched=not is_packed and draw(st.booleans()),
        scatter=draw(st.sampled_from(SCATTER)),
        dtype=arguments["dtype"],
        training=draw(st.booleans()),
        wishes=draw(st.lists(st.booleans(), min_size=1, max_size=12)),
        seed=draw(st.integers(0, 2**16)),
    )


def scattered(tensor, how):
    """The same shape with other strides."""
    match how:
        case "transposed":
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)
        case "strided":
            return torch.repeat_interleave(tensor, 3, dim=-1)[..., ::3]
        case "expanded":
            return tensor[..., :1].expand(tensor.shape)
    return tensor


def made(case):
    """Input, lengths or None, state or None, all tensors without gradients."""
    options = case.arguments
    lengths = sorted(case.lengths, reverse=True) if case.is_sorted else case.lengths
    batch, steps = len(lengths), max(lengths)
    shape = (batch, steps) if options["batch_first"] else (steps, batch)
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    sizes = [options.get("proj_size") or options["hidden_size"]]
    sizes += [options["hidden_size"]] if case.name == "LSTM" else []
    states = [torch.randn(rows, batch, size, dtype=case.dtype) for size in sizes]
    x = torch.randn(*shape, options["input_size"], dtype=case.dtype)
    if case.is_unbatched:
        x = x[0] if options["batch_first"] else x[:, 0]
        states = [state[:, 0] for state in states]
    states = [scattered(state, case.scatter) for state in states]
    return scattered(x, case.scatter), lengths, states if case.has_state else []


def outcome(module, case, tensors):
    """Outputs, and the gradients that were wished for by number."""
    x, lengths, states = tensors
    wishes = iter(case.wishes * (40 // len(case.wishes) + 1))
    wanted = {}
    for i, tensor in enumerate([x, *states, *module.parameters()]):
        tensor.requires_grad_(next(wishes))
        if tensor.requires_grad:
            wanted[i] = tensor
    given = x
    if case.is_packed:
        given = pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=case.is_sorted)
    torch.manual_seed(case.seed)
    hx = None if not states else tuple(states) if case.name == "LSTM" else states[0]
    output, end = module(given, hx)
    ends = [end] if isinstance(end, torch.Tensor) else list(end)
    outputs = [output.data if case.is_packed else output, *ends]
    # Not every output goes into the loss.
    used = [part for part in outputs if next(wishes)] or outputs
    gradients = {}
    if used[0].requires_grad:
        loss = sum(
            (part * torch.linspace(-1, 2, part.numel()).view_as(part)).sum() for part in used
        )
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        gradients = {
            i: torch.zeros_like(tensor) if gradient is None else gradient
            for (i, tensor), gradient in zip(wanted.items(), found, strict=True)
        }
    return outputs, gradients


@given(cases())
def test_as_torch(case):
    torch.manual_seed(case.seed)
    theirs = getattr(torch.nn, case.name)(**case.arguments).train(case.training)
    ours = rnncore.torch.convert(copy.deepcopy(theirs))
    tensors = made(case)
    found = []
    for module in (ours, theirs):
        x, lengths, states = tensors
        # The same numbers, as leaves of their own.
        again = x.detach(), lengths, [state.detach() for state in states]
        found.append(outcome(module, case, again))
    assert [part.requires_grad for part in found[0][0]] == [
        part.requires_grad for part in found[1][0]
    ]
    rtol, atol = (1e-9, 1e-9) if case.dtype is torch.float64 else (1e-4, 2e-5)
    torch.testing.assert_close(found[0], found[1], rtol=rtol, atol=atol)


@given(
    name=st.sampled_from(["RNNCell", "LSTMCell", "GRUCell"]),
    bias=st.booleans(),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 18), st.integers(1, 4)),
    has_state=st.booleans(),
    steps=st.integers(1, 4),
    wishes=st.lists(st.booleans(), min_size=1, max_size=7),
    seed=st.integers(0, 2**16),
)
def test_loops_of_cells_as_torch(name, bias, sizes, has_state, steps, wishes, seed):
    torch.manual_seed(seed)
    input_size, hidden_size, batch = sizes
    theirs = getattr(torch.nn, name)(input_size, hidden_size, bias, dtype=torch.float64)
    ours = rnncore.torch.convert(copy.deepcopy(theirs))
    xs = torch.randn(steps, batch, input_size, dtype=torch.float64)
    start = torch.randn(2, batch, hidden_size, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        wish = iter(wishes * 9)
        leaves = [xs.clone(), start.clone(), *module.parameters()]
        wanted = [leaf.requires_grad_(next(wish)) for leaf in leaves]
        state = None
        if has_state:
            state = tuple(leaves[1]) if name == "LSTMCell" else leaves[1][0]
        for x in leaves[0]:
            state = module(x, state)
        outputs = list(state) if isinstance(state, tuple) else [state]
        gradients = None
        if outputs[0].requires_grad:
            wanted = [leaf for leaf in wanted if leaf.requires_grad]
            loss = sum((part * part).sum() for part in outputs)
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        found.append((outputs, gradients))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
