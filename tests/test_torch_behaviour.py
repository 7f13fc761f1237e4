"""What torch documents of its recurrent modules holds of ours, and what it refuses is refused.

Where torch has no words for a rule, its own module is asked beside ours.
"""

import functools
import inspect
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

import rnncore.torch

from .torchs import same, theirs

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

LAYERS = ["RNN", "LSTM", "GRU"]
CELLS = ["RNNCell", "LSTMCell", "GRUCell"]
# As constructed: input 3, hidden 4.
KINDS = {
    "RNN": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
    "proj": ("LSTM", {"proj_size": 2}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_ways = pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def build(kind, layers=2, **options):
    """Our layer of a kind, float64."""
    name, given = KINDS[kind]
    return getattr(rnncore.torch, name)(3, 4, layers, **given, **options, dtype=torch.float64)


def random(*size):
    return torch.randn(*size, dtype=torch.float64)


def states(end):
    """A state as a list: hidden, and memory of an LSTM."""
    return list(end) if isinstance(end, tuple) else [end]


def as_state(tensors):
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def start(layer, batch):
    """An initial state for so many sequences."""
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size]
    sizes += [layer.hidden_size] if isinstance(layer, nn.LSTM) else []
    return [random(rows, batch, size) for size in sizes]


def outcome(work):
    """What an attempt comes to: what is raised, in which words, or what is returned."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = work()
        except Exception as error:
            found = (type(error), str(error))
    return [(w.category, str(w.message), w.filename) for w in told], found


# Packed sequences.

LENGTHS = {"sorted": [6, 4, 4, 1], "unsorted": [1, 6, 4, 2], "of one length": [3, 3, 3]}
every_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


@every_kind
@every_lengths
@both_ways
def test_a_packed_sequence_is_as_if_alone(kind, lengths, both):
    layer = build(kind, bidirectional=both)
    sequences = [random(n, 3) for n in lengths]
    first = start(layer, len(lengths))
    packed = pack_sequence(sequences, enforce_sorted=False)
    output, end = layer(packed, as_state(first))
    padded, lengths_back = pad_packed_sequence(output)
    assert lengths_back.tolist() == lengths
    assert padded.shape[:2] == (max(lengths), len(lengths))
    for i, sequence in enumerate(sequences):
        alone, last = layer(sequence, as_state([state[:, i] for state in first]))
        # The same bits, whatever the others are.
        same(padded[: lengths[i], i], alone, 0)
        assert not padded[lengths[i] :, i].any()
        same([state[:, i] for state in states(end)], states(last), 0)


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_output_has_the_order_of_its_input(kind, batch_first):
    layer = build(kind, bidirectional=True, batch_first=batch_first)
    lengths = torch.tensor([2, 5, 1])
    x = random(3, 5, 3) if batch_first else random(5, 3, 3)
    packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    output, _ = layer(packed)
    assert isinstance(output, PackedSequence)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(output, name), getattr(packed, name))
    assert output.data.shape == (8, 2 * (layer.proj_size or layer.hidden_size))
    by_ours = pad_packed_sequence(output, batch_first, padding_value=-7.0, total_length=9)
    expected, _ = theirs(layer)(packed)
    same(by_ours, pad_packed_sequence(expected, batch_first, padding_value=-7.0, total_length=9))
    # The same numbers in the other layout.
    turned = pack_padded_sequence(x.transpose(0, 1), lengths, not batch_first, enforce_sorted=False)
    assert torch.equal(layer(turned)[0].data, output.data)


def test_sorted_packs_have_no_order():
    x = random(5, 2, 3)
    output, _ = build("GRU")(pack_padded_sequence(x, [5, 2], enforce_sorted=True))
    assert output.sorted_indices is None
    assert output.unsorted_indices is None
    with pytest.raises(RuntimeError, match="enforce_sorted"):
        pack_padded_sequence(x, [2, 5], enforce_sorted=True)


@every_kind
@both_ways
def test_packed_gradients_are_the_sums_over_the_sequences(kind, both):
    layer = build(kind, bidirectional=both)
    lengths = [2, 6, 1, 4]
    sequences = [random(n, 3).requires_grad_() for n in lengths]
    first = [state.requires_grad_() for state in start(layer, len(lengths))]
    wanted = [*layer.parameters(), *sequences, *first]

    def loss(output, end):
        return output.pow(2).sum() + sum(state.sin().sum() for state in states(end))

    output, end = layer(pack_sequence(sequences, enforce_sorted=False), as_state(first))
    found = torch.autograd.grad(loss(output.data, end), wanted)
    one_by_one = [
        loss(*layer(sequence, as_state([state[:, i] for state in first])))
        for i, sequence in enumerate(sequences)
    ]
    same(found, torch.autograd.grad(sum(one_by_one), wanted))


def test_padding_has_no_gradient():
    layer, lengths = build("LSTM"), [5, 2, 3]
    x = pad_sequence([random(n, 3) for n in lengths]).requires_grad_()
    output, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    pad_packed_sequence(output)[0].sum().backward()
    for i, n in enumerate(lengths):
        assert x.grad[:n, i].all()
        assert not x.grad[n:, i].any()


@every_kind
def test_what_is_not_a_number_stays_in_its_sequence(kind):
    layer = build(kind)
    x = random(5, 3, 3)
    clean = layer(x)[0]
    x[2, 1] = torch.nan
    output, end = layer(x)
    assert torch.equal(output[:, ::2], clean[:, ::2])
    assert torch.equal(output[:2], clean[:2])
    assert output[2:, 1].isnan().all()
    assert states(end)[0][:, 1].isnan().all()


# Layouts.


@every_kind
def test_both_ways_lie_beside_one_another(kind):
    layer = build(kind, bidirectional=True)
    size = layer.proj_size or layer.hidden_size
    x, first = random(6, 2, 3), start(layer, 2)
    output, end = layer(x, as_state(first))
    h = states(end)[0].view(layer.num_layers, 2, 2, size)
    by_way = output.view(6, 2, 2, size)
    assert torch.equal(by_way[-1, :, 0], h[-1, 0])
    assert torch.equal(by_way[0, :, 1], h[-1, 1])
    # One layer's way back is a layer of its own over the reversed steps.
    one = build(kind, layers=1, bidirectional=True)
    back = build(kind, layers=1)
    own = {name: value for name, value in one.state_dict().items() if name.endswith("_reverse")}
    back.load_state_dict({name.removesuffix("_reverse"): value for name, value in own.items()})
    same(one(x)[0][..., size:], back(x.flip(0))[0].flip(0))


@every_kind
def test_batch_first_turns_sequences_and_not_states(kind):
    layer = build(kind, bidirectional=True)
    turned = build(kind, bidirectional=True, batch_first=True)
    turned.load_state_dict(layer.state_dict())
    x, first = random(6, 2, 3), as_state(start(layer, 2))
    output, end = layer(x, first)
    turned_output, turned_end = turned(x.transpose(0, 1), first)
    assert torch.equal(turned_output.transpose(0, 1), output)
    assert all(torch.equal(a, b) for a, b in zip(states(turned_end), states(end), strict=True))


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
def test_one_sequence_needs_no_batch(kind, batch_first, has_state):
    layer = build(kind, bidirectional=True, batch_first=batch_first)
    x, first = random(6, 3), start(layer, 1)
    alone = layer(x, as_state([s[:, 0] for s in first]) if has_state else None)
    batch_dim = 0 if batch_first else 1
    batched = layer(x.unsqueeze(batch_dim), as_state(first) if has_state else None)
    assert torch.equal(alone[0], batched[0].squeeze(batch_dim))
    for a, b in zip(states(alone[1]), states(batched[1]), strict=True):
        assert torch.equal(a, b[:, 0])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_a_loop_over_its_cell(name, bias):
    layer = getattr(rnncore.torch, name)(3, 4, bias=bias, dtype=torch.float64)
    cell = getattr(rnncore.torch, f"{name}Cell")(3, 4, bias=bias, dtype=torch.float64)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x, state = random(6, 2, 3), None
    loop = []
    for step in x:
        state = cell(step, state)
        loop.append(states(state)[0])
    output, end = layer(x)
    same(output, torch.stack(loop))
    same([s[0] for s in states(end)], states(state))
    weights = [list(module.parameters()) for module in (layer, cell)]
    found = torch.autograd.grad(output.pow(2).sum(), weights[0])
    same(found, torch.autograd.grad(torch.stack(loop).pow(2).sum(), weights[1]))


def test_a_step_beyond_memory_is_refused_as_by_torch():
    x, h = torch.zeros(1, 3).expand(2**40, 3), torch.zeros(1, 4).expand(2**40, 4)
    for kind in (nn.GRUCell, rnncore.torch.GRUCell):
        with pytest.raises(RuntimeError, match="memory"):
            kind(3, 4)(x, h)
    x = torch.zeros(1, 1, 3).expand(2**20, 2**20, 3)
    for kind in (nn.LSTM, rnncore.torch.LSTM):
        with pytest.raises(RuntimeError, match="memory"):
            kind(3, 4)(x)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_without_units_is_torchs(name):
    x = random(2, 3).float()
    cells = [getattr(module, name)(3, 0) for module in (nn, rnncore.torch)]
    found, expected = ([part.shape for part in states(cell(x))] for cell in cells)
    assert found == expected


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_takes_one_sequence_without_a_batch(name):
    cell = getattr(rnncore.torch, name)(3, 4, dtype=torch.float64)
    x = random(2, 3)
    first = [random(2, 4) for _ in range(2 if name == "LSTMCell" else 1)]
    batched = states(cell(x, as_state(first)))
    for i in range(2):
        alone = states(cell(x[i], as_state([s[i] for s in first])))
        assert all(torch.equal(a, b[i]) for a, b in zip(alone, batched, strict=True))
    same(states(cell(x)), states(cell(x, as_state([torch.zeros_like(s) for s in first]))), 0)


# Dropout.


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_of_all_leaves_later_layers_without_input(name):
    layer = getattr(rnncore.torch, name)(3, 4, 2, dropout=1.0, dtype=torch.float64)
    x = random(5, 2, 3).requires_grad_()
    output, _ = layer(x)
    upper = getattr(rnncore.torch, name)(4, 4, dtype=torch.float64)
    own = {k: v for k, v in layer.state_dict().items() if k.endswith("_l1")}
    upper.load_state_dict({k.replace("_l1", "_l0"): v for k, v in own.items()})
    same(output, upper(torch.zeros(5, 2, 4, dtype=torch.float64))[0])
    (dx,) = torch.autograd.grad(output.sum(), x)
    assert not dx.any()
    # Not in evaluation.
    plain = getattr(rnncore.torch, name)(3, 4, 2, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x)[0], plain(x)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_of_none_draws_nothing(name):
    layer = getattr(rnncore.torch, name)(3, 4, 2, dropout=0.0)
    x = torch.randn(5, 2, 3)
    before = torch.get_rng_state()
    trained = layer.train()(x)[0]
    assert torch.equal(trained, layer.eval()(x)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_scales_what_it_keeps():
    layer = rnncore.torch.RNN(1, 1000, 2, dropout=0.25, bias=False, dtype=torch.float64)
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_hh_l1", "weight_ih_l1"):
            getattr(layer, name).zero_()
        layer.weight_ih_l1.fill_diagonal_(1)
    x = random(1, 1, 1)
    between = torch.atanh(layer(x)[0])
    lower = torch.tanh(layer.weight_ih_l0[:, 0] * x.item())
    kept = between[0, 0] != 0
    assert 0.69 < kept.double().mean() < 0.81
    same(between[0, 0, kept], lower[kept] / 0.75)


# What is refused, or warned of, in torch's words.

CONSTRUCTIONS = [
    ((0, 4), {}),
    ((3, 0), {}),
    ((-1, 4), {}),
    ((3.0, 4), {}),
    ((3, 4.0), {}),
    (("3", 4), {}),
    ((3, 4, 0), {}),
    ((3, 4), {"num_layers": -1}),
    ((3,), {}),
    ((3, 4), {"dropout": -0.1}),
    ((3, 4), {"dropout": 1.1}),
    ((3, 4), {"dropout": True}),
    ((3, 4), {"dropout": "a"}),
    ((3, 4), {"dropout": 0.5}),
    ((3, 4), {"dropout": 1}),
    ((3, 4), {"bias": 1}),
    ((3, 4), {"batch_first": 1}),
    ((3, 4), {"proj_size": -1}),
    ((3, 4), {"proj_size": 4}),
    ((3, 4), {"proj_size": 5}),
    ((3, 4), {"nonlinearity": "sigmoid"}),
    ((3, 4), {"unknown": 1}),
    ((3, 4), {"dtype": torch.int64}),
]


@pytest.mark.parametrize("name", LAYERS + CELLS)
def test_constructions(name):
    ours, expected = getattr(rnncore.torch, name), getattr(nn, name)
    assert inspect.signature(ours) == inspect.signature(expected)
    refused = 0
    for args, kwargs in CONSTRUCTIONS:
        found = [outcome(functools.partial(kind, *args, **kwargs)) for kind in (ours, expected)]
        assert [str(part) for part in found[0]] == [str(part) for part in found[1]], (args, kwargs)
        refused += isinstance(found[0][1], tuple)
    assert refused > 5


def calls(cells):
    """Bad calls of a module with 3 inputs and 4 hidden units, by what is wrong."""
    x, h = torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)
    if cells:
        x, h = torch.zeros(2, 3), torch.zeros(2, 4)
    inputs = {
        "more features": torch.zeros(*x.shape[:-1], 4),
        "fewer features": x[..., :2],
        "no features": x[..., :0],
        "a dimension too many": x[None, None],
        "no dimensions": x.sum(),
        "one dimension": x.flatten()[:3],
        "wider": x.double(),
        "narrower": x.half(),
        "whole numbers": x.long(),
        "complex": x.to(torch.complex64),
        "elsewhere": x.to("meta"),
        "no tensor": x.numpy(),
        "a list": x.tolist(),
        "nothing": None,
        "no sequences": x[..., :0, :],
    }
    if not cells:
        inputs["no steps"] = x[:0]
        inputs["one sequence"] = x[:, 0]
    given = {
        "narrow": h[..., :3],
        "wide": torch.zeros(*h.shape[:-1], 5),
        "another batch": torch.zeros(*h.shape[:-2], 3, 4),
        "a batch of one": h[..., :1, :],
        "a dimension less": h[0],
        "a dimension more": h[None],
        "without dimensions": h.sum(),
        "double": h.double(),
        "half": h.half(),
        "meta": h.to("meta"),
        "no tensor": h.numpy(),
        "another number of layers": h.repeat(*[1] * (h.dim() - 2), 1, 1).expand(3, *h.shape[-2:]),
    }
    for name, value in inputs.items():
        yield f"input: {name}", value, None
        yield f"input: {name}, with a state", value, (h, h)
    for name, state in given.items():
        for first, second, which in ((state, h, "h"), (h, state, "c"), (state, state, "both")):
            yield f"{which}: {name}", x, (first, second)
    yield "three states", x, (h, h, h)
    yield "one state", x, (h,)
    yield "no states", x, ()
    if not cells:
        yield "an unbatched sequence with a batched state", x[:, 0], (h, h)
        yield "a state of many for one", x[:, 0], (h[:, 0].repeat(2, 1),) * 2
        packed = pack_sequence([x[:, 0], x[:2, 1]])
        for name, state in given.items():
            if isinstance(state, torch.Tensor) and state.dim() > 3:
                continue  # torch's own LSTM ends the process
            yield f"packed; both: {name}", packed, (state, state)
            yield f"packed; c: {name}", packed, (h, state)
        yield "packed; more features", pack_sequence([torch.zeros(2, 4)]), None
        yield "packed; wider", pack_sequence([torch.zeros(2, 3).double()]), None
        yield "packed; three dimensions", pack_sequence([x[:, :1]]), None


def told(module, x, state):
    """What a call comes to, without addresses and names of our own."""
    _, found = outcome(lambda: module(x, state))
    if isinstance(found, tuple) and isinstance(found[0], type):
        return found
    tensors = [found] if isinstance(found, torch.Tensor) else [found[0], *states(found[1])]
    return [(t.data if isinstance(t, PackedSequence) else t).shape for t in tensors]


@pytest.mark.parametrize("name", LAYERS + CELLS)
def test_calls(name):
    ours = getattr(rnncore.torch, name)(3, 4)
    expected = theirs(ours)
    refused = 0
    for what, x, pair in calls(cells=name in CELLS):
        takes_pair = name.startswith("LSTM") or pair is None
        state = pair if takes_pair else pair[-1] if pair else pair
        found, wanted = told(ours, x, state), told(expected, x, state)
        assert found == wanted, what
        refused += isinstance(found, tuple)
    assert refused > 30


@pytest.mark.parametrize("name", LAYERS + CELLS)
def test_arguments_by_name(name):
    module = getattr(rnncore.torch, name)(3, 4)
    x = torch.randn(2, 3) if name in CELLS else torch.randn(5, 2, 3)
    end = module(x) if name in CELLS else module(x)[1]
    by_name, by_place = module(input=x, hx=end), module(x, end)
    same(by_name, by_place, 0)
    if isinstance(end, tuple):
        same(module(x, list(end)), by_place, 0)
