"""Other processes that compute: workers of a DataLoader, children that train, weights in common.

Each test is a program of its own, since what matters is what a process did before it forked.
"""

import os

import pytest

from .children import CHILD_DOES, run_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
]

COMMON = f"""
import threading

import numpy as np
import torch
import torch.multiprocessing as mp
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

import rnncore
import rnncore.torch

torch.set_num_threads(2)
rnncore.set_num_threads(2)
{CHILD_DOES}
"""


def run(tmp_path, code, *arguments):
    """Run a program, which may start others by name."""
    script = tmp_path / "program.py"
    script.write_text(COMMON + code)
    run_python(script, *arguments)


LOADER = """
import sys

class Sequences(Dataset):
    '''Ragged sequences with what an estimator says of each.'''

    def __init__(self, model):
        rng = np.random.default_rng(0)
        self.model = model
        self.sequences = [rng.standard_normal((n, 40)).astype("f") for n in rng.integers(1, 30, 60)]

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, i):
        return self.sequences[i], self.model.predict_proba(self.sequences[i : i + 1])[0]

class Encoded:
    '''Batches with what a module of torch's says of each sequence.'''

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, examples):
        sequences, told = zip(*examples)
        packed = pack_sequence([torch.from_numpy(s) for s in sequences], enforce_sorted=False)
        with torch.no_grad():
            _, (h, _) = self.layer(packed)
        # Through a file of its own a tensor would go to the parent by a descriptor.
        return packed, np.stack(told), h[0].numpy()

def main(how):
    X = np.random.default_rng(1).standard_normal((64, 20, 40))
    model = rnncore.GRU(70, max_epochs=1, random_state=0).fit(X, X[:, 0, 0] > 0)
    torch.manual_seed(0)
    layer = rnncore.torch.LSTM(40, 70, 2)
    encode, data = Encoded(layer), Sequences(model)
    want = [encode([data[i] for i in range(k, k + 10)]) for k in range(0, 60, 10)]
    # The parent has used its threads, and goes on while the workers do.
    learner = rnncore.torch.LSTM(40, 70)
    optimizer = torch.optim.SGD(learner.parameters(), 0.01)
    loader = DataLoader(
        data, 10, num_workers=2, collate_fn=encode, multiprocessing_context=how,
        persistent_workers=True,
    )
    for _ in range(2):
        for (packed, told, h), (_, expected_told, expected_h) in zip(loader, want, strict=True):
            # Whatever the number of threads, here two and there one: the same bits.
            assert (told == expected_told).all()
            assert (h == expected_h).all()
            assert (encode(list(zip(unpacked(packed), told)))[2] == h).all()
            loss = learner(packed)[0].data.pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert (model.predict_proba(data.sequences[:2])[1] == want[0][1][1]).all()

def unpacked(packed):
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    return [x[:n].numpy() for x, n in zip(padded, lengths)]

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_loader_compute(how, tmp_path):
    run(tmp_path, LOADER, how)


FORKS = """
torch.manual_seed(0)
x = torch.randn(20, 37, 40)

def a_child_trains():
    layer = rnncore.torch.LSTM(40, 70, 2)

    def train():
        torch.manual_seed(1)
        model = rnncore.torch.LSTM(40, 70, 2, bidirectional=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            output, _ = model(x)
            optimizer.zero_grad()
            output.pow(2).mean().backward()
            optimizer.step()
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    (x @ torch.ones(40, 500)).exp()  # by torch's threads
    with torch.no_grad():
        want = layer(x)[0]
    if not torch.cuda.is_available():  # with a GPU, torch forbids a child's backward after ours
        train()

    def job():
        with torch.no_grad():
            torch.set_num_threads(2)  # ours do
            output = layer(x)[0].numpy()
        torch.set_num_threads(1)  # torch's own do not come back after a fork
        assert (output == want.numpy()).all()
        torch.save(train(), "trained.pt")

    child_does(job)
    assert torch.equal(torch.load("trained.pt"), train())

def a_child_forked_amid_calls_of_a_layer_calls_it():
    layer = rnncore.torch.LSTM(4, 300)
    x = torch.randn(1, 1, 4)
    with torch.no_grad():
        want = layer(x)[0]
    stop = threading.Event()

    def keep_calling():
        with torch.no_grad():
            while not stop.is_set():
                layer(x)

    def job():
        torch.set_num_threads(1)  # torch's own do not come back after a fork
        with torch.no_grad():
            assert torch.equal(layer(x)[0], want)

    others = [threading.Thread(target=keep_calling) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(20):
            child_does(job)
    finally:
        stop.set()
    for other in others:
        other.join()

def processes_train_weights_that_they_share():
    layer = rnncore.torch.GRU(40, 30)
    layer.share_memory()
    context = mp.get_context("fork")
    started = context.Barrier(2)

    def train():
        torch.set_num_threads(1)
        optimizer = torch.optim.SGD(layer.parameters(), 0.01)
        started.wait()
        for _ in range(50):
            loss = layer(x)[0].pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with torch.no_grad():
        before = layer(x)[0].pow(2).mean()
    children = [context.Process(target=train) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with torch.no_grad():
        after = layer(x)[0].pow(2).mean()
        # The parent reads what the others wrote.
        expected = rnncore.torch.revert(layer)(x)[0].pow(2).mean()
    assert after < before, (after, before)
    torch.testing.assert_close(after, expected)

processes_train_weights_that_they_share()
a_child_trains()
a_child_forked_amid_calls_of_a_layer_calls_it()
"""


def test_forked_children_compute_and_train(tmp_path):
    run(tmp_path, f"os.chdir({str(tmp_path)!r})\n{FORKS}")
