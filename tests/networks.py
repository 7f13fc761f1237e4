"""Networks of the core with their twins in torch, and what both are trained on."""

import numpy as np
import torch

from rnncore import _core

from .twin import Twin

LENGTHS = (7, 0, 3, 11, 1, 7, 4)
FEATURES, VOCABULARY, OUTPUTS = 3, 6, 4
PLAIN = {
    "cell": "lstm",
    "input": "dense",
    "input_size": FEATURES,
    "hidden_sizes": [5, 7],
    "bidirectional": False,
    "output": "sequence",
    "n_outputs": OUTPUTS,
    "loss": "cross_entropy",
    "dtype": "float64",
}
IDS = {"input": "embedding", "vocabulary_size": VOCABULARY}


def batched(sequences, size):
    return [sequences[first : first + size] for first in range(0, len(sequences), size)]


class Problem:
    """A network, its twin, and sequences with targets; numbers come from a seed."""

    def __init__(self, weighted=False, each=None, lengths=LENGTHS, seed=0, bound=0.6, **options):
        rng = np.random.default_rng(seed)
        self.config = {**PLAIN, **options}
        self.network = _core.Network(**self.config)
        self.parameters = {
            name: rng.uniform(-bound, bound, shape)
            for name, shape in self.network.parameter_shapes()
        }
        if self.config.get("masked_id") is not None:
            self.parameters["embedding.weight"][self.config["masked_id"]] = 0
        self.network.set_parameters(self.parameters)
        self.twin = Twin(self.config, self.parameters)
        self.lengths = np.array(lengths)
        # With a row between sequences that belongs to none.
        self.starts = np.cumsum([0, *(self.lengths[:-1] + 1)])
        rows = int(self.starts[-1] + self.lengths[-1])
        if self.config["input"] == "dense":
            values = rng.standard_normal((rows, FEATURES))
        else:
            values = rng.integers(0, VOCABULARY, (rows, each) if each else rows)
        self.values = values
        self.per_step = self.config["output"] == "sequence"
        count = rows if self.per_step else len(lengths)
        if self.config["loss"] == "cross_entropy":
            self.targets = rng.integers(0, self.config["n_outputs"], count)
        elif self.config["loss"] == "binary_cross_entropy":
            self.targets = rng.integers(0, 2, (count, OUTPUTS)).astype(float)
        else:
            self.targets = rng.standard_normal((count, OUTPUTS))
        self.weights = rng.integers(0, 4, count) / 2.0 if weighted else None

    def examples(self):
        return _core.Examples(self.values, self.starts, self.lengths, self.targets, self.weights)

    def rows(self, i):
        """Return the rows of the values of a sequence, and those of its targets."""
        steps = slice(self.starts[i], self.starts[i] + self.lengths[i])
        return steps, steps if self.per_step else slice(i, i + 1)

    def weight(self, rows):
        count = rows.stop - rows.start
        return np.ones(count) if self.weights is None else self.weights[rows]

    def mean_loss(self, batch):
        """Return the twin's loss of some sequences."""
        total, weight = torch.zeros((), dtype=torch.float64), 0.0
        for i in batch:
            steps, rows = self.rows(i)
            losses = self.twin.losses(self.twin.outputs(self.values[steps]), self.targets[rows])
            total = total + (losses * torch.from_numpy(self.weight(rows))).sum()
            weight += self.weight(rows).sum()
        return total / weight if weight else total * 0

    def train(self, network=None, rate=0.3, **options):
        """Train an epoch by plain gradient descent, in the order given."""
        settings = {
            "epoch": 1,
            "batch_size": 3,
            "shuffle": False,
            "bucket_by_length": False,
            "seed": 5,
            **options,
        }
        optimizer = settings.pop("optimizer", None) or _core.Optimizer("sgd", rate)
        return (network or self.network).train_epoch(self.examples(), optimizer, **settings)

    def check(self):
        """Compare all weights."""
        got = self.network.parameters()
        for name, want in self.twin.arrays().items():
            np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-11, err_msg=name)
