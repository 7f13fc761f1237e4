"""Numbers that other projects test their recurrent networks with, in their layouts.

The whole collections are beside the checkout, as files; a few cases are typed in below, so that
something of each layout is tested everywhere. Each layout here is one way of keeping the same
weights: a test says how to turn it into ours, and what has to come out.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from rnncore import nn

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def load(name: str) -> dict:
    path = VECTORS / name
    return json.loads(path.read_text()) if path.is_file() else {}


def load_weights(layer, per_direction: list[dict[str, np.ndarray]]) -> None:
    """Load (weight_ih, weight_hh, bias_ih, bias_hh) of each direction of a layer."""
    suffixes = ["_l0", "_l0_reverse"][: len(per_direction)]
    layer.load_state_dict(
        {
            name + suffix: value
            for suffix, weights in zip(suffixes, per_direction, strict=True)
            for name, value in weights.items()
        }
    )


# ONNX: gates of an LSTM in the order i, o, f, c, of a GRU z, r, h; X is (T, B, I), Y (T, D, B, H),
# biases are W's and R's one after the other. There is a layer that reads backwards alone.

ONNX_TO_OURS = {nn.RNN: [0], nn.LSTM: [0, 2, 3, 1], nn.GRU: [1, 0, 2]}


def from_onnx(layer_type, W, R, B, hidden_size):
    """Return the parameters of one direction."""
    order = ONNX_TO_OURS[layer_type]
    count = len(order) * hidden_size

    def reorder(array):
        return np.concatenate([np.split(array, len(order))[gate] for gate in order])

    W = np.reshape(np.asarray(W, float), (count, -1))
    R = np.broadcast_to(np.asarray(R, float), (count, hidden_size))
    weights = {"weight_ih": reorder(W), "weight_hh": reorder(R)}
    if B is not None:
        W_bias, R_bias = np.split(np.asarray(B, float), 2)
        weights |= {"bias_ih": reorder(W_bias), "bias_hh": reorder(R_bias)}
    return weights


def run_onnx(layer_type, direction, X, W, R, B, hidden_size, lengths=None, h0=None):
    """Run one layer on time-major X; return Y as (T, B, D*H) and the final states (D, B, H).

    `W`, `R`, `B` are lists of what each direction has.
    """
    X = np.asarray(X, float)
    layer = layer_type(
        X.shape[-1],
        hidden_size,
        bias=B[0] is not None,
        bidirectional=direction == "bidirectional",
        dtype="float64",
    )
    parameters = [from_onnx(layer_type, *each, hidden_size) for each in zip(W, R, B, strict=True)]
    load_weights(layer, parameters)
    if lengths is None:
        lengths = [X.shape[0]] * X.shape[1]
    if direction == "reverse":
        X = backwards(X, lengths)
    state = None if h0 is None else np.full((len(W), X.shape[1], hidden_size), h0)
    output, state = layer(X, state, lengths)
    return backwards(output, lengths) if direction == "reverse" else output, state


def backwards(array, lengths):
    """Turn each sequence of a time-major batch around within its length."""
    turned = array.copy()
    for sequence, length in enumerate(lengths):
        turned[:length, sequence] = array[:length, sequence][::-1]
    return turned


def from_directions(Y):
    """Bring ONNX's (T, D, B, H), or (T, B, H) of one direction, to (T, B, D*H)."""
    Y = np.asarray(Y)
    return Y if Y.ndim == 3 else np.concatenate(list(Y.swapaxes(0, 1)), axis=-1)


ORT_LSTM = load("ort_lstm.json")
ORT_GRU = load("ort_gru_lbr1.json")
ORT_RNN = load("ort_rnn.json")
BURN = load("burn_rnn.json")
RTEN = load("rten_rnn.json")


def cases(vectors: dict):
    """Parametrise with the cases of a file; skip where there is none."""
    found = [
        pytest.param(case, id=name)
        for name, case in vectors.get("cases", vectors).items()
        if isinstance(case, dict)
    ]
    missing = pytest.mark.skip(reason="needs ../shared/vectors beside the checkout")
    return pytest.mark.parametrize("case", found or [pytest.param(None, marks=missing)])


@cases(ORT_LSTM)
def test_onnx_runtimes_lstm(case):
    common = ORT_LSTM["common"]
    X = np.reshape(common["X"], common["X_shape"])
    count = 2 if case["direction"] == "bidirectional" else 1
    output, (h, c) = run_onnx(
        nn.LSTM,
        case["direction"],
        X,
        [common["W_onnx_iofc"]] * count,
        [0.1] * count,
        [None] * count,
        common["hidden_size"],
        case["lens"],
    )
    near = {"rtol": 0, "atol": common["tolerance"]}
    np.testing.assert_allclose(output, from_directions(case["Y"]), **near)
    np.testing.assert_allclose(h, np.reshape(case["Y_h"], h.shape), **near)
    np.testing.assert_allclose(c, np.reshape(case["Y_c"], c.shape), **near)


@cases(ORT_GRU)
def test_onnx_runtimes_gru(case):
    """Of the two forms that ONNX has, the one with the reset after the product, which is ours."""
    count = 2 if case["direction"] == "bidirectional" else 1
    output, _ = run_onnx(
        nn.GRU,
        case["direction"],
        case["X"],
        [case["W"]] * count,
        [case["R"]] * count,
        [case["B"]] * count,
        case["H"],
    )
    np.testing.assert_allclose(output, from_directions(case["Y"]), rtol=0, atol=2e-7)


@cases(ORT_RNN)
def test_onnx_runtimes_rnn(case):
    X = np.asarray(case["X"]).swapaxes(0, 1)  # these are batch-first, X and Y
    output, h = run_onnx(
        nn.RNN,
        case["direction"],
        X,
        case["W"],
        case["R"],
        case["B"],
        case["H"],
        case["lens"],
        case["h0"],
    )
    want = np.reshape(case["Y"], (X.shape[1], X.shape[0], -1)).swapaxes(0, 1)
    np.testing.assert_allclose(output, want, rtol=0, atol=2e-7)
    np.testing.assert_allclose(h, np.reshape(case["Y_h"], h.shape), rtol=0, atol=2e-7)


# Burn: each gate has W (I, H), its bias, R (H, H) and its bias, for x W and h R; batch-first. What
# is expected "without" an initial state, or of "no" h0, starts from zeros.

BURN_GATES = {
    nn.RNN: ["gate"],
    nn.LSTM: ["input_gate", "forget_gate", "cell_gate", "output_gate"],
    nn.GRU: ["reset_gate", "update_gate", "new_gate"],
}


def burn_layer(gates):
    """Build the layer that has these gates."""
    prefixes = sorted({name.rpartition(".")[0] for name in gates})
    own = {name.rpartition(".")[2] for name in gates}
    (layer_type,) = [of for of, names in BURN_GATES.items() if set(names) == own]
    per_direction = []
    for prefix in prefixes:
        names = [f"{prefix}.{name}".lstrip(".") for name in BURN_GATES[layer_type]]
        W, b, R, b_R = ([np.array(gates[name][part]) for name in names] for part in range(4))
        per_direction.append(
            {
                "weight_ih": np.hstack(W).T,
                "weight_hh": np.hstack(R).T,
                "bias_ih": np.hstack(b),
                "bias_hh": np.hstack(b_R),
            }
        )
    layer = layer_type(
        W[0].shape[0],
        W[0].shape[1],
        batch_first=True,
        bidirectional=len(prefixes) == 2,
        dtype="float64",
    )
    load_weights(layer, per_direction)
    return layer


def check_burn(case):
    layer, tensors = burn_layer(case["gates"]), case["tensors"]
    x = np.array(tensors["input"])
    shape = (2 if layer.bidirectional else 1, len(x), layer.hidden_size)
    given = [np.reshape(tensors[name], shape) for name in ("h0", "c0") if name in tensors]
    expected = {name: want for name, want in tensors.items() if name.startswith("expected")}
    assert expected
    for name, want in expected.items():
        from_zero = "without" in name or "no_h0" in name
        hx = None if from_zero else given[0] if len(given) == 1 else tuple(given)
        output, state = layer(x, hx)
        h, c = state if isinstance(layer, nn.LSTM) else (state, None)
        got = c if "_cn_" in name else h if "_hn_" in name else output
        np.testing.assert_allclose(got, want, rtol=0, atol=BURN_NEAR[type(layer)], err_msg=name)


# Half a unit of the last digit, but for the GRU, whose weights were rounded to four decimals.
BURN_NEAR = {nn.RNN: 6e-5, nn.LSTM: 6e-6, nn.GRU: 2e-4}


@cases(BURN)
def test_burns_layers(case):
    check_burn(case)


# rten: torch's own layout, unbatched, written as (shape, numbers).


@cases(RTEN)
def test_rtens_layers(case):
    def array(name):
        shape, numbers = case[name]
        return np.reshape(numbers, shape).astype("float32")

    parameters = {name: np.reshape(*pair[::-1]) for name, pair in case["params"].items()}
    lstm = len(parameters["weight_ih_l0"]) == 4 * parameters["weight_hh_l0"].shape[1]
    layer = (nn.LSTM if lstm else nn.GRU)(
        parameters["weight_ih_l0"].shape[1],
        parameters["weight_hh_l0"].shape[1],
        bidirectional="weight_ih_l0_reverse" in parameters,
    )
    layer.load_state_dict(parameters)
    state = [array(name) for name in ("initial_hidden", "initial_cell") if name in case]
    output, _ = layer(array("input"), (state if lstm else state[0]) if state else None)
    np.testing.assert_allclose(output, array("output"), rtol=0, atol=1e-6)


# Typed in: one case of each layout.


def test_a_reversed_lstm_with_lengths_in_onnx_order():
    output, (h, c) = run_onnx(
        nn.LSTM,
        "reverse",
        [[[1.0], [2.0]], [[10.0], [11.0]]],
        [[0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0, 13.0]],
        [0.1],
        [None],
        3,
        [1, 2],
    )
    want = [
        [[0.28828835, 0.36581863, 0.45679406], [0.64046413, 0.82303363, 0.91610711]],
        [[0.0, 0.0, 0.0], [0.62759886, 0.71640738, 0.74624585]],
    ]
    np.testing.assert_allclose(output, want, rtol=0, atol=1e-4)
    np.testing.assert_allclose(h[0], want[0], rtol=0, atol=1e-4)
    want_c = [[0.52497941, 0.54983425, 0.5744428], [1.34960834, 1.54772296, 1.65633056]]
    np.testing.assert_allclose(c[0], want_c, rtol=0, atol=1e-4)


def test_a_gru_with_biases_in_onnx_order():
    output, _ = run_onnx(
        nn.GRU,
        "forward",
        [[[-0.1], [0.2]], [[-0.3], [0.4]]],
        [[0.1, 0.2, 0.3, 0.2, 0.3, 0.1, 0.3, 0.1, 0.2]],
        [0.1],
        [
            [
                *[-0.01, 0.1, 0.01, -0.2, -0.02, 0.02, 0.3, -0.3, -0.3],
                *[-0.03, 0.5, -0.7, 0.05, -0.7, 0.3, 0.07, -0.03, 0.5],
            ]
        ],
        3,
    )
    want = [
        [[0.15024948, -0.11097029, -0.02121867], [0.18887489, -0.09747667, 0.02093463]],
        [[0.19538902, -0.19016478, -0.05644283], [0.30856851, -0.15190377, 0.05999807]],
    ]
    np.testing.assert_allclose(output, want, rtol=0, atol=2e-7)


def test_a_reversed_rnn_with_lengths_in_onnx_order():
    X = [
        [[0.54881352, 0.71518934], [0.41702199, 0.720324516]],
        [[0.60276335, 0.54488319], [0.0001143748, 0.30233258]],
        [[0.42365479, 0.64589411], [0.146755889, 0.0923385918]],
        [[0.4375872, 0.89177299], [np.nan, np.nan]],
        [[0.96366274, 0.38344151], [np.nan, np.nan]],
    ]
    output, h = run_onnx(
        nn.RNN,
        "reverse",
        X,
        [[0.60482931, 0.67304987, 0.13166776, -0.33417314, 0.66345924, -0.49411628]],
        [
            [
                [0.50877059, 0.78382635, 0.665046],
                [0.89860243, -0.71745688, 0.80142093],
                [-0.76517141, -0.88981366, -0.48568386],
            ]
        ],
        [[0.0] * 6],
        3,
        [5, 3],
    )
    first = [
        [0.87014002, 0.09402763, -0.54269236],
        [0.37661949, 0.28492415, 0.15850827],
        [0.8218801, -0.33996487, -0.7320742],
        [0.90398145, 0.61396617, -0.70602065],
        [0.68629962, -0.00125255, 0.4218055],
    ]
    second = [
        [0.64809889, -0.19472955, -0.24271242],
        [0.29596764, 0.08308408, -0.27175695],
        [0.14977546, -0.01153355, 0.05169443],
        [0, 0, 0],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(output[:, 0], first, rtol=0, atol=2e-7)
    np.testing.assert_allclose(output[:, 1], second, rtol=0, atol=2e-7)
    np.testing.assert_allclose(h[0], [first[0], second[0]], rtol=0, atol=2e-7)


def test_a_gru_in_burns_layout():
    gates = {
        "update_gate": [
            [[-0.2811, 0.509, 0.5018], [0.3391, -0.4236, 0.1081]],
            [0.2932, -0.3519, -0.5715],
            [[-0.3471, 0.5214, 0.0961], [0.0545, -0.4904, -0.1875], [-0.5702, 0.4457, 0.3568]],
            [-0.01, 0.4518, -0.4102],
        ],
        "reset_gate": [
            [[0.4414, -0.1353, -0.1265], [0.4792, 0.5304, 0.1165]],
            [-0.2524, 0.3333, 0.1033],
            [[-0.2695, -0.0677, -0.4557], [0.1472, -0.2345, -0.2662], [-0.266, 0.383, -0.163]],
            [0.1663, 0.2391, 0.1826],
        ],
        "new_gate": [
            [[0.4266, 0.2784, 0.4451], [0.0782, -0.0815, 0.0853]],
            [-0.2231, -0.4428, 0.4737],
            [[0.09, -0.1821, 0.243], [0.4665, 0.1551, 0.5155], [0.0631, -0.1566, 0.3337]],
            [0.0364, -0.3941, 0.178],
        ],
    }
    tensors = {
        "input": [
            [[-0.11147, 0.12036], [-0.36963, -0.24042], [-1.19692, 0.20927], [-0.97236, -0.75505]]
        ],
        "h0": [[0.3239, -0.10852, 0.21033]],
        "expected_output_with_h0": [
            [
                [0.05665, -0.34932, 0.43267],
                [-0.1737, -0.49246, 0.38099],
                [-0.35401, -0.68099, 0.05061],
                [-0.47854, -0.70427, -0.13648],
            ]
        ],
        "expected_output_no_h0": [
            [
                [-0.0985, -0.31661, 0.36126],
                [-0.24563, -0.47784, 0.34609],
                [-0.39497, -0.67659, 0.03083],
                [-0.50146, -0.70066, -0.14894],
            ]
        ],
    }
    check_burn({"gates": gates, "tensors": tensors})


def test_a_plain_rnn_in_burns_layout_and_both_directions():
    gates = {
        "forward.gate": [
            [[0.367, 0.091, 0.342], [0.322, 0.533, 0.059]],
            [-0.196, 0.354, 0.209],
            [[-0.32, 0.232, -0.165], [0.093, -0.572, -0.315], [-0.467, 0.325, 0.046]],
            [0.181, -0.19, -0.245],
        ],
        "reverse.gate": [
            [[-0.055, 0.506, 0.247], [-0.369, 0.178, -0.258]],
            [0.54, -0.164, 0.033],
            [[0.159, 0.18, -0.037], [-0.443, 0.485, -0.488], [0.098, -0.085, -0.14]],
            [-0.51, 0.105, 0.114],
        ],
    }
    tensors = {
        "input": [[[0.949, -0.861], [0.892, 0.927], [-0.173, -0.301], [-0.081, 0.992]]],
        "h0": [[[0.28, 0.36, -1.242]], [[-0.588, 0.729, -0.788]]],
        "expected_output_with_init_state": [
            [
                [0.5226, -0.637, 0.021, 0.0685, 0.3867, 0.3602],
                [0.358, 0.8431, 0.4129, -0.3175, 0.4374, 0.1766],
                [-0.3837, -0.2703, -0.3957, -0.1542, -0.1122, 0.0725],
                [0.5059, 0.5527, 0.1244, -0.6779, 0.3725, -0.3387],
            ]
        ],
        "expected_hn_with_init_state": [[[0.5059, 0.5527, 0.1244]], [[0.0685, 0.3867, 0.3602]]],
        "expected_hn_without_init_state": [[[0.5075, 0.5298, 0.1083]], [[0.0892, 0.3912, 0.3607]]],
    }
    check_burn({"gates": gates, "tensors": tensors})
