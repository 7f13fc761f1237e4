"""`rnncore.torch` inside `torch.compile`: in the graph as one operation, or beside it."""

import logging
import shutil

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from rnncore.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, _autograd, _compiled

pytest.importorskip("torch._dynamo")
# What older compilers do not do.
since_2_7 = pytest.mark.skipif(torch.__version__ < (2, 7), reason="an older compiler")
# What the compiler says for itself is much.
logging.getLogger("torch.__trace").propagate = False


@pytest.fixture(autouse=True)
def fresh():
    """One seed, one thread, and a compiler that takes recurrent modules and knows none yet."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()
    torch.set_num_threads(before)


@pytest.fixture
def counts(monkeypatch):
    """How often the kernels went forward: in a graph, and beside it."""
    found = {"graph": 0, "beside": 0}

    def counting(where, kernels):
        def counted(*args, **kwargs):
            made = kernels(*args, **kwargs)
            found[where] += made is not None
            return made

        return counted

    monkeypatch.setattr(_compiled, "forward", counting("graph", _autograd.forward))
    monkeypatch.setattr(_autograd, "forward", counting("beside", _autograd.forward))
    return found


class Model(torch.nn.Module):
    """Something before a recurrent module, and something after it."""

    def __init__(self, kind, *args, **kwargs):
        super().__init__()
        self.before = torch.nn.Linear(3, 6)
        self.layer = kind(6, 4, *args, **kwargs)
        self.after = torch.nn.LazyLinear(2)

    def forward(self, x, state=None):
        output, end = self.layer(torch.relu(self.before(x)), state)
        ends = end if isinstance(end, tuple) else (end,)
        return self.after(output), *ends


def model_of(kind, *args, dtype=torch.float64, **kwargs):
    model = Model(kind, *args, **kwargs).to(dtype)
    model(torch.zeros(1, 1, 3, dtype=dtype))
    return model


def compiled(model, **kwargs):
    return torch.compile(model, **{"backend": "aot_eager", "fullgraph": True, **kwargs})


def outcome(run, wanted, *inputs):
    torch.manual_seed(1)
    outputs = run(*inputs)
    loss = sum((part * part).sum() for part in outputs)
    return outputs, torch.autograd.grad(loss, wanted)


def compare(model, run, *inputs, plain=None):
    wanted = [t for t in [*inputs, *model.parameters()] if t.requires_grad]
    found = [outcome(call, wanted, *inputs) for call in (run, plain or model)]
    rtol = 1e-9 if inputs[0].dtype is torch.float64 else 1e-5
    torch.testing.assert_close(*found, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (GRU, {"num_layers": 2, "dropout": 0.5}),
        (RNN, {"bias": False, "nonlinearity": "relu"}),
    ],
)
def test_layers_in_one_graph(kind, options, counts):
    model = model_of(kind, **options)
    run = compiled(model)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    counts.update(graph=0)
    compare(model, run, x)
    # What forward kept was found again.
    assert counts["graph"] == (2 if "dropout" in options else 1)
    assert not _autograd._bytes
    model.eval()
    compare(model, run, x)


def test_sizes_that_change(counts):
    model = model_of(LSTM, dtype=torch.float32)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    run = compiled(model, backend=backend, dynamic=True)
    for steps, batch in ((5, 2), (7, 3), (9, 4)):
        compare(model, run, torch.randn(steps, batch, 3))
    assert len(graphs) == 1
    assert counts["graph"] == 3


@pytest.mark.parametrize("kind", [RNNCell, LSTMCell, GRUCell])
def test_loops_of_cells_in_one_graph(kind, counts):
    cell = kind(3, 4, dtype=torch.float64)

    def loop(xs):
        state = None
        for x in xs:
            state = cell(x, state)
        return state if isinstance(state, tuple) else (state,)

    xs = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    # The compiler takes cells as they are, whatever it is told about layers.
    with torch._dynamo.config.patch(allow_rnn=False):
        run = compiled(loop)
        found = [outcome(f, [xs, *cell.parameters()], xs) for f in (run, loop)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    assert counts["graph"] == 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode, counts):
    model = model_of(GRU)
    run = compiled(model)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    with mode():
        torch.testing.assert_close(run(x), model(x))
    assert counts["graph"] == 1


def test_given_states_and_wishes():
    model = model_of(LSTM)
    model.layer.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    h, c = torch.randn(2, 1, 2, 4, dtype=torch.float64)
    h.requires_grad_()

    def call(x, h):
        return model(x, (h, c))

    compare(model, compiled(call), x, h, plain=call)


def test_backward_twice_runs_forward_again(counts):
    model = model_of(LSTM)
    run = compiled(model)
    weights = list(model.parameters())
    output, *_ = run(torch.randn(5, 2, 3, dtype=torch.float64))
    counts.update(graph=0, beside=0)
    once = torch.autograd.grad(output.sum(), weights, retain_graph=True, allow_unused=True)
    assert counts == {"graph": 0, "beside": 0}
    again = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    assert counts == {"graph": 0, "beside": 1}
    torch.testing.assert_close(again, once, rtol=0, atol=0)


def test_a_record_that_is_not_found_is_made_again(monkeypatch, counts):
    model = model_of(GRU)
    run = compiled(model)
    counts.update(beside=0)
    monkeypatch.setattr(_compiled, "as_record", lambda handle: None)
    compare(model, run, torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True))
    assert counts["beside"] == 2


# The compiler looks at outputs of a graph that was cut.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
@pytest.mark.parametrize("has_state", [False, True], ids=["no state", "state"])
def test_packed_rows(kind, has_state, counts):
    layer = kind(3, 4, 2, bidirectional=True, dtype=torch.float64)
    packed = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (5, 3, 3)])
    states = torch.randn(2, 4, 3, 4, dtype=torch.float64).unbind()
    state = None if not has_state else states if kind is LSTM else states[0]

    def call(data, batch_sizes):
        output, end = layer(PackedSequence(data, batch_sizes), state)
        return output.data, *(end if kind is LSTM else (end,))

    run, rest = compiled(call, fullgraph=False), packed.batch_sizes
    found = [outcome(f, list(layer.parameters()), packed.data, rest) for f in (run, call)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    assert sum(counts.values()) == 2


@since_2_7
def test_beside_the_graph(counts):
    """Without the compiler's leave, modules run as they do without it."""
    model = torch.nn.ModuleList([LSTM(3, 3 + i) for i in range(9)])

    def total(x):
        ends = []
        for layer in model:
            ends.append(layer(torch.relu(x))[0])
        return ends

    x = torch.randn(5, 2, 3, requires_grad=True)
    with torch._dynamo.config.patch(allow_rnn=False, error_on_recompile=True):
        run = compiled(total, fullgraph=False)
        compare(model, run, x, plain=total)
    assert counts == {"graph": 0, "beside": 18}


def test_autocast_is_left_to_torch(counts):
    model = model_of(GRU, dtype=torch.float32)
    x = torch.randn(5, 2, 3)

    def halved(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    torch.testing.assert_close(compiled(halved)(x), halved(x))
    assert counts["graph"] == 0


@since_2_7
def test_transforms_are_left_to_torch(counts):
    layer, x = GRU(6, 4), torch.randn(5, 2, 6)
    weights = dict(layer.named_parameters())

    def gradients(weights):
        def loss(weights):
            return torch.func.functional_call(layer, weights, (x,))[0].pow(2).sum()

        return torch.func.grad(loss)(weights)

    torch.testing.assert_close(compiled(gradients, fullgraph=False)(weights), gradients(weights))
    assert counts["graph"] == 0


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")
@since_2_7
def test_exports_do_not_need_us():
    model = model_of(LSTM, dtype=torch.float32)
    x = torch.randn(5, 2, 3)
    for strict in (True, False):
        program = torch.export.export(model, (x,), strict=strict)
        assert not [n for n in program.graph.nodes if "rnncore" in str(n.target)]
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_operations_keep_torchs_rules():
    shapes = [(5, 2, 3), (2, 2, 4), (2, 2, 4)]
    x, h, c = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weights = [
        weight.detach().requires_grad_() for weight in LSTM(3, 4, bidirectional=True).parameters()
    ]
    settings = ("lstm", 1, True, True, False, False, True)
    torch.library.opcheck(torch.ops.rnncore.forward.default, (x, None, h, c, weights, *settings))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor(counts):
    model = model_of(LSTM, 2, bidirectional=True)
    run = compiled(model, backend="inductor")
    counts.update(graph=0, beside=0)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    compare(model, run, x)
    assert counts == {"graph": 1, "beside": 1}
