"""How far apart two processors are: what a cache line takes from one to the other and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore

# Trips of a run: so many that waking the partner, some 50 us, is little beside them.
TRIPS = 4000
# Looks at the number before a process lets others run, some milliseconds, ...
PATIENCE = 100_000
# ... and before it gives up, some seconds.
MOST = 1000 * PATIENCE


@contextmanager
def trips() -> Iterator[Callable[[], None]]:
    """
    Give a run of `TRIPS` trips: this process and a partner on another processor count up in turn.

    Tens of nanoseconds of a trip are the cache's where both processors share one, hundreds where
    they do not; some hundred more are the interpreter's. The partner sleeps between two runs.
    """
    context = get_context("spawn")
    memory, begin = SharedMemory(create=True, size=64), context.Semaphore(0)
    partner = context.Process(target=_answer, args=(memory.name, begin), daemon=True)
    partner.start()

    def run() -> None:
        begin.release()
        _count(memory, 0)

    try:
        yield run
    finally:
        partner.terminate()
        partner.join()
        memory.close()
        memory.unlink()


def nanoseconds(milliseconds: float) -> float:
    """Give the time of a trip from that of a run."""
    return 1e6 * milliseconds / TRIPS


def _answer(name: str, begin: Semaphore) -> None:
    memory = SharedMemory(name)
    while True:
        begin.acquire()
        _count(memory, 1)


def _count(memory: SharedMemory, own: int) -> None:
    """Raise the number by one whenever it is even, or odd, as `own` is: from zero to zero."""
    with memory.buf.cast("Q") as line:
        for turn in range(own, 2 * TRIPS, 2):
            _wait(line, turn)
            line[0] = (turn + 1) % (2 * TRIPS)
        if own == 0:
            _wait(line, 0)


def _wait(line: memoryview[int], number: int) -> None:
    looks = 0
    while line[0] != number:
        looks += 1
        if looks % PATIENCE == 0:
            time.sleep(1e-6)  # the partner may be waiting for this processor
            if looks >= MOST:
                raise TimeoutError("cache line: expected an answer of the partner, got none")
