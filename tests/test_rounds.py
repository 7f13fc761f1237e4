"""Long ragged batches, which a plain layer goes back through in several rounds, against torch."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncore

from .networks import IDS, Problem


def test_rounds_give_torchs_gradients():
    rng = np.random.default_rng(0)
    steps, batch, hidden = 210, 6, 264
    lengths = np.array([210, 13, 198, 150, 210, 1])
    x = rng.normal(size=(steps, batch, 3))
    theirs = torch.nn.RNN(3, hidden, bidirectional=True, dtype=torch.float64)
    ours = rnncore.nn.RNN.from_torch(theirs)
    d_output = 1e-2 * rng.normal(size=(steps, batch, 2 * hidden))

    fed = torch.from_numpy(x).requires_grad_()
    packed = pack_padded_sequence(fed, torch.from_numpy(lengths), enforce_sorted=False)
    output = pad_packed_sequence(theirs(packed)[0], total_length=steps)[0]
    output.backward(torch.from_numpy(d_output))

    found = []
    before = rnncore.get_num_threads()
    try:
        for threads in (1, 2):
            rnncore.set_num_threads(threads)
            _, _, tape = ours.forward(x, lengths=lengths)
            found.append(ours.backward(tape, d_output))
    finally:
        rnncore.set_num_threads(before)
    (dx, _, gradients), (dx_again, _, again) = found
    np.testing.assert_allclose(dx, fed.grad, rtol=1e-9, atol=1e-12)
    assert np.array_equal(dx, dx_again)
    for name, expected in theirs.named_parameters():
        np.testing.assert_allclose(gradients[name], expected.grad, rtol=1e-9, atol=1e-11)
        assert np.array_equal(gradients[name], again[name])


@pytest.mark.parametrize("inputs", [IDS, {**IDS, "input": "one-hot"}], ids=["vectors", "one-hot"])
def test_rounds_add_up_the_gradients_of_ids(inputs):
    # Each round meets each id.
    lengths = (210, 13, 198, 150, 210, 1)
    problem = Problem(**inputs, cell="rnn_tanh", hidden_sizes=[264], lengths=lengths, bound=0.06)
    problem.train(batch_size=len(lengths))
    problem.twin.descend(problem.mean_loss(range(len(lengths))), 0.3)
    problem.check()
