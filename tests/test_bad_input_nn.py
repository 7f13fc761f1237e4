"""Bad arguments of layers, cells, optimizers and initialisers: each refused, by name."""

import numpy as np
import pytest
import torch

import rnncore
from rnncore import init, nn, optim

NAN, INF = float("nan"), float("inf")


def case(error, match, *args, **kwargs):
    return pytest.param(args, kwargs, error, match, id=match)


Z = np.zeros((5, 3, 4), np.float32)
S = np.zeros((2, 3, 6))


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        case(
            ValueError, r"x: expected shape \(T, B, 4\) or \(T, 4\), got \(5, 3, 2\)", Z[:, :, :2]
        ),
        case(ValueError, r"x: expected shape \(T, B, 4\) or \(T, 4\), got \(4,\)", Z[0, 0]),
        case(ValueError, r"x: expected shape \(T, B, 4\) or \(T, 4\), got \(1, 5, 3, 4\)", Z[None]),
        case(TypeError, r"x: expected floats .* got int64 array", Z.astype(np.int64)),
        case(TypeError, r"x: expected floats .* got complex64 array", Z.astype(np.complex64)),
        case(TypeError, r"x: expected floats .* got str", Z.astype(str)),
        case(
            TypeError,
            r"x: expected an array of numbers, got object array of shape",
            Z.astype(object),
        ),
        case(TypeError, r"x: expected an array of numbers, got None", None),
        case(ValueError, r"x: expected a rectangular array", [[1.0], [1.0, 2.0]]),
        case(TypeError, r"hx: expected a pair \(h, c\), got float64 array", Z, S),
        case(TypeError, r"hx: expected a pair \(h, c\), got tuple", Z, (S, S, S)),
        case(ValueError, r"hx\[1\]: expected shape \(2, 3, 6\), got \(1, 3, 6\)", Z, (S, S[:1])),
        case(ValueError, r"hx\[0\]: expected shape \(2, 6\), got \(2, 3, 6\)", Z[:, 0], (S, S)),
        case(TypeError, r"hx\[0\]: expected floats", Z, (S.astype(int), S)),
        case(
            ValueError,
            r"lengths: expected lengths in 0\.\.5, got 6 for sequence 2",
            Z,
            None,
            [1, 2, 6],
        ),
        case(ValueError, r"lengths: expected shape \(3,\), got \(5,\)", Z, None, [1] * 5),
        case(TypeError, r"lengths: expected integers, got float64 array", Z, None, [1.0, 2.0, 3.0]),
        case(ValueError, r"lengths: expected None with an unbatched x", Z[:, 0], None, [3]),
        case(TypeError, r"unexpected keyword argument 'state'", Z, state=None),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_layers_refuse(args, kwargs, error, match, method):
    with pytest.raises(error, match=match):
        getattr(nn.LSTM(4, 6, 2), method)(*args, **kwargs)


def test_constructors_may_hand_arguments_on():
    class Handing(nn.LSTM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Wide(rnncore.optim.SGD):
        def __init__(self, *, width, **kwargs):
            super().__init__(**kwargs)
            self.width = width

    assert Handing(4, hidden_size=6).hidden_size == 6
    assert Wide(width=2, learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(TypeError, match="unexpected keyword argument 'units'"):
        Handing(4, units=6)
    with pytest.raises(TypeError, match=r"Wide: expected nothing by position"):
        Wide(2)


def test_forward_refuses():
    with pytest.raises(TypeError, match="copy: expected True or False, got None"):
        nn.GRU(4, 6).forward(Z, copy=None)


def test_layers_name_their_own_layout():
    with pytest.raises(ValueError, match=r"x: expected shape \(B, T, 4\) or \(T, 4\)"):
        nn.GRU(4, 6, batch_first=True)(Z[:, :, :3])
    with pytest.raises(ValueError, match=r"hx: expected shape \(1, 3, 6\), got \(2, 3, 6\)"):
        nn.GRU(4, 6)(Z, S)


def test_backward_refuses():
    layer = nn.LSTM(4, 6)
    output, (h, c), tape = layer.forward(Z)
    with pytest.raises(TypeError, match=r"tape: expected what forward returned, got .*array"):
        layer.backward(output, output)
    with pytest.raises(ValueError, match=r"d_output: expected shape \(5, 3, 6\), got \(5, 3, 4\)"):
        layer.backward(tape, Z)
    with pytest.raises(TypeError, match=r"d_output: expected floats of shape \(5, 3, 6\), got int"):
        layer.backward(tape, output.astype(int))
    with pytest.raises(TypeError, match=r"d_state: expected a pair \(h, c\), got float32 array"):
        layer.backward(tape, output, h)
    with pytest.raises(ValueError, match=r"d_state\[1\]: expected shape \(1, 3, 6\), got \(3, 6\)"):
        layer.backward(tape, output, (h, c[0]))
    layer.backward(tape, output)  # the refusals have not used it up


def test_cells_refuse():
    cell = nn.LSTMCell(4, 6)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, 4\) or \(4,\), got \(5, 3, 4\)"):
        cell(Z)
    with pytest.raises(ValueError, match=r"hx\[0\]: expected shape \(3, 6\), got \(2, 6\)"):
        cell(Z[0], (np.zeros((2, 6)), np.zeros((3, 6))))
    with pytest.raises(TypeError, match="tape: expected what forward returned, got None"):
        cell.backward(None, None)


@pytest.mark.parametrize("layer_type", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        case(ValueError, "input_size: expected an integer >= 1, got 0", 0, 3),
        case(TypeError, "hidden_size: expected an integer >= 1, got float 3.0", 2, 3.0),
        case(ValueError, "num_layers: expected an integer >= 1, got 0", 2, 3, 0),
        case(TypeError, "bias: expected True or False, got int 1", 2, 3, bias=1),
        case(TypeError, "batch_first: expected True or False, got None", 2, 3, batch_first=None),
        case(ValueError, r"dropout: expected .* got 1\.5", 2, 3, dropout=1.5),
        case(TypeError, "dropout: expected .* got True", 2, 3, dropout=True),
        case(
            ValueError, "dtype: expected 'float32' or 'float64', got 'int32'", 2, 3, dtype="int32"
        ),
        case(TypeError, "random_state: expected", 2, 3, random_state=1.5),
        case(
            TypeError,
            "expected some of input_size, .* got the unknown argument 'zoneout",
            2,
            3,
            zoneout=0.1,
        ),
    ],
)
def test_layers_refuse_to_be_built(layer_type, args, kwargs, error, match):
    with pytest.raises(error, match=match):
        layer_type(*args, **kwargs)


def test_layers_beyond_memory_are_refused():
    with pytest.raises(MemoryError, match="weights do not fit into memory"):
        nn.LSTM(4, 2**22)
    with pytest.raises(MemoryError, match="a model with hidden_size 2147483647 do not fit"):
        nn.LSTM(2**31 - 1, 2**31 - 1)


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((0, 2**40, 3), None), ((2**40, 0, 3), None), ((2**42, 1, 3), None), ((2**42, 1, 3), [2])],
)
def test_batches_beyond_memory_are_refused(shape, lengths):
    x = np.broadcast_to(np.float32(0), shape)  # which take none themselves
    with pytest.raises(MemoryError, match=r"\d+ numbers of a batch do not fit into memory"):
        nn.LSTM(3, 4).forward(x, lengths=lengths)


def test_nonlinearity_is_checked():
    with pytest.raises(ValueError, match=r"nonlinearity: expected one of 'tanh', .*, got 'elu'"):
        nn.RNN(2, 3, nonlinearity="elu")
    with pytest.raises(TypeError, match=r"nonlinearity: expected one of .* got True"):
        nn.RNNCell(2, 3, nonlinearity=True)
    with pytest.raises(TypeError, match="nonlinearity"):
        nn.LSTM(2, 3, nonlinearity="relu")
    with pytest.raises(TypeError, match="residual: expected True or False"):
        nn.RNNCell(2, 3, residual=1)
    with pytest.raises(TypeError, match="locked_dropout: expected True or False"):
        nn.GRU(2, 3, locked_dropout=None)


def test_weights_and_gradients_are_checked():
    layer = nn.GRU(2, 3)
    optimizer = optim.SGD()
    grads = {name: 0 * value for name, value in layer.state_dict().items()}
    with pytest.raises(
        TypeError, match="state_dict: expected a mapping of names to arrays, got li"
    ):
        layer.load_state_dict([1])
    with pytest.raises(TypeError, match=r"state_dict\['bias_hh_l0'\]: expected floats"):
        layer.load_state_dict({**grads, "bias_hh_l0": np.zeros(9, int)})
    with pytest.raises(ValueError, match=r"grads: expected the names .* missing: weight_ih_l0"):
        layer.apply_gradients({}, optimizer)
    with pytest.raises(ValueError, match=r"grads\['weight_hh_l0'\]: expected shape \(9, 3\)"):
        layer.apply_gradients({**grads, "weight_hh_l0": np.zeros((9, 4))}, optimizer)
    with pytest.raises(TypeError, match=r"optimizer: expected one of rnncore.optim, got str 'sgd'"):
        layer.apply_gradients(grads, "sgd")


@pytest.mark.parametrize(
    ("kind", "kwargs", "error", "match"),
    [
        (optim.SGD, {"learning_rate": -1}, ValueError, "learning_rate: expected .* >= 0, got -1"),
        (optim.SGD, {"learning_rate": "0.1"}, TypeError, "learning_rate: expected .* got str"),
        (optim.SGD, {"momentum": NAN}, ValueError, "momentum: expected .* got nan"),
        (optim.SGD, {"dampening": 2}, ValueError, "dampening: expected .* <= 1, got 2"),
        (optim.SGD, {"nesterov": 1}, TypeError, "nesterov: expected True or False, got int 1"),
        (optim.SGD, {"nesterov": True}, ValueError, "nesterov: expected a momentum above 0"),
        (
            optim.SGD,
            {"momentum": 0.9, "dampening": 0.1, "nesterov": True},
            ValueError,
            r"nesterov: expected .* no dampening beside it, got momentum=0\.9, dampening=0\.1",
        ),
        (optim.SGD, {"amsgrad": True}, TypeError, "expected some of learning_rate, momentum"),
        (optim.Adam, {"beta1": 1.0}, ValueError, "beta1: expected .* < 1, got 1"),
        (optim.Adam, {"beta2": -0.1}, ValueError, "beta2: expected .* got -0.1"),
        (optim.Adam, {"eps": 0}, ValueError, "eps: expected .* > 0, got 0"),
        (optim.Adam, {"weight_decay": INF}, ValueError, "weight_decay: expected .* got inf"),
        (optim.Adam, {"clip_norm": 0}, ValueError, "clip_norm: expected .* > 0, got 0"),
        (optim.Adam, {"clip_value": None, "clip_norm": "1"}, TypeError, "clip_norm: .* got str"),
    ],
)
def test_optimizers_refuse(kind, kwargs, error, match):
    with pytest.raises(error, match=match):
        kind(**kwargs)
    optimizer = kind()
    with pytest.raises(ValueError, match="learning_rate: expected"):
        optimizer.learning_rate = -0.5


@pytest.mark.parametrize(
    ("kind", "word", "right"),
    [
        (nn.LSTM, "seed", "random_state"),
        (nn.RNN, "activation", "nonlinearity"),
        (nn.GRUCell, "hiden_size", "hidden_size"),
        (optim.SGD, "lr", "learning_rate"),
        (optim.Adam, "betas", "beta1"),
    ],
)
def test_other_words_are_answered_with_the_right_one(kind, word, right):
    match = f"^{kind.__name__}: expected '{right}', got the unknown argument '{word}'$"
    with pytest.raises(TypeError, match=match):
        kind(**{word: 1})


def test_optimizers_take_no_other_attribute():
    for optimizer in (optim.SGD(), optim.Adam()):
        with pytest.raises(AttributeError, match="no attribute 'lr'"):
            optimizer.lr = 0.5


def test_initialisers_refuse():
    layer = nn.GRU(2, 3)
    with pytest.raises(
        ValueError, match=r"names: expected the start of one of weight_ih_l0, .*'b0'"
    ):
        init.uniform(layer, "b0")
    with pytest.raises(ValueError, match="names: expected weights alone, got 'bias_ih_l0', a bias"):
        init.orthogonal(layer, "")
    with pytest.raises(ValueError, match="layer: expected an LSTM, got GRU"):
        init.forget_bias(layer)
    with pytest.raises(ValueError, match="layer: expected one with biases, got LSTM"):
        init.forget_bias(nn.LSTM(2, 3, bias=False))
    with pytest.raises(TypeError, match="value: expected a finite number, got str"):
        init.forget_bias(nn.LSTM(2, 3), "1")
    with pytest.raises(TypeError, match="names: expected a string, got 3"):
        init.zeros(layer, 3)


@pytest.mark.parametrize(
    "fill",
    [getattr(init, name) for name in init.__all__],
)
@pytest.mark.parametrize(
    "layer", [3, nn.LSTM, torch.nn.LSTM(2, 3)], ids=lambda it: type(it).__name__
)
def test_initialisers_fill_layers(fill, layer):
    with pytest.raises(TypeError, match=r"layer: expected a layer or cell of rnncore\.nn, got "):
        fill(layer)


def test_tensors_that_are_no_arrays_are_named():
    weight = torch.nn.Parameter(torch.zeros(4, 2))
    with pytest.raises(TypeError, match=r"x: expected an array, got Parameter .* requires grad"):
        nn.RNN(2, 3)(weight)
    with pytest.raises(TypeError, match=r"x: expected an array, got Tensor .* BFloat16"):
        nn.RNN(2, 3)(torch.zeros(4, 2, dtype=torch.bfloat16))
    weights = dict(torch.nn.RNN(2, 3).named_parameters())
    with pytest.raises(
        TypeError, match=r"state_dict\['weight_ih_l0'\]: expected an array, got Par"
    ):
        nn.RNN(2, 3).load_state_dict(weights)
    X = np.zeros((4, 3, 2))
    with pytest.raises(TypeError, match=r"y: expected an array, got Parameter of shape \(4,\)"):
        rnncore.RNN(2).fit(X, torch.nn.Parameter(torch.zeros(4)))


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_threads_are_checked(n, error):
    with pytest.raises(error, match=f"n: expected an integer >= 1, got .*{n}"):
        rnncore.set_num_threads(n)
