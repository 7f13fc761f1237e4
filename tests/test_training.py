"""The training loop against the same loop written with torch: losses, norms, weights."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore import _core

from .layers import ISAS, every_cell, instruction_set
from .reference import run_twin, tensors

FEATURES, VOCABULARY, OUTPUTS = 3, 6, 4
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"weight_decay": 0.01}),
}


@dataclass(frozen=True)
class Example:
    """A network and what it is trained on; numbers come from `seed`."""

    input: str
    output: str
    loss: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    lengths: tuple[int, ...]
    batch_size: int
    rule: str
    clip_norm: float | None
    threads: int
    isa: str
    seed: int


examples = st.builds(
    Example,
    input=st.sampled_from(["dense", "embedding", "one-hot"]),
    output=st.sampled_from(["last", "sequence"]),
    loss=st.sampled_from(["cross_entropy", "squared_error"]),
    hidden_size=st.sampled_from([1, 5, 8, 17]),
    num_layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=11).map(tuple),
    batch_size=st.integers(1, 12),
    rule=st.sampled_from(list(OPTIMIZERS)),
    clip_norm=st.sampled_from([None, 0.1, 10.0]),
    threads=st.integers(1, 3),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)


class Reference:
    """The network and its loop in torch, over the same flat arrays."""

    def __init__(self, cell: str, example: Example, parameters):
        of = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
        options = {"nonlinearity": cell.removeprefix("rnn_")} if of is torch.nn.RNN else {}
        width = VOCABULARY if example.input == "one-hot" else FEATURES
        self.example = example
        self.rnn = of(
            width,
            example.hidden_size,
            example.num_layers,
            bidirectional=example.bidirectional,
            dtype=torch.float64,
            **options,
        )
        self.directions = 2 if example.bidirectional else 1
        self.others = {
            name: value.requires_grad_()
            for name, value in tensors(parameters).items()
            if not name.startswith("rnn.")
        }
        own = {k.removeprefix("rnn."): v for k, v in parameters.items() if k.startswith("rnn.")}
        self.rnn.load_state_dict(tensors(own))
        rule, options = OPTIMIZERS[example.rule]
        self.optimizer = rule(list(self.parameters().values()), lr=0.05, **options)

    def parameters(self):
        return {**self.others, **{f"rnn.{k}": v for k, v in self.rnn.named_parameters()}}

    def outputs(self, values, starts, lengths):
        """Run a batch; return outputs and the targets' rows, or None for one to each sequence."""
        values = torch.from_numpy(values)
        if self.example.input == "embedding":
            values = self.others["embedding.weight"][values]
        elif self.example.input == "one-hot":
            values = torch.nn.functional.one_hot(values, VOCABULARY).double()
        rows = [torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]
        x = torch.stack(
            [
                torch.nn.functional.pad(values[row], (0, 0, 0, max(lengths) - len(row)))
                for row in rows
            ],
            dim=1,
        )
        shape = (self.directions * self.example.num_layers, len(lengths), self.example.hidden_size)
        zeros = [
            torch.zeros(shape, dtype=torch.float64)
            for _ in range(2 if isinstance(self.rnn, torch.nn.LSTM) else 1)
        ]
        output, states = run_twin(self.rnn, x, zeros, lengths)
        if self.example.output == "last":
            seen, rows = torch.cat(list(states[0][-self.directions :]), dim=-1), None
        else:
            pairs = enumerate(lengths)
            seen = torch.cat([output[:length, sequence] for sequence, length in pairs])
            rows = torch.cat(rows)
        return seen @ self.others["head.weight"].T + self.others["head.bias"], rows

    def loss(self, outputs, targets):
        of = torch.nn.functional
        mean = of.cross_entropy if self.example.loss == "cross_entropy" else of.mse_loss
        return mean(outputs, targets) if len(outputs) else outputs.sum()

    def epoch(self, values, starts, lengths, targets):
        """Train on all batches in order; return the mean loss of rows and the mean norm."""
        losses, counts, norms = [], [], []
        for first in range(0, len(lengths), self.example.batch_size):
            batch = slice(first, first + self.example.batch_size)
            outputs, rows = self.outputs(values, starts[batch], lengths[batch])
            wanted = torch.from_numpy(targets)
            loss = self.loss(outputs, wanted[batch] if rows is None else wanted[rows])
            parameters = list(self.parameters().values())
            gradients = torch.autograd.grad(
                loss, parameters, allow_unused=True, materialize_grads=True
            )
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            norms.append(float(torch.cat([g.ravel() for g in gradients]).norm()))
            if self.example.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.example.clip_norm)
            self.optimizer.step()
            losses.append(loss.item())
            counts.append(len(outputs))
        total = np.dot(losses, counts) / sum(counts) if sum(counts) else None
        return total, np.mean(norms)


def data(example: Example, rng):
    """Lay the sequences out in any order, with rows between them that belong to none."""
    lengths = np.array(example.lengths)
    starts, rows = np.zeros_like(lengths), 1
    for sequence in rng.permutation(len(lengths)):
        starts[sequence] = rows
        rows += lengths[sequence] + rng.integers(0, 2)
    used = np.zeros(rows + 1, bool)
    for start, length in zip(starts, lengths, strict=True):
        used[start : start + length] = True
    if example.input == "dense":
        values = rng.standard_normal((len(used), FEATURES))
        values[~used] = np.nan
    else:
        values = rng.integers(0, VOCABULARY, len(used))
    count = len(lengths) if example.output == "last" else len(used)
    if example.loss == "squared_error":
        return values, starts, lengths, rng.standard_normal((count, OUTPUTS))
    targets = rng.integers(0, OUTPUTS, count)
    if example.output == "sequence":
        targets[~used] = -1
    return values, starts, lengths, targets


@every_cell
@settings(max_examples=settings.default.max_examples // 10)
@given(example=examples)
def test_the_loop_is_torchs(cell, example):
    rng = np.random.default_rng(example.seed)
    with instruction_set(example.isa):
        network = _core.Network(
            cell,
            example.input,
            FEATURES,
            [example.hidden_size] * example.num_layers,
            example.bidirectional,
            example.output,
            OUTPUTS,
            example.loss,
            "float64",
            vocabulary_size=None if example.input == "dense" else VOCABULARY,
        )
    parameters = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in network.parameter_shapes()}
    network.set_parameters(parameters)
    reference = Reference(cell, example, parameters)
    values, starts, lengths, targets = data(example, rng)

    # What it puts out before, what an epoch reports, and where the weights end.
    examples = _core.Examples(values, starts, lengths, targets)
    use = {"batch_size": example.batch_size, "n_threads": example.threads}
    outputs = network.predict(examples, **use)
    want = reference.outputs(values, starts, example.lengths)[0].detach().numpy()
    np.testing.assert_allclose(outputs, want, rtol=0, atol=1e-12)

    _, options = OPTIMIZERS[example.rule]
    optimizer = _core.Optimizer(example.rule, 0.05, clip_norm=example.clip_norm, **options)
    for epoch in (1, 2, 3):
        log = network.train_epoch(
            examples,
            optimizer,
            epoch=epoch,
            shuffle=False,
            bucket_by_length=False,
            seed=0,
            **use,
        )
        assert log["steps"] == sum(lengths)
        loss, norm = reference.epoch(values, starts, example.lengths, targets)
        if loss is not None:
            assert log["loss"] == pytest.approx(loss, rel=1e-9)
        assert log["grad_norm"] == pytest.approx(norm, rel=1e-9)
        outputs, rows = reference.outputs(values, starts, example.lengths)
        wanted = torch.from_numpy(targets)
        loss = reference.loss(outputs, wanted if rows is None else wanted[rows])
        if len(outputs):
            assert network.evaluate(examples, **use)[0] == pytest.approx(loss.item(), rel=1e-9)
    got = network.parameters()
    for name, value in reference.parameters().items():
        near = 1e-9 * value.abs().max().item()
        np.testing.assert_allclose(
            got[name], value.detach().numpy(), rtol=0, atol=near, err_msg=name
        )
