"""The numbers that a published notebook on torch's recurrent layers prints, as it prints them.

The notebook seeds torch's generator with 0 before each section, and prints four decimals. Where it
prints the weights too they are typed in below, and torch is not needed; what it does not print
(most weights, initial states) comes from torch's generator, which still draws the numbers that the
notebook shows.
"""

import numpy as np
import pytest
import torch

from rnncore import nn, optim

# Half a unit of the last digit, and some of float32's.
PRINTED = 0.5e-4 + 1e-6
# What the rounding of typed weights and inputs may come to in the states.
TYPED = 3e-4


def assert_printed(got, want, atol=PRINTED):
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def like(module):
    """Build our layer with the options and the weights of torch's."""
    layer = getattr(nn, type(module).__name__)(
        module.input_size,
        module.hidden_size,
        num_layers=module.num_layers,
        batch_first=module.batch_first,
        bidirectional=module.bidirectional,
    )
    layer.load_state_dict({name: p.detach() for name, p in module.named_parameters()})
    return layer


def seeded(module_type, *args, **options):
    """Build torch's layer as every section of the notebook does, and ours like it."""
    torch.manual_seed(0)
    return like(module_type(*args, **options))


def randn(*shape, starting_with=None):
    """Draw the notebook's next numbers."""
    drawn = torch.randn(*shape).numpy()
    if starting_with is not None:
        head = drawn.ravel()[: len(starting_with)]
        if not np.allclose(head, starting_with, rtol=0, atol=PRINTED):
            pytest.skip("this torch draws other numbers than the notebook's")
    return drawn


LSTM_WEIGHTS = {
    "weight_ih_l0": [
        [-0.0053, 0.3793, -0.5820],
        [-0.5204, -0.2723, 0.1896],
        [-0.0140, 0.5607, -0.0628],
        [0.1871, -0.2137, -0.1390],
        [-0.6755, -0.4683, -0.2915],
        [0.0262, 0.2795, 0.4243],
        [-0.4794, -0.3079, 0.2568],
        [0.5872, -0.1455, 0.5291],
    ],
    "weight_hh_l0": [
        [-0.1140, 0.0748],
        [0.6403, -0.6560],
        [-0.4452, -0.1790],
        [-0.2756, 0.6109],
        [-0.4583, -0.3255],
        [-0.4940, -0.6622],
        [-0.4128, 0.6078],
        [0.3155, 0.3427],
    ],
    "bias_ih_l0": [0.0372, -0.3625, 0.1196, -0.6602, -0.5109, -0.3645, 0.4461, 0.4146],
    "bias_hh_l0": [-0.3136, -0.0255, 0.4522, 0.7030, 0.2806, 0.0955, 0.4741, -0.4163],
}
RNN_WEIGHTS = {
    "weight_ih_l0": [[-0.0053, 0.3793, -0.5820], [-0.5204, -0.2723, 0.1896]],
    "weight_hh_l0": [[-0.0140, 0.5607], [-0.0628, 0.1871]],
    "bias_ih_l0": [-0.2137, -0.1390],
    "bias_hh_l0": [-0.6755, -0.4683],
}
GRU_WEIGHTS = {
    "weight_ih_l0": [
        [-0.0053, 0.3793, -0.5820],
        [-0.5204, -0.2723, 0.1896],
        [-0.0140, 0.5607, -0.0628],
        [0.1871, -0.2137, -0.1390],
        [-0.6755, -0.4683, -0.2915],
        [0.0262, 0.2795, 0.4243],
    ],
    "weight_hh_l0": [
        [-0.4794, -0.3079],
        [0.2568, 0.5872],
        [-0.1455, 0.5291],
        [-0.1140, 0.0748],
        [0.6403, -0.6560],
        [-0.4452, -0.1790],
    ],
    "bias_ih_l0": [-0.2756, 0.6109, -0.4583, -0.3255, -0.4940, -0.6622],
    "bias_hh_l0": [-0.4128, 0.6078, 0.3155, 0.3427, 0.0372, -0.3625],
}


def typed(layer_type, weights, **options):
    layer = layer_type(3, 2, dtype="float64", **options)
    layer.load_state_dict({name: np.array(value) for name, value in weights.items()})
    return layer


@pytest.mark.parametrize(
    ("module_type", "weights"),
    [
        (torch.nn.LSTM, LSTM_WEIGHTS),
        (torch.nn.RNN, RNN_WEIGHTS),
        (torch.nn.GRU, GRU_WEIGHTS),
    ],
)
def test_the_generator_draws_the_printed_weights(module_type, weights):
    for name, value in seeded(module_type, 3, 2).state_dict().items():
        assert_printed(value, weights[name])


# One step.


def test_one_step_of_the_lstm():
    layer = seeded(torch.nn.LSTM, 3, 2)
    x = randn(1, 1, 3, starting_with=[-0.0209, -0.7185, 0.5186])
    state = randn(1, 1, 2), randn(1, 1, 2)
    for of, atol in [(layer, PRINTED), (typed(nn.LSTM, LSTM_WEIGHTS), TYPED)]:
        output, (h, c) = of(x, state)
        assert_printed(output, [[[0.4164, -0.4423]]], atol)
        assert_printed(h, [[[0.4164, -0.4423]]], atol)
        assert_printed(c, [[[0.5179, -1.3637]]], atol)


def test_one_step_of_the_rnn():
    layer = seeded(torch.nn.RNN, 3, 2)
    x = randn(1, 1, 3, starting_with=[-0.7831, 1.0622, -0.2613])
    state = randn(1, 1, 2)
    for of, atol in [(layer, PRINTED), (typed(nn.RNN, RNN_WEIGHTS), TYPED)]:
        output, h = of(x, state)
        assert_printed(output, [[[-0.1114, -0.4837]]], atol)
        assert_printed(h, [[[-0.1114, -0.4837]]], atol)


def test_one_step_of_the_gru():
    layer = seeded(torch.nn.GRU, 3, 2)
    x = randn(1, 1, 3, starting_with=[-0.2142, -0.4320, -0.7079])
    state = randn(1, 1, 2)
    for of, atol in [(layer, PRINTED), (typed(nn.GRU, GRU_WEIGHTS), TYPED)]:
        output, h = of(x, state)
        assert_printed(output, [[[0.2779, -1.0391]]], atol)
        assert_printed(h, [[[0.2779, -1.0391]]], atol)


# A sequence.

STEPS_H = [
    [0.0083, 0.1808],
    [0.1124, 0.0478],
    [0.4619, -0.0474],
    [0.2640, -0.1513],
    [0.0712, -0.1522],
]
STEPS_C = [
    [0.0114, 0.4527],
    [0.1329, 0.1232],
    [0.6229, -0.3593],
    [0.4306, -0.4890],
    [0.1088, -0.3212],
]
NEXT_H = [
    [0.1108, -0.0602],
    [0.1081, 0.0063],
    [0.0357, 0.0238],
    [0.0341, 0.0623],
    [0.0752, 0.1061],
]


def five_steps():
    layer = seeded(torch.nn.LSTM, 3, 2)
    return layer, randn(5, 1, 3), (randn(1, 1, 2), randn(1, 1, 2))


def test_a_sequence_one_step_at_a_time():
    layer, x, state = five_steps()
    for step, want_h, want_c in zip(x, STEPS_H, STEPS_C, strict=True):
        output, state = layer(step[None], state)
        assert_printed(output, [[want_h]])
        assert_printed(state[0], [[want_h]])
        assert_printed(state[1], [[want_c]])


def test_a_sequence_one_step_at_a_time_through_the_cell():
    layer, x, (h, c) = five_steps()
    cell = nn.LSTMCell(3, 2)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    h, c = h[0], c[0]
    for step, want_h, want_c in zip(x, STEPS_H, STEPS_C, strict=True):
        h, c = cell(step, (h, c))
        assert_printed(h, [want_h])
        assert_printed(c, [want_c])


def test_a_sequence_all_at_once_and_through_a_second_layer():
    layer, x, state = five_steps()
    output, state = layer(x, state)
    assert_printed(output[:, 0], STEPS_H)
    assert_printed(state[0], [[[0.0712, -0.1522]]])
    assert_printed(state[1], [[[0.1088, -0.3212]]])
    second = like(torch.nn.LSTM(2, 2))
    output, state = second(output, state)
    assert_printed(output[:, 0], NEXT_H)
    assert_printed(state[0], [[[0.0752, 0.1061]]])
    assert_printed(state[1], [[[0.1004, 0.2453]]])


def test_shapes_of_batches():
    layer = seeded(torch.nn.LSTM, 3, 2)
    outputs, (h, c) = layer(randn(5, 16, 3), (np.zeros((1, 16, 2)), np.zeros((1, 16, 2))))
    assert (outputs.shape, h.shape, c.shape) == ((5, 16, 2), (1, 16, 2), (1, 16, 2))
    layer = seeded(torch.nn.LSTM, 3, 2, batch_first=True)
    outputs, (h, c) = layer(randn(16, 5, 3), (np.zeros((1, 16, 2)), np.zeros((1, 16, 2))))
    assert (outputs.shape, h.shape, c.shape) == ((16, 5, 2), (1, 16, 2), (1, 16, 2))


# A batch of lengths 5, 5, 4, 2.

LENGTHS = [5, 5, 4, 2]
PACKED_X = [
    [
        [0.2055, -0.4503, -0.5731],
        [-0.5554, 0.5943, 1.5419],
        [0.5073, -0.5910, -1.3253],
        [0.1886, -0.0691, -0.4949],
        [-1.4959, -0.1938, 0.4455],
    ],
    [
        [1.3253, 1.5091, 2.0820],
        [1.7067, 2.3804, -1.1256],
        [-0.3170, -1.0925, -0.0852],
        [0.3276, -0.7607, -1.5991],
        [0.0185, -0.7504, 0.1854],
    ],
    [
        [0.6211, 0.6382, -0.0033],
        [-0.5344, 1.1687, 0.3945],
        [1.9415, 0.7915, -0.0203],
        [-0.4372, -1.5353, -0.4127],
        [0.9663, 1.6248, 0.9625],
    ],
    [
        [0.3492, -0.9215, -0.0562],
        [-0.7015, 1.0367, -0.6037],
        [-1.2788, 0.1239, 1.1648],
        [0.9234, 1.3873, 1.3750],
        [0.6596, 0.4766, -1.0163],
    ],
]
PACKED_OUTPUT = [
    [
        [0.0029, -0.0991],
        [-0.1077, 0.1164],
        [-0.0145, -0.0406],
        [-0.0623, -0.0949],
        [0.1499, -0.0470],
    ],
    [
        [-0.1605, 0.1643],
        [-0.2453, 0.0519],
        [-0.2614, -0.0780],
        [0.0572, -0.1128],
        [0.0512, -0.1822],
    ],
    [
        [-0.2102, -0.0125],
        [-0.3288, 0.0454],
        [-0.3299, 0.0585],
        [-0.1017, -0.1055],
        [0.0000, 0.0000],
    ],
    [
        [-0.0048, -0.1174],
        [-0.0139, -0.0448],
        [0.0000, 0.0000],
        [0.0000, 0.0000],
        [0.0000, 0.0000],
    ],
]
PACKED_H = [[0.1499, -0.0470], [0.0512, -0.1822], [-0.1017, -0.1055], [-0.0139, -0.0448]]
PACKED_C = [[0.1771, -0.1396], [0.0684, -0.3450], [-0.1215, -0.2590], [-0.0207, -0.1593]]


def test_a_packed_batch_of_typed_numbers():
    layer = typed(nn.LSTM, LSTM_WEIGHTS, batch_first=True)
    output, (h, c) = layer(np.array(PACKED_X), lengths=LENGTHS)
    assert_printed(output, PACKED_OUTPUT, TYPED)
    assert_printed(h, [PACKED_H], TYPED)
    assert_printed(c, [PACKED_C], TYPED)
    # Sorting is no matter of ours.
    turned = np.array(PACKED_X)[::-1]
    output, (h, c) = layer(turned, lengths=LENGTHS[::-1])
    assert_printed(output, PACKED_OUTPUT[::-1], TYPED)
    assert_printed(h, [PACKED_H[::-1]], TYPED)
    assert_printed(c, [PACKED_C[::-1]], TYPED)


def test_a_packed_batch():
    layer = seeded(torch.nn.LSTM, 3, 2, batch_first=True)
    x = randn(4, 5, 3, starting_with=np.ravel(PACKED_X))
    zeros = np.zeros((1, 4, 2))
    output, (h, c) = layer(x, (zeros, zeros), LENGTHS)
    assert_printed(output, PACKED_OUTPUT)
    assert_printed(h, [PACKED_H])
    assert_printed(c, [PACKED_C])


def test_a_packed_batch_in_both_directions():
    layer = seeded(torch.nn.LSTM, 3, 2, batch_first=True, bidirectional=True)
    x = randn(4, 5, 3, starting_with=[-0.2188, -2.4351, -0.0729, -0.0340, 0.9625, 0.3492])
    output, (h, c) = layer(x, lengths=LENGTHS)
    assert_printed(
        output,
        [
            [
                [0.1599, -0.2296, -0.0549, 0.0859],
                [-0.0967, -0.0438, 0.1588, 0.2738],
                [0.1514, -0.0751, 0.0661, 0.2950],
                [-0.1441, -0.0259, 0.1622, 0.3950],
                [-0.3265, 0.0767, 0.0860, 0.2457],
            ],
            [
                [-0.1351, -0.1073, 0.1882, 0.0390],
                [-0.1369, 0.0257, 0.0899, 0.3400],
                [-0.3010, 0.0029, 0.2636, 0.1700],
                [-0.3154, -0.0406, 0.1405, 0.1216],
                [0.1149, -0.0599, 0.0452, 0.1205],
            ],
            [
                [-0.0206, -0.0524, 0.1111, 0.2702],
                [-0.1503, 0.0542, 0.0921, 0.2098],
                [-0.2395, -0.0082, 0.1821, 0.1473],
                [-0.1410, -0.0510, 0.1272, 0.0702],
                [0.0000, 0.0000, 0.0000, 0.0000],
            ],
            [
                [0.3011, -0.0614, 0.0943, 0.0871],
                [0.2555, -0.1526, 0.1258, -0.1127],
                [0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000],
            ],
        ],
    )
    assert_printed(
        h,
        [
            [[-0.3265, 0.0767], [0.1149, -0.0599], [-0.1410, -0.0510], [0.2555, -0.1526]],
            [[-0.0549, 0.0859], [0.1882, 0.0390], [0.1111, 0.2702], [0.0943, 0.0871]],
        ],
    )
    assert_printed(
        c,
        [
            [[-0.5174, 0.1323], [0.1446, -0.3065], [-0.2064, -0.1436], [0.4362, -0.5133]],
            [[-0.5596, 0.1723], [0.4508, 0.1184], [0.3183, 0.4854], [0.4917, 0.1074]],
        ],
    )


def two_layers():
    layer = seeded(torch.nn.LSTM, 3, 2, batch_first=True, bidirectional=True, num_layers=2)
    return layer, randn(4, 5, 3, starting_with=[-1.4777, -1.7557, 0.0762, -1.0786, 1.4403])


def test_a_packed_batch_through_two_layers_in_both_directions():
    layer, x = two_layers()
    output, (h, c) = layer(x, lengths=LENGTHS)
    # The notebook's page is cut off after what is here of the output and of c.
    assert_printed(
        output[:3],
        [
            [
                [3.9679e-02, 3.9668e-02, 9.9274e-04, -3.3757e-01],
                [6.4809e-02, 9.5330e-02, 1.5299e-03, -3.6686e-01],
                [7.3877e-02, 1.2904e-01, 2.2365e-02, -3.2285e-01],
                [8.4051e-02, 1.6466e-01, 2.1183e-02, -3.0374e-01],
                [8.6588e-02, 1.2812e-01, 2.0970e-02, -2.1160e-01],
            ],
            [
                [4.8100e-02, 1.1329e-01, 1.9735e-02, -3.2491e-01],
                [6.6838e-02, 8.3767e-02, 1.1935e-02, -3.2278e-01],
                [7.4595e-02, 6.2288e-02, -3.5284e-03, -3.5036e-01],
                [8.1718e-02, 1.3030e-01, 3.0468e-03, -3.4926e-01],
                [7.0915e-02, 8.8007e-02, -5.3031e-03, -2.8080e-01],
            ],
            [
                [5.0718e-02, 1.4100e-01, 2.7250e-02, -3.2355e-01],
                [7.6019e-02, 1.6800e-01, 3.1728e-02, -3.0029e-01],
                [8.5724e-02, 1.0087e-01, 2.5473e-03, -3.2244e-01],
                [8.2684e-02, 9.0221e-02, -3.1224e-04, -2.6496e-01],
                [0.0000e00, 0.0000e00, 0.0000e00, 0.0000e00],
            ],
        ],
        atol=6e-6,
    )
    assert_printed(
        output[3, :2],
        [
            [3.7809e-02, 5.7408e-02, -1.7073e-02, -3.5471e-01],
            [5.6300e-02, 5.6807e-02, -1.9340e-02, -2.9829e-01],
        ],
        atol=6e-6,
    )
    assert not output[3, 2:].any()
    assert_printed(
        h,
        [
            [[-0.3424, 0.1747], [0.1782, -0.0752], [-0.0449, 0.0524], [0.2657, -0.1505]],
            [[-0.0359, 0.2987], [0.1657, 0.0949], [0.2546, 0.1280], [0.1036, 0.2277]],
            [[0.0866, 0.1281], [0.0709, 0.0880], [0.0827, 0.0902], [0.0563, 0.0568]],
            [[0.0010, -0.3376], [0.0197, -0.3249], [0.0273, -0.3236], [-0.0171, -0.3547]],
        ],
    )
    assert_printed(
        c[:3],
        [
            [[-0.4188, 0.3046], [0.2505, -0.2792], [-0.0534, 0.1012], [0.3787, -0.4299]],
            [[-0.4642, 0.4800], [0.4496, 0.1709], [0.3041, 0.4286], [0.4325, 0.2871]],
            [[0.3096, 0.2118], [0.2702, 0.1278], [0.2827, 0.1391], [0.1959, 0.0818]],
        ],
    )
    assert_printed(c[3, :3], [[0.0031, -0.5341], [0.0592, -0.5119], [0.0822, -0.4914]])


# Training: a tagger of words, whose weights the generator draws after the section above.


def log_softmax(scores):
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def test_training_the_tagger_ends_where_the_notebook_ended():
    two_layers()
    embedding = torch.nn.Embedding(9, 6).weight.detach().numpy().copy()
    layer = like(torch.nn.LSTM(6, 6, batch_first=True))
    linear = torch.nn.Linear(6, 3)
    weight, bias = (part.detach().numpy().copy() for part in (linear.weight, linear.bias))
    sentences = [([0, 1, 2, 3, 4], [0, 1, 2, 0, 1]), ([5, 6, 7, 8], [1, 2, 0, 1])]

    def forward(words):
        output, _, tape = layer.forward(embedding[words][None])
        return output[0], log_softmax(output[0] @ weight.T + bias), tape

    words, tags = sentences[0]
    assert_printed(
        forward(words)[1],
        [
            [-1.4727, -1.2174, -0.7451],
            [-1.4879, -1.1658, -0.7712],
            [-1.4218, -1.1337, -0.8281],
            [-1.2431, -1.0778, -0.9911],
            [-1.3597, -1.3337, -0.7345],
        ],
    )
    optimizer = optim.SGD(0.1)
    for _ in range(300):
        for words, tags in sentences:
            output, scores, tape = forward(words)
            d_scores = (np.exp(scores) - np.eye(3, dtype="float32")[tags]) / len(words)
            dx, _, grads = layer.backward(tape, (d_scores @ weight)[None])
            layer.apply_gradients(grads, optimizer)
            weight -= 0.1 * d_scores.T @ output
            bias -= 0.1 * d_scores.sum(axis=0)
            np.subtract.at(embedding, words, 0.1 * dx[0])
    words, tags = sentences[0]
    scores = forward(words)[1]
    assert_printed(
        scores,
        [
            [-0.1235, -3.0423, -2.6821],
            [-4.4550, -0.0218, -4.6157],
            [-3.1474, -4.6781, -0.0537],
            [-0.0183, -5.6775, -4.2190],
            [-3.8691, -0.0278, -5.0329],
        ],
    )
    assert scores.argmax(axis=1).tolist() == tags
