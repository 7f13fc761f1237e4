"""Sequences of different lengths (goal 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from peers import Rnncore, Torch
from problems import Array, Case, Problem
from topics import (
    Scope,
    Target,
    Topic,
    at_peak,
    layer_title,
    ms,
    on_threads,
    ratio,
    share,
    times,
)
from workloads import Row, Workload, differences

SHAPES = [(32, 50, 50, 128), (64, 100, 128, 256)]
# Dense batches: of all sequences, and of as many as run at a time on average.
DENSE, FEWER = "dense", "fewer"
# torch without lengths.
PADDED = "padded"
# Lengths in descending order, so that no input is copied; and all that on one thread.
SORTED, ALONE, DENSE_ALONE = "sorted", "alone", "dense alone"


class RaggedRnncore(Rnncore):
    """Our layer: takes lengths beside a padded array."""

    def __init__(self, problem: Problem, threads: int, lengths: Array) -> None:
        super().__init__(problem, threads)
        self.lengths = lengths

    def forward(self) -> Array:
        output, _ = self.layer(self.x, self.state, self.lengths)
        return output

    def step(self) -> tuple[Array, dict[str, Array]]:
        output, _, tape = self.layer.forward(self.x, self.state, self.lengths)
        return output, self._gradients(tape)


class RaggedTorch(Torch):
    """torch's layer: sequences are packed on the way in, padded on the way out."""

    def __init__(self, problem: Problem, threads: int, lengths: Array) -> None:
        super().__init__(problem, threads)
        self.lengths = self.torch.from_numpy(lengths)

    def _run(self) -> Any:
        rnn = self.torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)
        output, _ = self.layer(packed, self.state)
        output, _ = rnn.pad_packed_sequence(output, total_length=len(self.x))
        return output


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    for case in scope.cases(scope.some(SHAPES)):
        yield from passes(case, scope.threads)


def passes(case: Case, threads: int) -> Iterator[Workload]:
    """Give both passes."""
    problem = Problem(case)
    lengths = np.random.default_rng(4).integers(1, case.steps, case.batch, endpoint=True)
    dense = Rnncore(problem, threads)
    ours = RaggedRnncore(problem, threads, lengths)
    theirs = RaggedTorch(problem, threads, lengths)
    padded = Torch(problem, threads)
    running = round(int(lengths.sum()) / case.steps)
    fewer = Rnncore(Problem(replace(case, batch=running)), threads)
    descending = RaggedRnncore(problem, threads, np.sort(lengths)[::-1].copy())
    checked = {"rnncore": ours, "torch": theirs}
    what = {**asdict(case), "real_steps": int(lengths.sum()), "running": running}
    flops = 2 * what["real_steps"] * case.weights
    yield Workload(
        what={"pass": "forward", **what},
        runs={
            "torch": theirs.forward,
            PADDED: padded.forward,
            "rnncore": on_threads(threads, ours.forward),
            DENSE: on_threads(threads, dense.forward),
            FEWER: on_threads(threads, fewer.forward),
            SORTED: on_threads(threads, descending.forward),
            ALONE: on_threads(1, ours.forward),
            DENSE_ALONE: on_threads(1, dense.forward),
        },
        wrong=differences({name: peer.as_torchs(peer.forward()) for name, peer in checked.items()}),
        flops=flops,
    )
    yield Workload(
        what={"pass": "step", **what},
        runs={
            "torch": theirs.step,
            PADDED: padded.step,
            "rnncore": on_threads(threads, ours.step),
            DENSE: on_threads(threads, dense.step),
        },
        wrong=differences({name: peer.as_torchs(*peer.step()) for name, peer in checked.items()}),
        flops=3 * flops,
    )


def per_step(run: str, dense: str = DENSE) -> Callable[[Row], float | None]:
    """Give a run's time per real step over that in a batch without padding."""

    def figure(row: Row) -> float | None:
        what, taken = row.what, row.milliseconds
        if run not in taken:
            return None
        steps = what["running"] * what["steps"] if run == FEWER else what["real_steps"]
        return taken[run] / steps / (taken[dense] / (what["batch"] * what["steps"]))

    return figure


TOPIC = Topic(
    name="ragged",
    heading="Sequences of different lengths",
    notes="""\
Lengths uniform in 1..T, in no order, padded arrays in and out on both sides: rnncore takes the
lengths, torch packs and pads. "padded / us" is torch's time for all steps of the padded batch over
ours: its LSTM is faster so, for whoever needs no final states. "a step" is the time for a real step
over that for a step of the same batch with every sequence T long. "of peak" is the share of a large
matrix product's rate, "at peak" what "torch / us" would be at all of it.

What a step of the forward pass takes with less in its way, likewise over the dense batch's:
"sorted" has the longest sequence first, so that the input is read where it lies, and only the
output is copied; "fewer" is a dense batch of as many sequences as run at a time on average, which
copies nothing; "alone" is one thread, over the dense batch on one, where no thread waits for what
another has written.""",
    workloads=workloads,
    title=layer_title,
    columns={
        "rnncore ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "dense ms": ms(DENSE),
        "torch / us": times(ratio("torch")),
        "padded / us": times(ratio(PADDED)),
        "at peak": times(at_peak(ratio("torch"))),
        "of peak": times(share, "{:.0%}"),
        "a step": times(per_step("rnncore")),
        "sorted": times(per_step(SORTED)),
        "fewer": times(per_step(FEWER)),
        "alone": times(per_step(ALONE, DENSE_ALONE)),
    },
    targets=[
        Target(5, "a real step against a dense batch's", per_step("rnncore"), 1.1, at_least=False),
        Target(5, "against torch, packed", ratio("torch"), 4.0),
    ],
)
