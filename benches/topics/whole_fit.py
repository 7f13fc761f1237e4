"""The whole of `fit` against a tuned loop in torch (goal 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from estimators import part, weights_of
from problems import Array, Case
from topics import Scope, Target, Topic, at_peak, ms, ratio, share, times
from workloads import Row, Workload

BATCH, FEATURES, CLASSES = 32, 16, 10
# Batches of an epoch and epochs, by hidden units: at most some second of torch.
SIZES = {32: (40, 2), 64: (30, 2), 256: (8, 2), 512: (4, 2)}
STEPS = [50, 100]

# What is compared is an epoch in double precision, where both sides are one computation: in single
# precision roundings grow with every update until they show in the loss.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Training:
    """A classifier of sequences, the settings of `fit` that torch repeats, and the data."""

    cell: str
    hidden: int
    steps: int
    batches: int
    epochs: int
    learning_rate: float = 0.003
    clip_norm: float = 1.0
    dtype: str = "float32"

    @property
    def flops(self) -> int:
        """Count the operations of the layer's products but those of the input's gradient."""
        forward = self.layer.forward_flops
        input_gradient = forward * FEATURES // (FEATURES + self.hidden)
        return self.batches * self.epochs * (3 * forward - input_gradient)

    @property
    def layer(self) -> Case:
        """The recurrent layer with a batch."""
        return Case(self.cell, BATCH, self.steps, FEATURES, self.hidden)

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """Sequences (n, steps, features), and which feature of each has the largest sum."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batches * BATCH, self.steps, FEATURES), self.dtype)
        return x, x[:, :, :CLASSES].sum(axis=1).argmax(axis=1)

    def fit(self, learning_rate: float | None = None, checkpoint_time: bool = False) -> Any:
        """Train by ours; give the estimator."""
        import rnncore

        model = getattr(rnncore, self.cell)(
            self.hidden,
            optimizer="adam",
            learning_rate=learning_rate or self.learning_rate,
            clip_norm=self.clip_norm,
            batch_size=BATCH,
            shuffle=False,
            max_epochs=self.epochs,
            checkpoint_time=checkpoint_time,
            dtype=self.dtype,
            random_state=0,
        )
        return model.fit(*self.data)

    @cached_property
    def start(self) -> dict[str, Array]:
        """The weights that `fit` starts from: those that so small a rate leaves as they are."""
        return weights_of(self.fit(learning_rate=1e-30))


def layer_step(training: Training) -> Callable[[], object]:
    """Give what the layer does of an update: forward, and backward from the last state."""
    import rnncore

    layer = getattr(rnncore.nn, training.cell)(FEATURES, training.hidden, dtype=training.dtype)
    x = np.ascontiguousarray(training.data[0][:BATCH].swapaxes(0, 1))
    slope = np.full((1, BATCH, training.hidden), 1e-3, training.dtype)
    d_state = (slope, None) if training.cell == "LSTM" else slope

    def step() -> object:
        *_, tape = layer.forward(x)
        return layer.backward(tape, None, d_state)

    return step


class TorchLoop:
    """The same training in torch: all that does not depend on the weights is done beforehand."""

    def __init__(self, training: Training) -> None:
        import torch

        self.torch, self.training = torch, training
        x, y = training.data
        self.x = torch.from_numpy(x).transpose(0, 1).contiguous()  # (steps, n, features)
        self.y = torch.from_numpy(y)
        self.order = torch.arange(len(y)).split(BATCH)
        dtype = self.x.dtype
        self.layer = getattr(torch.nn, training.cell)(FEATURES, training.hidden, dtype=dtype)
        self.head = torch.nn.Linear(training.hidden, CLASSES, dtype=dtype)

    def fit(self) -> tuple[list[float], dict[str, Array]]:
        """Train from the common start; give the loss of every epoch, and the weights."""
        torch, training = self.torch, self.training
        for module, name in ((self.layer, "rnn"), (self.head, "head")):
            given = part(training.start, name)
            module.load_state_dict({key: torch.from_numpy(value) for key, value in given.items()})
        parameters = [*self.layer.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=training.learning_rate, fused=True)
        losses = []
        for _ in range(training.epochs):
            total = torch.zeros((), dtype=self.x.dtype)
            for batch in self.order:
                _, state = self.layer(self.x.index_select(1, batch))
                h = state[0] if isinstance(state, tuple) else state
                loss = torch.nn.functional.cross_entropy(
                    self.head(h[0]), self.y.index_select(0, batch)
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, training.clip_norm, foreach=True)
                optimizer.step()
                total += loss.detach()
            losses.append(float(total) / len(self.order))
        weights = {
            **{f"rnn.{name}": value.numpy() for name, value in self.layer.state_dict().items()},
            **{f"head.{name}": value.numpy() for name, value in self.head.state_dict().items()},
        }
        return losses, weights


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    import torch

    import rnncore

    rnncore.set_num_threads(scope.threads)
    torch.set_num_threads(scope.threads)
    for hidden, (batches, epochs) in SIZES.items():
        if scope.quick and hidden not in (32, 256):
            continue
        for steps in scope.some(STEPS):
            for cell in scope.of(["LSTM", "GRU"]):
                training = Training(cell, hidden, steps, batches, epochs)
                yield Workload(
                    what={"batch": BATCH, "inputs": FEATURES, **asdict(training)},
                    runs={
                        "rnncore": training.fit,
                        "torch": TorchLoop(training).fit,
                        "layer": layer_step(training),
                        "one": replace(training, batches=1, epochs=1).fit,
                    },
                    wrong=differences(replace(training, dtype="float64", epochs=1)),
                    flops=training.flops,
                )


def differences(training: Training) -> list[str]:
    """Say where the two do not end at the same."""
    model, loop = training.fit(), TorchLoop(training)
    (our_loss,), ((their_loss,), theirs) = model.history_["loss"], loop.fit()
    ours, wrong = weights_of(model), []
    if not math.isclose(our_loss, their_loss, rel_tol=TOLERANCE):
        wrong.append(f"the loss is {our_loss}, torch's {their_loss}")
    for name, weights in theirs.items():
        moved = np.linalg.norm(weights - training.start[name])
        off = np.linalg.norm(weights - ours[name]) / moved
        if not off <= TOLERANCE:
            wrong.append(f"{name} is off by {off:.1e} of the way that it went")
    return wrong


def title(what: dict[str, Any]) -> str:
    """Name a training."""
    numbers = ",".join(str(what[key]) for key in ("batch", "steps", "inputs", "hidden"))
    return f"{what['cell']} fit {numbers}"


def layer_share(row: Row) -> float | None:
    """Give the rate of the layer's step alone, over the faster matrix product's."""
    if "layer" not in row.milliseconds:
        return None
    what = row.what
    training = Training(*(what[name] for name in ("cell", "hidden", "steps", "batches", "epochs")))
    gflops = 3 * training.layer.forward_flops / row.milliseconds["layer"] / 1e6
    return gflops / max(row.sgemm_gflops.values())


def at_layer(row: Row) -> float | None:
    """Give torch's time over ours as it would be if we ran at the rate of the layer's step."""
    most = layer_share(row)
    return None if most is None else row.versus_torch * most / row.share_of_peak


def _up_to_64(row: Row) -> float | None:
    return row.versus_torch if row.what["hidden"] <= 64 else None


def _from_256(row: Row) -> float | None:
    return row.versus_torch if row.what["hidden"] >= 256 else None


TOPIC = Topic(
    name="fit",
    heading="The whole of fit",
    notes=f"""\
A classifier of sequences into {CLASSES} classes by the last state, Adam, gradients clipped at norm
1, batches in the same order: `rnncore.LSTM(...).fit(X, y)` from the arrays to the fitted model
against a loop in torch whose tensors lie ready, time first, with the fused optimizer and no metric.
Both start from the same weights and end at the same, which an epoch in double precision checks.
"layer" is the share of the peak that a training step of the layer alone has in such a batch
(`rnncore.nn`, forward and backward, the input's gradient too, called over and over): no gathering,
no head, no loss, no optimizer. "at layer" is what the ratio would be, were all of `fit` as fast.
"one ms" is a `fit` of a single update, mostly checks and preparations.""",
    workloads=workloads,
    title=title,
    columns={
        "rnncore ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "torch / us": times(ratio("torch")),
        "at layer": times(at_layer),
        "at peak": times(at_peak(ratio("torch"))),
        "of peak": times(share, "{:.0%}"),
        "layer": times(layer_share, "{:.0%}"),
        "one ms": ms("one"),
        "updates": lambda row: str(row.what["batches"] * row.what["epochs"]),
    },
    targets=[
        Target(4, "whole fit against a tuned torch loop, H <= 64", _up_to_64, 6.0),
        Target(4, "whole fit against a tuned torch loop, H >= 256", _from_256, 2.0),
    ],
)
