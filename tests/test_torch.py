"""`rnncore.torch` beyond numbers: what is ours, what is left to torch, weights however written."""

import copy
import gc
import io
import mmap
import pickle
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import rnncore.torch
from rnncore.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, _autograd, functional

from .torchs import parts, same, theirs

LAYERS = [RNN, LSTM, GRU]
CELLS = [RNNCell, LSTMCell, GRUCell]


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def stack_of(exchange, layer):
    """A stack of the extension for a layer's weights, beside the one that the layer has."""
    name = "lstm" if isinstance(layer, LSTM) else "rnn_tanh"
    sizes = (layer.input_size, layer.hidden_size, layer.num_layers)
    return _autograd._core.Functional(exchange, name, *sizes, layer.bias, False, 0, "float32")


@pytest.mark.parametrize("kind", LAYERS)
def test_the_kernels_compute_layers(kind, calls):
    layer = kind(3, 4)
    x = torch.randn(5, 2, 3)
    same(layer(x), theirs(layer)(x), 1e-6)
    layer(x[:, 0])
    layer(pack_sequence([x[:, 0], x[:2, 1]]))
    with torch.no_grad():
        layer(x)
    assert len(calls) == 4


@pytest.mark.parametrize("kind", CELLS)
def test_the_kernels_compute_cells(kind, calls):
    cell = kind(3, 4)
    x = torch.randn(2, 3)
    same(cell(x, cell(x)), theirs(cell)(x, theirs(cell)(x)), 1e-6)
    cell(x[0])
    assert len(calls) == 3


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_kernels_compute_projections(calls):
    layer = LSTM(3, 4, 2, proj_size=2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    same(layer(x), theirs(layer)(x), 1e-6)
    layer(pack_sequence([x[:, 0], x[:2, 1]]))
    assert len(calls) == 2
    # States that do not fit are torch's to name.
    for widths in [(4, 4), (2, 2), (4, 2), (5, 4)]:
        state = tuple(torch.zeros(4, 2, width) for width in widths)
        for module in (layer, theirs(layer)):
            with pytest.raises(RuntimeError, match="Expected hidden"):
                module(x, state)
    h, c = torch.zeros(2, 4), torch.zeros(2, 5)
    weights = list(LSTMCell(3, 5).parameters())
    for operation in (functional.lstm_cell, torch.lstm_cell):
        with pytest.raises(RuntimeError):
            operation(x[0], (h, c), *weights)
    assert len(calls) == 2


def test_importing_rnncore_leaves_the_module_for_later():
    assert rnncore.torch.LSTM is LSTM
    assert LSTM.__module__ == "rnncore.torch"
    assert issubclass(LSTM, torch.nn.LSTM)


def test_one_seed_gives_torchs_weights_and_masks():
    arguments = {"num_layers": 3, "dropout": 0.5, "batch_first": True}
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    found = []
    for kind in (LSTM, torch.nn.LSTM):
        torch.manual_seed(5)
        found.append(kind(3, 4, **arguments, dtype=torch.float64)(x))
    same(*found)


@pytest.mark.parametrize("dropout", [0, 1])
def test_dropout_at_its_ends(dropout):
    layer = GRU(3, 4, 2, dropout=dropout)
    x = torch.randn(5, 2, 3)
    same(layer(x), theirs(layer)(x), 1e-6)
    same(layer.eval()(x), theirs(layer)(x), 1e-6)


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.data.mul_(2),
        lambda p: p.detach().numpy().__imul__(2),
        lambda p: setattr(p, "data", p.data * 2),
        lambda p: torch.no_grad()(p.mul_)(2),
    ],
    ids=["data", "numpy", "storage", "in place"],
)
def test_weights_may_be_written_in_any_way(write):
    layer = LSTM(3, 3)
    x = torch.randn(5, 2, 3)
    layer(x)
    write(layer.weight_hh_l0)
    same(layer(x), theirs(layer)(x), 1e-6)
    layer.weight_hh_l0.data = layer.weight_hh_l0.data[::2].repeat(2, 1)
    same(layer(x), theirs(layer)(x), 1e-6)


def by_capsules():
    """The way into Rust of a torch that has no functions for C."""
    kinds = [torch.Tensor, torch.nn.Parameter]
    ways = torch.Tensor.is_neg, torch._C._to_dlpack, torch._C._from_dlpack
    return _autograd._core.Exchange(None, kinds, *ways)


EXCHANGES = pytest.mark.parametrize("exchange", [_autograd._exchange, by_capsules()])


@pytest.mark.parametrize("kind", LAYERS + CELLS)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (16, 32), (37, 20), (40, 128), (37, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_step_of_few_rows_reads_weights_in_place_to_the_same_bits(kind, sizes, dtype):
    options = {} if kind in CELLS else {"num_layers": 2, "bidirectional": True}
    module = kind(*sizes, dtype=dtype, **options)
    weights = list(module.parameters())
    # Of so many rows weights are packed. Those beside the few add nothing to a gradient.
    x = torch.randn(1, 40, sizes[0], dtype=dtype)

    def run(rows, few):
        given = x[:, :rows].clone().requires_grad_()
        output = module(given[0] if kind in CELLS else given)
        output = output[0] if isinstance(output, tuple) else output
        output = output[None] if kind in CELLS else output
        d_output = torch.zeros_like(output)
        d_output[:, :few] = torch.linspace(-1, 1, d_output[:, :few].numel()).view_as(
            d_output[:, :few]
        )
        dx, *others = torch.autograd.grad(output, [given, *weights], d_output)
        return output[:, :few], dx[:, :few], *others

    for few in (1, 3, 7):
        expected = run(40, few)
        same(run(few, few), expected, 0)
        with torch.no_grad():
            given = x[0, :few] if kind in CELLS else x[:, :few]
            found = module(given)
            found = found[0] if isinstance(found, tuple) else found
            same(found.view_as(expected[0]), expected[0], 0)
            weights[1].data.mul_(1.5)
            same(module(given), theirs(module)(given), 1e-5)


def test_one_step_goes_back_with_the_weights_of_its_own_call():
    layer, x = LSTM(64, 64), torch.randn(1, 2, 64, requires_grad=True)
    y, _ = layer(x)
    layer(torch.randn(1, 2, 64))
    layer(torch.randn(5, 2, 64))
    expected, _ = theirs(layer)(x)
    (found,), (gradient,) = (torch.autograd.grad(out.sum(), x) for out in (y, expected))
    same(found, gradient, 1e-6)
    y, _ = layer(x)
    with torch.no_grad():
        layer.weight_ih_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@EXCHANGES
def test_weights_of_one_step_that_are_not_read_are_refused(exchange):
    layer = RNN(3, 160)
    stack = stack_of(exchange, layer)
    own = list(layer.parameters())
    x, h = torch.randn(1, 2, 3), torch.zeros(1, 2, 160)
    outputs, record = stack.forward(own, x, h, None, None, False, False, True, 1)
    for weights in (
        own[:3],
        [own[0].t(), *own[1:]],
        [own[0].reshape(3, 160), *own[1:]],
        [own[0].double(), *own[1:]],
        [own[0].t().contiguous().t(), *own[1:]],
    ):
        assert record.backward(x, weights, outputs[0], None, None, [True] * 7, 1) is None
    with pytest.raises(ValueError, match="d_h: expected shape"):
        record.backward(x, own, None, h[:, :1], None, [True] * 7, 1)
    assert not record.is_used()
    assert record.backward(x, own, outputs[0], None, None, [True] * 7, 1) is not None
    assert record.is_used()


def test_weights_written_before_backward_are_torchs_error():
    layer = LSTM(3, 4)
    output, _ = layer(torch.randn(5, 2, 3))
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_an_input_written_before_backward_is_torchs_error():
    # It is read where it lies, so that nothing else would tell.
    layer, x = LSTM(16, 16), torch.randn(5, 2, 16)
    output, _ = layer(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("size", [16, 5])
@pytest.mark.parametrize("batch_first", [False, True])
def test_an_input_of_any_layout_gives_the_same_gradients(size, *, batch_first):
    layer = GRU(size, 16, batch_first=batch_first)
    x = torch.randn(4, 3, size)
    wide = torch.randn(4, 3, 2 * size)
    layouts = [x.transpose(0, 1).contiguous().transpose(0, 1), wide[..., :size], wide[..., ::2]]
    layouts += [x[:1, :1].expand(4, 3, size), x.permute(2, 0, 1).contiguous().permute(1, 2, 0)]
    for laid in layouts:
        found = []
        for given in (laid, laid.clone(memory_format=torch.contiguous_format)):
            given = given.detach().requires_grad_()
            layer.zero_grad()
            layer(given)[0].square().sum().backward()
            found.append([given.grad, *(weight.grad for weight in layer.parameters())])
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_record_keeps_its_weights():
    first, second = LSTM(3, 4, dtype=torch.float64), LSTM(3, 4, dtype=torch.float64)
    second.weight_ih_l0 = first.weight_ih_l0
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found = []
    for a, b in ((first, second), (theirs(first), theirs(second))):
        one, two = a(x)[0], b(x)[0]
        gradients = torch.autograd.grad(one.sum(), list(a.parameters()))
        found.append([*gradients, *torch.autograd.grad((two * two).sum(), list(b.parameters()))])
    same(*found)


def test_backward_twice():
    layer = GRU(3, 4, 2, dtype=torch.float64)
    output, _ = layer(torch.randn(5, 2, 3, dtype=torch.float64))
    weights = list(layer.parameters())
    once = torch.autograd.grad(output.sum(), weights, retain_graph=True)
    same(torch.autograd.grad(output.sum(), weights), once, 0)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(output.sum(), weights)


def test_tied_layers_sum_their_gradients():
    layer = LSTM(4, 4, 2, dtype=torch.float64)
    layer.weight_hh_l1 = layer.weight_ih_l1 = layer.weight_ih_l0 = layer.weight_hh_l0
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    found = []
    for module in (layer, theirs(layer)):
        found.append(torch.autograd.grad(module(x)[0].sum(), list(module.parameters())))
    same(*found)


def test_frozen_weights_have_no_gradient():
    layer = LSTM(3, 4, 2)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    layer.bias_hh_l1.requires_grad_()
    x = torch.randn(5, 2, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    assert x.grad is not None
    assert [n for n, p in layer.named_parameters() if p.grad is not None] == ["bias_hh_l1"]


@pytest.mark.parametrize("frozen", [("l0",), ("l0", "l1"), ("l1",), ("l1", "l2")], ids=str)
def test_frozen_layers(frozen):
    layer = GRU(3, 4, 3, bidirectional=True, dtype=torch.float64)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found = []
    for module in (layer, theirs(layer)):
        wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
        found.append(torch.autograd.grad(module(x)[0].pow(2).sum(), wanted))
    same(*found)


def test_inference_mode():
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.inference_mode():
        output, _ = layer(x)
    assert output.is_inference()
    same(output, layer(x)[0], 0)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("size", [(0, 2, 3), (5, 0, 3)], ids=["no steps", "no sequences"])
def test_nothing_as_torch(kind, size):
    x = torch.zeros(size)
    expected = kind(3, 4)
    layer = rnncore.torch.convert(copy.deepcopy(expected))
    found = []
    for module in (layer, expected):
        try:
            found.append(parts(module(x)))
        except RuntimeError as error:
            found.append(str(error))
    assert type(found[0]) is type(found[1])
    if isinstance(found[0], str):
        assert found[0] == found[1]
    else:
        same(*found)


def wrong_states():
    x = torch.zeros(5, 2, 3)
    return [
        (x, (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))),
        (x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))),
        (x, (torch.zeros(2, 4), torch.zeros(2, 4))),
        (x, (torch.zeros(1, 2, 4).double(), torch.zeros(1, 2, 4).double())),
        (x.double(), None),
        (x[..., :2], None),
        (x[0, 0], None),
        (x[:, 0], (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))),
    ]


@pytest.mark.parametrize("number", range(len(wrong_states())))
def test_errors_are_torchs(number):
    x, state = wrong_states()[number]
    layer = LSTM(3, 4)
    messages = []
    for module in (layer, theirs(layer)):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            module(x, state)
        messages.append((type(caught.value), str(caught.value)))
    assert messages[0] == messages[1]


# Around the modules.


def test_convert_and_revert():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.LSTM(3, 4), "b": torch.nn.Sequential(torch.nn.GRUCell(3, 4))}
    )
    own = type("Own", (torch.nn.GRU,), {})
    model["c"] = own(3, 4)
    before = list(model.parameters())
    assert rnncore.torch.convert(model) is model
    assert [type(m) for m in model.values()] == [LSTM, torch.nn.Sequential, own]
    assert type(model["b"][0]) is GRUCell
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    rnncore.torch.revert(model)
    assert type(model["a"]) is torch.nn.LSTM
    assert type(model["b"][0]) is torch.nn.GRUCell
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got"):
        rnncore.torch.convert([model])


def test_saved_whole():
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    same(torch.load(file, weights_only=False)(x), layer(x), 0)


def test_saved_whole_without_us():
    model = torch.nn.Sequential(LSTM(3, 4), GRUCell(4, 5))
    assert b"rnncore" in pickle.dumps(model)
    rnncore.torch.revert(model)
    assert b"rnncore" not in pickle.dumps(model)


def test_packed_weights_go_with_the_weights():
    gc.collect()
    before = len(_autograd._stacks)
    layer = LSTM(3, 4)
    output = layer(torch.randn(5, 2, 3))[0]
    assert len(_autograd._stacks) == before + 1
    gone = weakref.ref(layer.weight_ih_l0)
    del layer, output
    gc.collect()
    assert gone() is None
    assert len(_autograd._stacks) == before


def test_packed_weights_of_layers_between_dropouts_go_with_training():
    gc.collect()
    before = len(_autograd._stacks)
    layer = LSTM(3, 4, num_layers=3, dropout=0.5)
    for kept in (1, 3, 1):
        layer.train(kept == 3)
        layer(torch.randn(5, 2, 3))
        assert len(_autograd._stacks) == before + kept


@EXCHANGES
def test_what_is_not_read_is_refused(exchange):
    layer = LSTM(3, 4)
    stack = stack_of(exchange, layer)
    own = list(layer.parameters())
    x, h = torch.randn(5, 2, 3), torch.zeros(1, 2, 4)
    negated = torch._neg_view(x)

    def forward(weights=own, x=x, h=h, counts=None, single=False):
        return stack.forward(weights, x, h, h, counts, False, single, True, 1)

    outputs, record = forward()
    same(outputs, [layer(x, (h, h))[0], *layer(x, (h, h))[1]], 0)
    assert torch.equal(negated, -x)
    refused = [
        forward(own[:3]),
        forward([*own[:3], own[0]]),
        forward(x=x.double()),
        forward(x=x[0]),
        forward(x=x[0], h=h[0]),
        forward(x=x[..., :2]),
        forward(x=negated),
        forward(x=x.to_sparse()),
        forward(x=x.to("meta")),
        forward(x=x.numpy()),
        forward(x=x.as_subclass(type("Own", (torch.Tensor,), {}))),
        forward(single=True),
        forward(h=h[0]),
        forward(h=h.int()),
        forward(x=torch.randn(3, 3), counts=torch.tensor([2, 2])),
        forward(x=torch.randn(4, 3), counts=torch.tensor([3, 1])),
        forward(x=torch.randn(3, 3), counts=torch.tensor([2, 0, 1])),
        record.backward(x, own, x[0], None, None, [True] * 7, 1),
        record.backward(x[0], own, outputs[0], None, None, [True] * 7, 1),
        record.backward(x.double(), own, outputs[0], None, None, [True] * 7, 1),
        record.backward(x, own, None, h.double(), None, [True] * 7, 1),
        record.backward(x, own, torch._neg_view(outputs[0]), None, None, [True] * 7, 1),
    ]
    assert refused == [None] * len(refused)
    assert not record.is_used()
    assert record.backward(x, own, outputs[0], None, None, [True] * 7, 1) is not None
    assert record.backward(x, own, outputs[0], None, None, [True] * 7, 1) is None


@EXCHANGES
def test_tensors_go_in_and_out_without_a_copy(exchange):
    layer = RNN(3, 4)
    stack = stack_of(exchange, layer)
    x, h = torch.randn(5, 2, 3).transpose(0, 1).contiguous().transpose(0, 1), torch.zeros(1, 2, 4)
    held = [x, h, *layer.parameters()]
    before = [sys.getrefcount(tensor) for tensor in held]
    (output, end), record = stack.forward(held[2:], x, h, None, None, False, False, True, 1)
    gradients = record.backward(x, held[2:], torch.ones_like(output), None, None, [True] * 7, 1)
    assert [sys.getrefcount(tensor) for tensor in held] == before
    # They are tensors like any other, and the last to go takes the memory with it.
    del record
    for tensor in (output, end, *(gradient for gradient in gradients if gradient is not None)):
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        tensor.add_(1).resize_(0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@EXCHANGES
def test_memory_comes_back(exchange):
    layer = RNN(1, 256, bias=False)
    stack, weights = stack_of(exchange, layer), list(layer.parameters())
    x, h = torch.zeros(64, 64, 1), torch.zeros(1, 64, 256)

    def resident(calls):
        for _ in range(calls):
            stack.forward(weights, x, h, None, None, False, False, False, 1)
        # Now, not at most: a peak of other tests would hide what is lost.
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    before = resident(5)
    # Each call makes 4 MiB.
    assert resident(40) - before < 40 * 2**20


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_torchs(threads, monkeypatch):
    asked = []

    class Spy:
        def forward(self, *args):
            asked.append(args[-1])
            return stack.forward(*args)

    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    layer(x)
    stack = _autograd._stacks[id(layer.weight_ih_l0)][3]
    monkeypatch.setattr(_autograd, "_functional", lambda *_: Spy())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer(x)
    finally:
        torch.set_num_threads(before)
    assert asked == [threads]
