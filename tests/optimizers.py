"""Layers and what their optimizers are given: gradients, batches, weights to compare."""

import numpy as np
import pytest

from rnncore import optim

RULES = [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def gradients(layer, x, target):
    output, _, tape = layer.forward(x)
    return layer.backward(tape, 2 * (output - target) / output.size)[2]


def step(layer, optimizer, x, target):
    return layer.apply_gradients(gradients(layer, x, target), optimizer)


def batches(layer, seed, count=10):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = rng.standard_normal((5, 4, layer.input_size)).astype(layer.dtype)
        yield x, rng.uniform(-1, 1, (5, 4, layer.hidden_size)).astype(layer.dtype)


def copied(state_dict):
    return {name: value.tobytes() for name, value in state_dict.items()}
