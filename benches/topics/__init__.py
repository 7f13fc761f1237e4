"""What is compared, topic by topic: each gives its workloads, its table and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from problems import GATES, Case
from workloads import Row, Workload, measure

Shape = tuple[int, ...]
T = TypeVar("T")

# Of `torch_modules`: named here, where no import of torch is needed.
MODULE_FORMS = [
    "layer",
    "float64",
    "stack",
    "proj",
    "packed",
    "loop",
    "model",
    "overhead",
    "compiled",
]


@dataclass(frozen=True)
class Scope:
    """
    How much of a topic is wanted, and with what.

    shapes : batch, steps, inputs and hidden units, instead of those of the grid
    forms : kinds of modules, of `torch_modules` alone
    """

    threads: int
    quick: bool = False
    cells: Sequence[str] = tuple(GATES)
    shapes: Sequence[Shape] | None = None
    peers: Sequence[str] = ("rnncore", "torch")
    forms: Sequence[str] = ()

    def of(self, cells: Sequence[str]) -> list[str]:
        """Give those of some cells that are wanted."""
        return [cell for cell in cells if cell in self.cells]

    def some(self, items: Sequence[T]) -> Sequence[T]:
        """Give the first alone where little is wanted."""
        return items[:1] if self.quick else items

    def cases(self, shapes: Sequence[Shape]) -> Iterator[Case]:
        """Give every wanted cell in every shape."""
        for shape in shapes:
            for cell in self.of(list(GATES)):
                yield Case(cell, *shape)


@dataclass(frozen=True)
class Target:
    """
    What is asked of a figure of the rows.

    number : of the goal, 1 to 11; several targets may make up one
    figure : of a row; None where the row has nothing to do with it
    bound, at_least : what it must reach, or stay under
    of_mean : whether this is asked of the geometric mean, not of each row
    form : how figures are printed
    """

    number: int
    measure: str
    figure: Callable[[Row], float | None]
    bound: float
    at_least: bool = True
    of_mean: bool = False
    form: str = "{:.2f}x"

    def is_reached(self, figure: float) -> bool:
        """Say whether a figure is good enough."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    @property
    def asked(self) -> str:
        """Say what is asked."""
        sign = ">=" if self.at_least else "<="
        bound = self.form.format(self.bound)
        return f"{'geometric mean' if self.of_mean else 'each'} {sign} {bound}"


@dataclass(frozen=True)
class Topic:
    """
    One kind of comparison.

    workloads : its rows, each checked when it comes
    title : of a row
    columns : of its table, by heading
    notes : what a reader of the table has to know
    thread_counts : "each" number of threads that is asked for, the "most", or "one" whatever is
    missing : why there may be no rows
    summary : what is said of all rows
    """

    name: str
    heading: str
    notes: str
    workloads: Callable[[Scope], Iterator[Workload]]
    title: Callable[[dict[str, Any]], str]
    columns: Mapping[str, Callable[[Row], str]]
    targets: Sequence[Target]
    thread_counts: str = "most"
    measure: Callable[[Workload, int, bool], Row] = measure
    missing: str = "not measured"
    summary: Callable[[Sequence[Row]], str] = lambda rows: ""

    def counts(self, asked: Sequence[int]) -> list[int]:
        """Give the numbers of threads to run on."""
        return {"each": list(asked), "most": [max(asked)], "one": [1]}[self.thread_counts]


def on_threads(count: int, run: Callable[[], object]) -> Callable[[], object]:
    """Give a run that sets its number of threads first, which takes no time worth a word."""
    import rnncore

    def call() -> object:
        rnncore.set_num_threads(count)
        return run()

    return call


def ms(*names: str) -> Callable[[Row], str]:
    """Give a column of the time of the fastest of these runs."""

    def cell(row: Row) -> str:
        found = [row.milliseconds[name] for name in names if name in row.milliseconds]
        return f"{min(found):.4g}" if found else ""

    return cell


def times(figure: Callable[[Row], float | None], form: str = "{:.2f}") -> Callable[[Row], str]:
    """Give a column of a figure."""

    def cell(row: Row) -> str:
        value = figure(row)
        return "" if value is None else form.format(value)

    return cell


def ratio(over: str, under: str = "rnncore") -> Callable[[Row], float | None]:
    """Give one run's time over another's."""

    def figure(row: Row) -> float | None:
        if over not in row.milliseconds:
            return None
        return row.milliseconds[over] / row.milliseconds[under]

    return figure


def best(row: Row) -> float | None:
    """Give the best peer's time over ours."""
    return row.versus_best if len(row.milliseconds) > 1 else None


def share(row: Row) -> float | None:
    """Give our rate over the faster matrix product's."""
    return row.share_of_peak if row.sgemm_gflops else None


def at_peak(figure: Callable[[Row], float | None] = best) -> Callable[[Row], float | None]:
    """Give a ratio to ours as it would be if we ran at the matrix product's rate."""

    def most(row: Row) -> float | None:
        ratio, part = figure(row), share(row)
        return None if ratio is None or part is None else ratio / part

    return most


def layer_title(what: Mapping[str, Any]) -> str:
    """Name a layer's pass as "LSTM step 64,100,128,256"."""
    numbers = ",".join(str(what[key]) for key in ("batch", "steps", "inputs", "hidden"))
    words = [what["cell"], what["pass"], numbers]
    words += ["last"] if what.get("gradient") == "last" else []
    words += [what["dtype"]] if what.get("dtype", "float32") != "float32" else []
    words += [f"{what['layers']}x2"] if what.get("bidirectional") else []
    return " ".join(words)
