"""
Draw a record, and put its tables into docs/speed.md and README.md.

    python benches/page.py benches/results/amd-epyc-family-25-model-17.json

The plots lie in docs/; of the pages, what stands between "<!-- NAME -->" and "<!-- end -->" is
replaced: the goals, the table of the topic of that name, some rows of the grid, or the goals as the
other records in the same folder have them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import compare
import reach
import record
from problems import GATES
from topics import Topic, grid, streaming
from workloads import Row

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COLOURS = {"LSTM": "#1f5fa8", "GRU": "#c8501e", "RNN": "#3f8f4f"}
PASSES = ["forward", "step"]
# What the README shows of the grid.
SOME = """
    LSTM forward 1,1,128,256
    GRU forward 1,1,128,256
    LSTM step 32,50,50,128
    GRU step 32,50,50,128
    RNN step 32,50,50,128
    LSTM forward 64,100,128,256
    LSTM step 64,100,128,256
    GRU forward 64,100,128,256
    GRU step 64,100,128,256
    LSTM step 64,100,256,512
    GRU step 64,100,256,512
"""


def ratios(rows: list[Row]) -> Figure:
    """Draw the best peer's time over ours, by shape, a panel a pass."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    shapes = list(dict.fromkeys(_shape(row) for row in rows))
    for axes, name in zip(figure.subplots(2, 1, sharex=True), PASSES, strict=True):
        for place, cell in enumerate(GATES):
            found = {_shape(row): row.versus_best for row in rows if _is(row, name, cell)}
            bars = axes.bar(
                [shapes.index(shape) + 0.27 * (place - 1) for shape in found],
                list(found.values()),
                width=0.25,
                color=COLOURS[cell],
                label=cell,
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
        axes.axhline(1, color="black", linewidth=0.8)
        most = max((row.versus_best for row in rows), default=1)
        # Room for the highest bar's label.
        limits = (0.9, 1.25 * max(most, 8))
        axes.set(yscale="log", ylim=limits, ylabel=f"{name}: best peer / rnncore")
        axes.set_yticks([1, 2, 4, 8], labels=["1", "2", "4", "8"])
        axes.minorticks_off()
        labels = ["{},{}\n{},{}".format(*shape) for shape in shapes]
        axes.set_xticks(range(len(shapes)), labels=labels)
        _tidy(axes)
    axes.set_xlabel("batch, steps / inputs, hidden units")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def shares(rows: list[Row]) -> Figure:
    """Draw the share of a large matrix product's rate by hidden units, a panel a pass."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    large = [row for row in rows if row.what["batch"] >= 64]
    for axes, name in zip(figure.subplots(1, 2, sharey=True), PASSES, strict=True):
        for cell in GATES:
            found = [row for row in large if _is(row, name, cell)]
            hidden = [row.what["hidden"] for row in found]
            share = [100 * row.share_of_peak for row in found]
            axes.plot(hidden, share, "o-", color=COLOURS[cell], label=cell)
        _sizes(axes, sorted({row.what["hidden"] for row in large}))
        axes.set(title=name, ylim=(0, 130))
        axes.axhline(100, color="black", linewidth=0.8)
        _tidy(axes)
    figure.axes[0].set_ylabel("% of the sgemm peak")
    figure.axes[0].legend(loc="lower right")
    return figure


def versus_torch(rows: list[Row]) -> Figure:
    """Draw torch's time over ours for the whole of fit, by hidden units."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    for cell, steps in dict.fromkeys((row.what["cell"], row.what["steps"]) for row in rows):
        found = [r for r in rows if (r.what["cell"], r.what["steps"]) == (cell, steps)]
        axes.plot(
            [row.what["hidden"] for row in found],
            [row.versus_torch for row in found],
            "o-" if steps == max(row.what["steps"] for row in rows) else "o--",
            color=COLOURS[cell],
            label=f"{cell}, {steps} steps",
        )
    _sizes(axes, sorted({row.what["hidden"] for row in rows}))
    axes.set(yscale="log", ylabel="torch / rnncore")
    axes.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    axes.axhline(1, color="black", linewidth=0.8)
    axes.legend()
    _tidy(axes)
    return figure


def steps(rows: list[Row]) -> Figure:
    """Draw the microseconds of one step by hidden units, a panel a cell."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    cells = list(dict.fromkeys(row.what["cell"] for row in rows))
    runs: dict[str, Callable[[Row], float]] = {
        "torch": streaming.torchs,
        "ONNX Runtime": lambda row: row.milliseconds["onnxruntime"],
        "rnncore": lambda row: row.milliseconds["rnncore"],
        "reading the weights": streaming.fastest_read,
    }
    lines = dict(zip(runs, ["o:", "o--", "o-", "k-"], strict=True))
    for axes, cell in zip(figure.subplots(1, len(cells), sharey=True), cells, strict=True):
        found = [row for row in rows if row.what["cell"] == cell]
        hidden = [row.what["hidden"] for row in found]
        for name, taken in runs.items():
            colour = {} if lines[name].startswith("k") else {"color": COLOURS[cell]}
            axes.plot(
                hidden, [1e3 * taken(row) for row in found], lines[name], label=name, **colour
            )
        _sizes(axes, hidden)
        axes.set(title=f"{cell} .step", yscale="log")
        _tidy(axes)
    figure.axes[0].set_ylabel("microseconds")
    figure.axes[0].legend()
    return figure


PLOTS: dict[str, tuple[str, Callable[[list[Row]], Figure]]] = {
    "speed-ratios.svg": ("grid", ratios),
    "speed-peak.svg": ("grid", shares),
    "speed-fit.svg": ("fit", versus_torch),
    "speed-step.svg": ("streaming", steps),
}


def _shape(row: Row) -> tuple[int, ...]:
    return tuple(row.what[key] for key in ("batch", "steps", "inputs", "hidden"))


def _is(row: Row, name: str, cell: str) -> bool:
    return (row.what["pass"], row.what["cell"]) == (name, cell)


def _sizes(axes: Axes, sizes: Iterable[int]) -> None:
    axes.set(xscale="log", xlabel="hidden units")
    axes.set_xticks(list(sizes), labels=list(map(str, sizes)))
    axes.minorticks_off()


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3)


def most_threads(content: dict[str, Any]) -> dict[str, list[Row]]:
    """Give the rows of every section, of the most threads it has."""
    return {
        name: record.rows_of(section, max(row["threads"] for row in section["rows"]))
        for name, section in content["sections"].items()
    }


def draw(rows: dict[str, list[Row]]) -> None:
    """Write the plots whose sections there are; the same rows give the same files."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rnncore", "font.size": 9})
    for name, (section, plot) in PLOTS.items():
        if section in rows:
            plot(rows[section]).savefig(DOCS / name, metadata={"Date": None})


def table(topic: Topic, rows: list[Row]) -> str:
    """Give a topic's table as `compare.py` prints it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        compare.print_columns(topic)
        for row in rows:
            compare.print_row(topic, row)
    return printed.getvalue()


def goals(rows: dict[str, list[Row]]) -> str:
    """Give the table of what was asked and reached."""
    return reach.table(reach.verdicts(compare.TOPICS, rows, compare.GOALS)) + "\n"


def elsewhere(paths: Iterable[Path]) -> str:
    """Give the goals of other machines, each under its name."""
    contents = [record.load(path) for path in sorted(paths)]
    return "\n".join(f"{one['cpu']}:\n\n{goals(most_threads(one))}" for one in contents)


def fill_in(page: str, rows: dict[str, list[Row]], others: Iterable[Path]) -> str:
    """Replace the tables of a page; those of whole topics come with what a reader has to know."""
    tables = {
        topic.name: f"{topic.notes}\n\n{table(topic, rows.get(topic.name, []))}"
        for topic in compare.TOPICS
    }
    wanted = {line.strip() for line in SOME.splitlines()}
    some = [row for row in rows.get("grid", []) if grid.TOPIC.title(row.what) in wanted]
    tables["some of the grid"] = table(grid.TOPIC, some)
    tables["goals"] = goals(rows)
    tables["goals elsewhere"] = elsewhere(others)
    return re.sub(
        r"(<!-- ([a-z ]+) -->\n)(?:.*?)(<!-- end -->)",
        lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def main(arguments: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    path = parser.parse_args(arguments).record
    others = set(path.parent.glob("*.json")) - {path}
    rows = most_threads(record.load(path))
    draw(rows)
    for page in (DOCS / "speed.md", ROOT / "README.md"):
        page.write_text(fill_in(page.read_text(), rows, others))


if __name__ == "__main__":
    main(sys.argv[1:])
