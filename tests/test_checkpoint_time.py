"""Training that keeps a part of the steps at a time, and comes to the same bits."""

import numpy as np
import pytest

import rnncore

from .memory import grown

LENGTHS = [300, 300, 211, 150, 64, 50, 2, 1]


def data(lengths, per_step, seed=0):
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((length, 3)) for length in lengths]
    y = [x[:, 0] for x in X] if per_step else [x.mean() for x in X]
    return X, y


def outcome(cell, X, y, **options):
    """Weights and history of a short fit, as arrays."""
    options = {"max_epochs": 2, "batch_size": 8, "random_state": 0, **options}
    model = getattr(rnncore, cell)((6, 5), task="regression", **options).fit(X, y)
    history = {name: np.array(values) for name, values in model.history_.items()}
    del history["seconds"]
    return model._network.parameters() | history


def check(cell, X, y, **options):
    want = outcome(cell, X, y, n_jobs=1, **options)
    for n_jobs in (1, 2):
        got = outcome(cell, X, y, n_jobs=n_jobs, checkpoint_time=True, **options)
        assert list(got) == list(want)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name, strict=True)


@pytest.mark.parametrize("output", ["last", "mean", "max", "sequence"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_the_bits_are_the_same(cell, output):
    residual = {"residual": True} if cell == "RNN" else {}
    drawn = {"dropout": 0.2, "input_dropout": 0.1, "output_dropout": 0.1, "locked_dropout": True}
    X, y = data(LENGTHS, per_step=output == "sequence")
    check(cell, X, y, output=output, learn_initial_state=True, **drawn, **residual)


@pytest.mark.parametrize(("length", "batch"), [(1, 8), (2, 300), (50, 20), (300, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whatever_the_length(length, batch, dtype):
    X, y = data([length] * batch, per_step=False)
    check("LSTM", X, y, batch_size=batch, dtype=dtype)


def test_within_pieces_and_groups_of_batches():
    X, y = data([400, 300] * 8, per_step=True)
    check("GRU", X, y, output="sequence", bptt_steps=200, accumulate_batches=2)


def test_a_language_model_with_one_table_has_the_same_bits():
    text = "".join("abcde"[i * i % 5] + " "[: i % 3] for i in range(900))
    options = {"task": "language_model", "tie_embedding": True, "embedding_dim": 8, "max_epochs": 2}
    options |= {"bptt_steps": 150, "batch_size": 4, "random_state": 0}
    plain, checkpointed = (
        rnncore.LSTM(8, checkpoint_time=on, **options).fit(text)._network.parameters()
        for on in (False, True)
    )
    for name, weights in plain.items():
        np.testing.assert_array_equal(checkpointed[name], weights, err_msg=name)


BEFORE = """
import sys
import numpy as np
import rnncore
length, checkpoint_time = int(sys.argv[1]), sys.argv[2] == "True"
X = np.random.default_rng(0).standard_normal((16, length, 1), dtype=np.float32)
y = X.mean((1, 2))
options = {"task": "regression", "max_epochs": 1, "random_state": 0}
model = rnncore.LSTM(128, checkpoint_time=checkpoint_time, **options)
model.fit(X[:, :10], y)
"""


def test_little_is_kept():
    # All that lies between input and gradient would be 90 MB; of one segment in 40 it is 2.
    assert grown(BEFORE, "model.fit(X, y)", 1600, False) > 60
    assert 0 < grown(BEFORE, "model.fit(X, y)", 1600, True) < 10
