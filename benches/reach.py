"""What was asked, what was reached: the goals of speed, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from topics import Target, Topic
from workloads import Row


@dataclass(frozen=True)
class Verdict:
    """
    What became of a target.

    reached : the figure that decides, with the row that it is of; why there is none
    outcome : "reached", "not reached" and in how many rows, or nothing where nothing was measured
    """

    target: Target
    reached: str
    outcome: str


def verdict(topic: Topic, target: Target, rows: Iterable[Row]) -> Verdict:
    """Hold the rows of a topic against a target."""
    pairs = [(target.figure(row), row) for row in rows]
    found = [(figure, row) for figure, row in pairs if figure is not None]
    if not found:
        return Verdict(target, topic.missing, "")
    if target.of_mean:
        mean = geometric_mean(figure for figure, _ in found)
        outcome = "reached" if target.is_reached(mean) else "not reached"
        return Verdict(target, f"{target.form.format(mean)} over {len(found)} rows", outcome)
    choose = min if target.at_least else max
    worst, row = choose(found, key=lambda pair: pair[0])
    missed = sum(not target.is_reached(figure) for figure, _ in found)
    outcome = f"not reached by {missed} of {len(found)}" if missed else "reached"
    return Verdict(target, f"{target.form.format(worst)} ({topic.title(row.what)})", outcome)


def verdicts(
    topics: Sequence[Topic], rows: Mapping[str, Iterable[Row]], numbers: Iterable[int]
) -> Iterator[Verdict]:
    """Give those of the wanted goals, in order; `rows` are those on most threads, by topic."""
    wanted = [
        (target.number, topic, target)
        for topic in topics
        for target in topic.targets
        if target.number in numbers
    ]
    for _, topic, target in sorted(wanted, key=lambda item: item[0]):
        yield verdict(topic, target, rows.get(topic.name, ()))


def table(found: Iterable[Verdict]) -> str:
    """Lay out verdicts as a table, in Markdown too."""
    lines = [("#", "measure", "asked", "worst", "")]
    for item in found:
        target = item.target
        lines.append((str(target.number), target.measure, target.asked, item.reached, item.outcome))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    laid_out = [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([laid_out[0], rule, *laid_out[1:]])
