"""Medians of runs taken in turn, and the facts about the machine that belong to a record."""

import datetime
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# One sample lasts about this long: calls follow one another, as they do in use.
SAMPLE_SECONDS = 0.010
# Above this a call brings its own warm caches; below, one untimed call comes before each sample.
LONG_CALL_SECONDS = 0.020
# The threads of whoever ran last wait busily for more, and hold a processor meanwhile: OpenMP's for
# some 10 ms, ONNX Runtime's for 50. Nothing is timed before they sleep: for so long...
REST_SECONDS = 0.010
# ... all threads of the process together have computed for less than this share of it, ...
IDLE = 0.1
# ... or it has been waited for them for so long in vain.
LONGEST_REST_SECONDS = 1.0
# The processors of a virtual machine are its host's to place: two of them on one core, or beside a
# neighbour's, have half a core each, for seconds or minutes; two that share no cache exchange what
# they write two to ten times as slowly. Such samples tell of the host. They are known by something
# that takes so much longer than at best so far: what is computed on a core that is shared, ...
BUSY = 1.2
# ... and a cache line's way, which the interpreter's moods make half as long again.
FAR = 1.6
# For so long in all a row waits for better. Then it is done if it has this many samples of each
# run, and else measured as things are.
PATIENCE_SECONDS = 15.0
ENOUGH = 4


class Watch:
    """
    Tells whether something takes as long as it did at best, or nearly.

    Parameters
    ----------
    run : callable
        A millisecond or less of what the machine's state shows in; gives the seconds.
    unrest : float
        How many times as long as at best it takes at least when it is not.
    """

    def __init__(self, run: Callable[[], float], unrest: float) -> None:
        self._run = run
        self._unrest = unrest
        self._fastest = float("inf")
        for _ in range(20):
            self.is_at_best()

    def is_at_best(self) -> bool:
        """Run it some times and say whether the fastest was as fast as ever, or nearly."""
        taken = min(self._run() for _ in range(3))
        self._fastest = min(self._fastest, taken)
        return taken < self._unrest * self._fastest


class Timed(NamedTuple):
    """
    What a row took.

    seconds : the median of one call of each run, by name
    disturbed : share of the samples that were taken as things were, since no better were to be had
    """

    seconds: dict[str, float]
    disturbed: float


def interleaved_medians(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    min_rounds: int,
    watches: Sequence[Watch] = (),
) -> Timed:
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
    watches : sequence of Watch, optional
        A sample is taken when they all say that the machine is at its best, as far as there is
        patience.

    Returns
    -------
    Timed
    """
    calls = {name: _calls_per_sample(run) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    patience = Patience(watches)
    deadline = time.perf_counter() + seconds * len(runs)

    def is_done() -> bool:
        fewest = min(map(len, samples.values()))
        if patience.is_over and not patience.disturbed:
            return fewest >= ENOUGH
        return fewest >= min_rounds and time.perf_counter() >= deadline + patience.spent

    names: list[str] = []
    while not is_done():
        if not names:  # nobody always follows the same neighbour
            names = random.sample(list(runs), len(runs))
        taken = patience.at_best(partial(_sample, runs[names[-1]], calls[names[-1]]))
        if taken is not None:
            samples[names.pop()].append(taken)
    return Timed({name: median(taken) for name, taken in samples.items()}, patience.disturbed)


class Patience:
    """
    Waits for the machine at its best at each sample of a row, but not for ever.

    Attributes
    ----------
    spent : float
        Seconds that went to waiting in vain.
    disturbed : float
        Share of the samples that were taken though the machine was not asked: patience was over.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = watches
        self._taken = self._unasked = 0
        self.spent = 0.0

    @property
    def disturbed(self) -> float:
        return self._unasked / self._taken if self._taken else 0.0

    @property
    def is_over(self) -> bool:
        """Whether samples are taken as things are from now on."""
        return bool(self._watches) and self.spent > PATIENCE_SECONDS

    def at_best(self, sample: Callable[[], float]) -> float | None:
        """
        Take a sample when all threads sleep and the machine is at its best.

        None if patience ends meanwhile. From then on what comes counts.
        """
        unasked = self.is_over
        while unasked or not self.is_over:
            start = time.perf_counter()
            rest()
            # Nobody sleeps between this and the sample: the host would place the processors anew.
            if unasked or all(watch.is_at_best() for watch in self._watches):
                self._taken += 1
                self._unasked += unasked
                return sample()
            self.spent += time.perf_counter() - start
        return None


def rest() -> None:
    """Sleep until all threads of this process do."""
    end = time.perf_counter() + LONGEST_REST_SECONDS
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - before < IDLE * REST_SECONDS:
            return


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
        os.sched_setaffinity(0, by_cores(os.sched_getaffinity(0))[:count])


def by_cores(cpus: Iterable[int], folder: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """Order processors so that those of one core come after one of each core."""
    siblings: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        path = folder / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        core = path.read_text() if path.exists() else str(cpu)
        siblings.setdefault(core, []).append(cpu)
    rounds = zip_longest(*siblings.values())
    return [cpu for one in rounds for cpu in one if cpu is not None]


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
