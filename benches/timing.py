"""Medians of runs taken in turn, and the facts about the machine that belong to a record."""

import datetime
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# One sample lasts about this long: calls follow one another, as they do in use.
SAMPLE_SECONDS = 0.010
# Above this a call brings its own warm caches; below, one untimed call comes before each sample.
LONG_CALL_SECONDS = 0.020
# Between samples: the threads of whoever ran last stop waiting busily (OpenMP's take some 10 ms)
# and leave the cores.
PAUSE_SECONDS = 0.030
# The processors of a virtual machine are its host's to place: two of them on one core, or beside a
# neighbour's, have half a core each, for seconds or minutes; two that share no cache exchange what
# they write ten times as slowly. Such samples tell of the host. They are known by something that
# takes this much longer than at best so far, ...
UNREST = 1.25
# ... and for this long in all a row waits for better. Then it is measured as things are.
PATIENCE_SECONDS = 15.0


class Watch:
    """
    Tells whether something takes as long as it did at best, or nearly.

    Parameters
    ----------
    run : callable
        A millisecond or less of what the machine's state shows in.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._fastest = float("inf")
        for _ in range(20):
            self.is_at_best()

    def is_at_best(self) -> bool:
        """Run it some times and say whether the fastest was as fast as ever, or nearly."""
        taken = min(_seconds(self._run, 1) for _ in range(4))
        self._fastest = min(self._fastest, taken)
        return taken < UNREST * self._fastest


class Watches(NamedTuple):
    """
    What tells whether a sample is of the machine at its best; what there is none of always is.

    calm : whether it gives its processors whole: asked before a sample and after it
    near : whether they share a cache: asked before it, when nobody's threads keep them busy
    """

    calm: Watch | None = None
    near: Watch | None = None


NONE = Watches()


def interleaved_medians(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    min_rounds: int,
    watches: Watches = NONE,
) -> dict[str, float]:
    """
    Time every run once per round, round after round, so that a neighbour's noise meets all alike.

    Parameters
    ----------
    runs : mapping of name to callable
        Each has been called before: what it compiles or allocates once is there.
    seconds : float
        Goes on for about this long for each run...
    min_rounds : int
        ... and for this many rounds at least.
    watches : Watches, optional
        A sample counts if they all say so; else it is taken again.

    Returns
    -------
    dict of name to float
        Median seconds of one call.
    """
    calls = {name: _calls_per_sample(run) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    patience = Patience(watches)
    deadline = time.perf_counter() + seconds * len(runs)
    while len(samples[names[0]]) < min_rounds or time.perf_counter() < deadline + patience.spent:
        random.shuffle(names)  # nobody always follows the same neighbour
        for name in names:
            samples[name].append(patience.at_best(partial(_sample, runs[name], calls[name])))
    return {name: median(taken) for name, taken in samples.items()}


class Patience:
    """Waits for the machine at its best at each sample of a row, but not for ever."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self.spent = 0.0

    def at_best(self, sample: Callable[[], float]) -> float:
        """Take a sample, after a pause; again where it was disturbed."""
        calm, near = self._watches
        while True:
            start = time.perf_counter()
            was_calm = self._agrees(calm)
            time.sleep(PAUSE_SECONDS)
            if was_calm and self._agrees(near):
                taken = sample()
                if self._agrees(calm):
                    return taken
            self.spent += time.perf_counter() - start

    def _agrees(self, watch: Watch | None) -> bool:
        return watch is None or self.spent > PATIENCE_SECONDS or watch.is_at_best()


def _calls_per_sample(run: Callable[[], object]) -> int:
    return max(1, round(SAMPLE_SECONDS / min(_sample(run, 1) for _ in range(3))))


def _sample(run: Callable[[], object], calls: int) -> float:
    first = _seconds(run, 1)
    return first if first >= LONG_CALL_SECONDS else _seconds(run, calls)


def _seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def pin_to_cpus(count: int) -> None:
    """Keep this process, and every thread that it starts, on `count` of its processors."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def available_cpus() -> int:
    """Count the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the processor, with family and model: a virtual machine may say "AMD EPYC" of any."""
    if cpuinfo.exists():
        facts = dict(re.findall(r"^([^\t:]+)\t*: (.+)$", cpuinfo.read_text(), re.MULTILINE))
        if "model name" in facts:
            numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
            return " ".join([facts["model name"].strip(), *numbers]).replace("cpu family", "family")
    return platform.processor() or platform.machine()


def circumstances() -> dict[str, Any]:
    """Tell when, where and on which sources a record was taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": _commit(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
