"""How time grows with steps, with sequences, and with threads (goal 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from partners import nanoseconds
from peers import Rnncore
from problems import Case, Problem
from topics import Scope, Target, Topic, on_threads, times
from workloads import Row, Workload, trips

CELLS = ["LSTM", "GRU"]
START = {"batch": 64, "steps": 50, "inputs": 64, "hidden": 128}
SIZES = {"steps": [50, 100, 200, 400], "batch": [32, 64, 128, 256]}
# One thread with as many rows as each of all has.
SHARE = "share"
# A cache line there and back between two processors.
LINE = "line"
THREADED = [(8, 50, 50, 128), (32, 50, 50, 128), (8, 100, 128, 256), (64, 100, 128, 256)]


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows: sizes first, then numbers of threads."""
    import rnncore

    rnncore.set_num_threads(scope.threads)
    for cell in scope.of(scope.some(CELLS)):
        for axis, sizes in SIZES.items():
            case = Case(cell, **START)
            layers = {
                size: Rnncore(Problem(replace(case, **{axis: size})), scope.threads)
                for size in sizes
            }
            for name in ("forward", "step"):
                yield Workload(
                    what={"pass": name, "axis": axis, "sizes": sizes, **asdict(case)},
                    runs=runs({str(size): getattr(layer, name) for size, layer in layers.items()}),
                    wrong=[],
                )
    if scope.threads == 1:
        return
    for case in scope.cases(scope.some(THREADED)):
        layer = Rnncore(Problem(case), scope.threads)
        fewer = replace(case, batch=case.batch // scope.threads)
        share = Rnncore(Problem(fewer), scope.threads)
        sizes = [1, scope.threads]
        for name in ("forward", "step"):
            one, more = (on_threads(n, getattr(layer, name)) for n in sizes)
            alone = on_threads(1, getattr(share, name))
            by_size = {"1": one, str(scope.threads): more, SHARE: alone}
            yield Workload(
                what={"pass": name, "axis": "threads", "sizes": sizes, **asdict(case)},
                runs=runs({**by_size, LINE: trips}),
                wrong=[],
            )


def runs(by_size: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Call each once, so that it has its memory."""
    for run in by_size.values():
        run()
    return by_size


def per_size(row: Row) -> list[float] | None:
    """Give the time for each step, or sequence, over the least; None of threads."""
    if row.what["axis"] == "threads":
        return None
    each = [row.milliseconds[str(size)] / size for size in row.what["sizes"]]
    return [value / min(each) for value in each]


def spread(row: Row) -> float | None:
    """Give the largest difference between the times of a step, or of a sequence."""
    each = per_size(row)
    return None if each is None else max(each) - 1


def speedup(row: Row) -> float | None:
    """Give one thread's time over all threads'."""
    if row.what["axis"] != "threads":
        return None
    one, *_, most = row.what["sizes"]
    return row.milliseconds[str(one)] / row.milliseconds[str(most)]


def by_rows(row: Row) -> float | None:
    """Give one thread's time over what it takes for the rows that each of all has."""
    if SHARE not in row.milliseconds:
        return None
    return row.milliseconds[str(row.what["sizes"][0])] / row.milliseconds[SHARE]


def line(row: Row) -> float | None:
    """Give the nanoseconds of a cache line's way there and back."""
    return nanoseconds(row.milliseconds[LINE]) if LINE in row.milliseconds else None


def title(what: dict[str, Any]) -> str:
    """Name a row, what grows as "*"."""
    numbers = ("batch", "steps", "inputs", "hidden")
    shape = ",".join("*" if key == what["axis"] else str(what[key]) for key in numbers)
    return f"{what['cell']} {what['pass']} {shape}"


def _sizes(row: Row) -> str:
    return " ".join(str(size) for size in row.what["sizes"])


def _each(row: Row) -> str:
    return " ".join(f"{value:.2f}" for value in per_size(row) or [])


TOPIC = Topic(
    name="growth",
    heading="Growth with steps, sequences and threads",
    notes="""\
rnncore alone. Of the size that stands as "*", "each" is the time for one (a step, a sequence) over
the least; where none does, the sizes are numbers of threads. "by rows" is one thread's time over
what it takes for a thread's share of the rows: the speedup of threads that cut the rows and then
share nothing, neither a cache line nor a moment of waiting. "line ns" is what a cache line took
from one processor to the other and back while the row was measured, some of it the interpreter's:
where the host gives cores that share no cache it takes several times as long.""",
    workloads=workloads,
    title=title,
    columns={
        "sizes": _sizes,
        "each": _each,
        "spread": times(spread, "{:.1%}"),
        "speedup": times(speedup),
        "by rows": times(by_rows),
        "line ns": times(line, "{:.0f}"),
    },
    targets=[
        Target(8, "time over T and B, off the line", spread, 0.10, at_least=False, form="{:.0%}"),
        Target(8, "all threads against one, B >= 8", speedup, 1.9),
    ],
)
