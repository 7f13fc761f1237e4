"""Long sequences in little memory: `checkpoint_time=True` (goal 11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from estimators import weights_of
from footprint import alone, is_measured, rise
from problems import GATES
from timing import pin_to_cpus
from topics import Scope, Target, Topic, ms, ratio, times
from topics.whole_fit import BATCH, FEATURES, Training
from workloads import Row, Workload
from workloads import measure as measure_time

HIDDEN, STEPS, LONGER = 128, 256, 16


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    import rnncore

    rnncore.set_num_threads(scope.threads)
    for cell in scope.of(scope.some(list(GATES))):
        long = Training(cell, HIDDEN, LONGER * STEPS, batches=2, epochs=1)
        fits = {"rnncore": partial(long.fit, checkpoint_time=True), "kept": long.fit}
        ours, theirs = (weights_of(fit()) for fit in fits.values())
        differing = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
        yield Workload(
            what={
                "cell": cell,
                "batch": BATCH,
                "steps": STEPS,
                "inputs": FEATURES,
                "hidden": HIDDEN,
                "longer": LONGER,
            },
            runs=fits,
            wrong=[f"{name} has other bits" for name in differing],
        )


def measure(workload: Workload, threads: int, quick: bool) -> Row:
    """Time the long sequences; add the rise of memory, in processes of their own."""
    row, what = measure_time(workload, threads, quick), workload.what
    if not is_measured():
        return row
    steps, longer = what["steps"], what["steps"] * what["longer"]
    cases = {"T": (steps, True), "longer": (longer, True), "kept": (longer, False)}
    megabytes = {
        name: alone(fit_rise, what["cell"], length, checkpoint, threads)()
        for name, (length, checkpoint) in cases.items()
    }
    return replace(row, megabytes=megabytes)


def fit_rise(cell: str, steps: int, checkpoint: bool, threads: int) -> float:
    """Measure `fit` after one of a small model, for what is loaded and started once."""
    import rnncore

    pin_to_cpus(threads)
    rnncore.set_num_threads(threads)
    Training(cell, 16, 8, batches=1, epochs=1).fit(checkpoint_time=checkpoint)
    training = Training(cell, HIDDEN, steps, batches=1, epochs=1)
    assert training.data
    return rise(partial(training.fit, checkpoint_time=checkpoint))


def memory_growth(row: Row) -> float | None:
    """Give the memory for the long sequences over that for the short ones."""
    return row.megabytes["longer"] / row.megabytes["T"] if row.megabytes else None


def title(what: dict[str, Any]) -> str:
    """Name a row."""
    numbers = [what["batch"], f"{what['longer']}*{what['steps']}", what["inputs"], what["hidden"]]
    return f"{what['cell']} fit {','.join(map(str, numbers))}"


def _megabytes(name: str) -> Any:
    return lambda row: f"{row.megabytes[name]:.1f}" if row.megabytes else ""


TOPIC = Topic(
    name="checkpointing",
    heading="checkpoint_time=True",
    notes=f"""\
An epoch of `fit` with it and without, whose weights have the same bits, and by how many megabytes
memory rises at most: with it for T = {STEPS} steps and for {LONGER} T, without for {LONGER} T.
Where what is kept grows with the root of T, {LONGER} T take 4 times the memory of T.""",
    workloads=workloads,
    title=title,
    columns={
        "with ms": ms("rnncore"),
        "without ms": ms("kept"),
        "with / without": times(ratio("rnncore", "kept")),
        "T MB": _megabytes("T"),
        f"{LONGER} T MB": _megabytes("longer"),
        "without MB": _megabytes("kept"),
    },
    targets=[
        Target(11, "checkpoint_time, time over without", ratio("rnncore", "kept"), 1.4, False),
        Target(11, f"checkpoint_time, memory of {LONGER} T over T", memory_growth, 4.6, False),
    ],
    measure=measure,
)
