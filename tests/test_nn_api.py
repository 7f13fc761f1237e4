"""Layers and cells as people call them: shapes, states, tapes, weights, copies, array formats."""

import copy
import doctest
import pickle

import numpy as np
import pytest

import rnncore
from rnncore import _models, nn, optim, preprocessing, text

LAYERS = [nn.RNN, nn.LSTM, nn.GRU]
CELLS = [nn.RNNCell, nn.LSTMCell, nn.GRUCell]
T, B, I, H = 5, 3, 4, 6  # noqa: E741


def h_of(state):
    return state[0] if isinstance(state, tuple) else state


def parts(state):
    return list(state) if isinstance(state, tuple) else [state]


def assert_same_state(actual, expected):
    assert type(actual) is type(expected)
    for a, b in zip(parts(actual), parts(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, I))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_shapes_are_torchs(layer_type, num_layers, bidirectional, x):
    directions = 1 + bidirectional
    layer = layer_type(I, H, num_layers, bidirectional=bidirectional)
    output, state = layer(x)
    assert output.shape == (T, B, directions * H)
    assert {part.shape for part in parts(state)} == {(num_layers * directions, B, H)}
    assert len(parts(state)) == (2 if layer_type is nn.LSTM else 1)

    output, state = layer(x[:, 0])
    assert output.shape == (T, directions * H)
    assert {part.shape for part in parts(state)} == {(num_layers * directions, H)}

    output, state, tape = layer.forward(x[:, 0])
    dx, dhx, grads = layer.backward(tape, output, state)
    assert dx.shape == (T, I)
    assert [part.shape for part in parts(dhx)] == [part.shape for part in parts(state)]
    assert {name: value.shape for name, value in grads.items()} == layer.parameter_shapes()


@pytest.mark.parametrize("layer_type", LAYERS)
def test_batch_first_transposes_input_and_output_alone(layer_type, x, rng):
    time_major = layer_type(I, H, 2, random_state=1)
    batch_major = layer_type(I, H, 2, batch_first=True)
    batch_major.load_state_dict(time_major.state_dict())
    output, state, tape = time_major.forward(x)
    output_b, state_b, tape_b = batch_major.forward(x.swapaxes(0, 1))
    np.testing.assert_array_equal(output_b, output.swapaxes(0, 1))
    assert_same_state(state_b, state)

    d_output = rng.standard_normal(output.shape)
    dx, dhx, grads = time_major.backward(tape, d_output, state)
    dx_b, dhx_b, grads_b = batch_major.backward(tape_b, d_output.swapaxes(0, 1), state_b)
    np.testing.assert_array_equal(dx_b, dx.swapaxes(0, 1))
    assert_same_state(dhx_b, dhx)
    for name, value in grads.items():
        np.testing.assert_array_equal(grads_b[name], value)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_unbatched_is_a_batch_of_one(layer_type, batch_first, x):
    layer = layer_type(I, H, 2, batch_first=batch_first, bidirectional=True)
    one = x[:, :1].swapaxes(0, 1) if batch_first else x[:, :1]
    output, state = layer(one)
    output_1, state_1 = layer(x[:, 0])
    np.testing.assert_array_equal(output_1, output.reshape(T, 2 * H))
    for a, b in zip(parts(state_1), parts(state), strict=True):
        np.testing.assert_array_equal(a, b[:, 0])


@pytest.mark.parametrize("layer_type", LAYERS)
def test_state_carries_a_sequence_on(layer_type, x):
    layer = layer_type(I, H, 2)
    output, state = layer(x)
    first, middle = layer(x[:2])
    second, end = layer(x[2:], middle)
    np.testing.assert_array_equal(np.concatenate([first, second]), output)
    assert_same_state(end, state)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_lengths_end_sequences(layer_type, bidirectional, x, rng):
    layer = layer_type(I, H, 2, bidirectional=bidirectional)
    shape = (2 * (1 + bidirectional), B, H)
    hx = rng.standard_normal(shape)
    hx = (hx, rng.standard_normal(shape)) if layer_type is nn.LSTM else hx
    lengths = np.array([2, 0, 5])
    padded = x.copy()
    padded[2:, 0] = padded[:, 1] = np.nan  # never read
    output, state = layer(padded, hx, lengths)
    for row, length in enumerate(lengths):
        own = tuple(part[:, row] for part in hx) if layer_type is nn.LSTM else hx[:, row]
        alone, end = layer(x[:length, row], own)
        np.testing.assert_array_equal(output[:length, row], alone)
        np.testing.assert_array_equal(output[length:, row], 0)
        for a, b in zip(parts(state), parts(end), strict=True):
            np.testing.assert_array_equal(a[:, row], b)


@pytest.mark.parametrize("layer_type", LAYERS)
def test_gradients_are_those_of_the_outputs(layer_type, rng):
    """The change along a random direction of everything at once, against the gradients."""
    layer = layer_type(I, H, 2, bidirectional=True, dtype="float64", random_state=0)
    lengths = [5, 0, 3]
    states = 2 if layer_type is nn.LSTM else 1
    inputs = [rng.standard_normal((T, B, I)), *rng.standard_normal((states, 4, B, H))]
    names = list(layer.state_dict())
    start = [*inputs, *layer.state_dict().values()]
    direction = [rng.standard_normal(value.shape) for value in start]
    d_output = rng.standard_normal((T, B, 2 * H))
    d_state = list(rng.standard_normal((states, 4, B, H)))

    def pack(values):
        return tuple(values) if states == 2 else values[0]

    def loss(step):
        values = [a + step * b for a, b in zip(start, direction, strict=True)]
        layer.load_state_dict(dict(zip(names, values[1 + states :], strict=True)))
        output, state = layer(values[0], pack(values[1 : 1 + states]), lengths)
        total = (output * d_output).sum()
        return total + sum((a * b).sum() for a, b in zip(parts(state), d_state, strict=True))

    numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5
    loss(0.0)
    _, _, tape = layer.forward(inputs[0], pack(inputs[1:]), lengths)
    dx, dhx, grads = layer.backward(tape, d_output, pack(d_state))
    exact = [dx, *parts(dhx), *(grads[name] for name in names)]
    analytic = sum((a * b).sum() for a, b in zip(exact, direction, strict=True))
    assert analytic == pytest.approx(numeric, rel=1e-7)


def test_missing_output_gradients_count_as_zeros(x):
    layer = nn.LSTM(I, H)
    output, (h, c), tape = layer.forward(x)
    expected = layer.backward(tape, np.zeros_like(output), (h, np.zeros_like(c)))
    _, _, tape = layer.forward(x)
    actual = layer.backward(tape, None, (h, None))
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[2]["weight_hh_l0"], expected[2]["weight_hh_l0"])


def test_a_tape_serves_once_and_its_own_weights(x):
    layer = nn.GRU(I, H)
    output, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="tape"):
        nn.GRU(I, H).backward(tape, output)
    layer.backward(tape, output)
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, output)
    _, _, tape = layer.forward(x)
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, output)


def test_dropout_acts_in_forward_alone(x):
    layer = nn.LSTM(I, H, 2, dropout=0.5, random_state=3)
    plain = nn.LSTM(I, H, 2)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])
    first, second = layer.forward(x)[0], layer.forward(x)[0]
    assert not np.array_equal(first, second)
    again = nn.LSTM(I, H, 2, dropout=0.5, random_state=3)
    np.testing.assert_array_equal(again.forward(x)[0], first)
    np.testing.assert_array_equal(again.forward(x)[0], second)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_without_a_second_layer_warns_the_caller(kind):
    with pytest.warns(UserWarning, match="dropout acts between layers") as warned:
        kind(I, H, dropout=0.5)
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize("module", [nn, _models, preprocessing, text])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


# Weights.


def test_weights_start_as_in_torch_and_by_the_seed():
    layer = nn.LSTM(40, 64, 2, random_state=0)
    values = np.concatenate([value.ravel() for value in layer.state_dict().values()])
    assert np.abs(values).max() <= 1 / 8
    assert values.std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.01)
    same, other = nn.LSTM(40, 64, 2, random_state=0), nn.LSTM(40, 64, 2, random_state=1)
    np.testing.assert_array_equal(same.weight_hh_l1, layer.weight_hh_l1)
    assert not np.array_equal(other.weight_hh_l1, layer.weight_hh_l1)


def test_parameter_names_are_torchs():
    assert list(nn.GRU(2, 3, 2, bidirectional=True).state_dict()) == [
        f"{kind}_l{layer}{direction}"
        for layer in (0, 1)
        for direction in ("", "_reverse")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert list(nn.RNN(2, 3, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert list(nn.LSTMCell(2, 3).state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]


@pytest.mark.parametrize("layer", [nn.LSTM(I, H), nn.LSTMCell(I, H)], ids=["layer", "cell"])
def test_weights_are_handed_out_as_copies(layer):
    name = next(iter(layer.state_dict()))
    before = layer.state_dict()[name]
    layer.state_dict()[name][:] = 7
    np.testing.assert_array_equal(layer.state_dict()[name], before)
    np.testing.assert_array_equal(getattr(layer, name), before)
    with pytest.raises(ValueError, match="read-only"):
        getattr(layer, name)[:] = 7
    with pytest.raises(AttributeError, match="load_state_dict"):
        setattr(layer, name, before)
    assert name in dir(layer)


def test_sizes_are_fixed():
    layer = nn.LSTM(I, H, 2, batch_first=True)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (I, H, 2)
    assert layer.bias is True
    assert layer.batch_first is True
    assert layer.dtype == np.float32
    with pytest.raises(AttributeError, match="fixed when the layer is built"):
        layer.hidden_size = 7
    with pytest.raises(AttributeError, match="no attribute 'weight_ih_l2'"):
        _ = layer.weight_ih_l2


def test_load_state_dict_takes_all_or_nothing(x):
    layer = nn.GRU(I, H)
    before = layer.state_dict()
    bad_names = {**before, "weight_ih_l1": before["weight_ih_l0"]}
    del bad_names["bias_ih_l0"]
    expected = r"missing: bias_ih_l0; unexpected: weight_ih_l1"
    with pytest.raises(ValueError, match=expected):
        layer.load_state_dict(bad_names)
    bad_shape = {name: value + 1 for name, value in before.items()}
    bad_shape["bias_hh_l0"] = np.zeros(5)
    with pytest.raises(ValueError, match=r"bias_hh_l0.*expected shape \(18,\), got \(5,\)"):
        layer.load_state_dict(bad_shape)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])

    changed = {name: (value + 1).astype(np.float64) for name, value in before.items()}
    output = layer(x)[0]
    layer.load_state_dict(changed)
    assert layer.weight_ih_l0.dtype == np.float32
    assert not np.array_equal(layer(x)[0], output)
    changed["weight_ih_l0"][:] = 0
    assert not (layer.weight_ih_l0 == 0).any()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))]
)
@pytest.mark.parametrize(
    "layer", [nn.RNN(I, H, 2, "relu", dropout=0.5), nn.LSTM(I, H), nn.GRUCell(I, H)], ids=str
)
def test_copies_and_pickles_are_equal_and_independent(layer, duplicate, x):
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    sequence = x[0] if isinstance(layer, nn.GRUCell) else x
    expected = layer(sequence)
    np.testing.assert_array_equal(h_of(twin(sequence)), h_of(expected))
    twin.load_state_dict({name: 0 * value for name, value in twin.state_dict().items()})
    np.testing.assert_array_equal(h_of(layer(sequence)), h_of(expected))


def test_repr_shows_what_differs_from_the_default():
    assert repr(nn.LSTM(3, 4)) == "LSTM(3, 4)"
    layer = nn.RNN(3, 4, 2, "relu", False, True, 0.5, True, dtype=np.float64)
    assert repr(layer) == (
        "RNN(3, 4, num_layers=2, nonlinearity='relu', bias=False, batch_first=True, "
        "dropout=0.5, bidirectional=True, dtype='float64')"
    )
    assert repr(nn.RNNCell(3, 4, True, "relu")) == "RNNCell(3, 4, nonlinearity='relu')"
    own = nn.RNN(3, 4, nonlinearity="softsign", residual=True, locked_dropout=True)
    assert repr(own) == "RNN(3, 4, nonlinearity='softsign', residual=True, locked_dropout=True)"


# Cells.


@pytest.mark.parametrize(("layer_type", "cell_type"), list(zip(LAYERS, CELLS, strict=True)))
def test_a_cell_is_one_step_of_the_layer(layer_type, cell_type, x):
    layer, cell = layer_type(I, H, random_state=0), cell_type(I, H)
    weights = layer.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    output, _ = layer(x)
    state = None
    for t in range(T):
        state = cell(x[t], state)
        np.testing.assert_array_equal(h_of(state), output[t])
    single = None
    for t in range(T):
        single = cell(x[t, 0], single)
        np.testing.assert_array_equal(h_of(single), output[t, 0])


def test_a_residual_cell_adds_its_step_to_the_state(x):
    options = {"nonlinearity": "sigmoid", "random_state": 0}
    plain, residual = nn.RNNCell(I, H, **options), nn.RNNCell(I, H, residual=True, **options)
    h = np.full((B, H), 0.25, "float32")
    np.testing.assert_array_equal(residual(x[0], h), plain(x[0], h) + h)


@pytest.mark.parametrize(("layer_type", "cell_type"), list(zip(LAYERS, CELLS, strict=True)))
def test_gradients_of_a_cell_are_those_of_the_layer(layer_type, cell_type, x, rng):
    layer, cell = layer_type(I, H, random_state=0), cell_type(I, H)
    weights = layer.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    states = list(rng.standard_normal((2, B, H)))
    hx = tuple(states) if layer_type is nn.LSTM else states[0]
    layer_hx = tuple(part[None] for part in states) if layer_type is nn.LSTM else states[0][None]
    _, _, tape = layer.forward(x[:1], layer_hx)
    dx, dhx, grads = layer.backward(tape, None, layer_hx)
    new, tape = cell.forward(x[0], hx)
    dx_c, dhx_c, grads_c = cell.backward(tape, hx)
    assert h_of(new).shape == (B, H)
    np.testing.assert_array_equal(dx_c, dx[0])
    for a, b in zip(parts(dhx_c), parts(dhx), strict=True):
        np.testing.assert_array_equal(a, b[0])
    assert list(grads_c) == list(cell.parameter_shapes())
    for name, value in grads_c.items():
        np.testing.assert_array_equal(value, grads[f"{name}_l0"])


# Training by hand.


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(0.3, momentum=0.9, nesterov=True, clip_norm=5.0),
        optim.Adam(0.02, clip_value=1.0),
    ],
    ids=["sgd", "adam"],
)
@pytest.mark.parametrize("layer_type", LAYERS)
def test_training_by_hand_learns(layer_type, optimizer, rng):
    """Output 0 shall be the previous input: only a state that is trained through time can do it."""
    layer = layer_type(1, 8, random_state=0)
    losses = []
    for _ in range(400):
        x = rng.standard_normal((10, 16, 1)) / 3
        output, _, tape = layer.forward(x)
        error = output[1:, :, :1] - x[:-1]
        losses.append(np.mean(error**2))
        d_output = np.zeros(output.shape)
        d_output[1:, :, :1] = 2 * error / error.size
        _, _, grads = layer.backward(tape, d_output)
        norm = layer.apply_gradients(grads, optimizer)
        assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in grads.values())), rel=1e-4)
    assert np.mean(losses[-20:]) < 0.1 * np.mean(losses[:3])


def test_sgd_takes_the_step_of_its_formula():
    layer = nn.LSTM(I, H, dtype="float64")
    optimizer = optim.SGD(0.1, momentum=0.9, weight_decay=0.01)
    grads = {name: np.full(shape, 0.5) for name, shape in layer.parameter_shapes().items()}
    expected = layer.weight_hh_l0
    velocity = 0.0
    for _ in range(3):
        layer.apply_gradients(grads, optimizer)
        velocity = 0.9 * velocity + 0.5 + 0.01 * expected
        expected = expected - 0.1 * velocity
        np.testing.assert_allclose(layer.weight_hh_l0, expected, rtol=1e-12, atol=1e-15)


def test_learning_rate_can_follow_a_schedule():
    layer, optimizer = nn.GRU(I, H, dtype="float64"), optim.SGD(0.1)
    optimizer.learning_rate = 0.25
    assert optimizer.learning_rate == 0.25
    assert "learning_rate=0.25" in repr(optimizer)
    before = layer.weight_hh_l0
    layer.apply_gradients({n: np.ones(s) for n, s in layer.parameter_shapes().items()}, optimizer)
    np.testing.assert_allclose(before - layer.weight_hh_l0, 0.25, rtol=1e-12)


def test_steps_to_nowhere_are_not_taken():
    layer, optimizer = nn.GRU(I, H), optim.SGD(1e3)
    before = layer.state_dict()
    for value in (np.nan, np.inf, 3e38):
        grads = {name: np.full(shape, value) for name, shape in layer.parameter_shapes().items()}
        with pytest.raises(FloatingPointError, match="not finite"):
            layer.apply_gradients(grads, optimizer)
    for name, weight in layer.state_dict().items():
        np.testing.assert_array_equal(weight, before[name])


# Arrays of all sorts.


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a.astype(np.float64), id="float64"),
        pytest.param(lambda a: a.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda a: np.repeat(a, 2, axis=2)[:, :, ::2], id="strided"),
        pytest.param(lambda a: a[::-1].copy()[::-1], id="negative strides"),
        pytest.param(lambda a: a.tolist(), id="list"),
        pytest.param(
            lambda a: np.frombuffer(b"x" + a.tobytes(), "u1")[1:].view("f4").reshape(a.shape),
            id="unaligned and read-only",
        ),
    ],
)
def test_formats_of_arrays_do_not_matter(change, x):
    x = x.astype(np.float32)
    layer = nn.LSTM(I, H)
    expected, _ = layer(x)
    changed = change(x)
    np.testing.assert_array_equal(layer(changed)[0], expected)
    hx = (changed, changed) if isinstance(changed, list) else (change(x),) * 2
    square = nn.LSTM(I, I, T)
    expected, _ = square(x, (x, x))
    np.testing.assert_array_equal(square(x, hx)[0], expected)


def test_half_precision_is_widened(x):
    layer = nn.GRU(I, H)
    half = x.astype(np.float16)
    np.testing.assert_array_equal(layer(half)[0], layer(half.astype(np.float32))[0])


def test_arguments_are_left_as_they_were(x):
    layer = nn.LSTM(I, H, dtype="float64")
    before = x.copy()
    output, state, tape = layer.forward(x, lengths=[5, 0, 2])
    kept = output.copy()
    layer.backward(tape, output, state)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(output, kept)


@pytest.mark.parametrize("shape", [(0, B, I), (T, 0, I), (0, 0, I)])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_no_steps_or_no_sequences(layer_type, shape, rng):
    layer = layer_type(I, H, 2)
    output, state, tape = layer.forward(np.zeros(shape))
    assert output.shape == (*shape[:2], H)
    assert h_of(state).shape == (2, shape[1], H)
    _, _, grads = layer.backward(tape, output, state)
    assert not any(value.any() for value in grads.values())


def test_results_do_not_depend_on_threads(rng):
    layer = nn.LSTM(7, 33, 2, bidirectional=True, random_state=0)
    x = rng.standard_normal((20, 37, 7))
    results = []
    for threads in (1, 2, 3):
        rnncore.set_num_threads(threads)
        assert rnncore.get_num_threads() == threads
        output, _, tape = layer.forward(x)
        dx, _, grads = layer.backward(tape, output)
        results.append([output, dx, *grads.values()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
