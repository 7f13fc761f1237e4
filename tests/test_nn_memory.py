"""How much memory a training step of `rnncore.nn` takes: what backward needs, and little else."""

import pytest

from .memory import grown

STEPS, BATCH, INPUTS, HIDDEN = 100, 64, 128, 256
# What is known of a unit after a step: gates and states (of a GRU the state's part of n too).
KNOWN = {"LSTM": 6, "GRU": 5, "RNN": 1}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

BEFORE = f"""
import sys
import numpy as np
from rnncore import nn

def trained(layer, x, d_output, **options):
    output, _, tape = layer.forward(x, **options)
    return output, layer.backward(tape, d_output)

kind = getattr(nn, sys.argv[1])
trained(kind(8, 8, random_state=0), np.ones((2, 3, 8), "f4"), np.ones((2, 3, 8), "f4"))
layer = kind({INPUTS}, {HIDDEN}, random_state=0)
x = np.ones(({STEPS}, {BATCH}, {INPUTS}), "f4")
d_output = np.ones(({STEPS}, {BATCH}, {HIDDEN}), "f4")
"""


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("cell", list(KNOWN))
def test_a_step_keeps_what_backward_needs(cell, copy):
    # The input's gradient is there, and what the caller may write to before backward once more.
    row = KNOWN[cell] * HIDDEN + INPUTS + copy * (INPUTS + HIDDEN)
    weights = GATES[cell] * HIDDEN * (INPUTS + HIDDEN + 2)
    needed = 4 * (STEPS * BATCH * row + weights) / 2**20
    taken = grown(BEFORE, f"kept = trained(layer, x, d_output, copy={copy})", cell)
    assert needed < taken < 1.15 * needed
