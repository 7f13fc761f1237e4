"""What tells how a machine's processors lie: processes on the others, which answer this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore
from typing import Self

import numpy as np

# Trips of a run: so many that waking the partner, some 50 us, is little beside them.
TRIPS = 4000
# Rounds of what is computed at a time, about a millisecond. It keeps the vector units busy and
# stays in the first-level cache, so that only what else is on the same core slows it.
ROUNDS = 600
NUMBERS = np.linspace(-1, 1, 2048, dtype=np.float32)
# Looks at a number before a process lets others run, some milliseconds, ...
PATIENCE = 100_000
# ... and before it gives up, some seconds.
MOST = 1000 * PATIENCE

# Where the numbers lie that processes talk by, a cache line each, and what they say.
LINE = 8
TURN, ORDER, FIRST_STATE = 0, LINE, 2 * LINE
STOP, COUNT, COMPUTE = 0, 1, 2


class Partners:
    """
    Processes that sleep until they are asked to do something beside this one.

    Parameters
    ----------
    count : int
        One for each other processor.
    """

    def __init__(self, count: int) -> None:
        self._ended = ExitStack()
        context = get_context("spawn")
        self._memory = SharedMemory(create=True, size=8 * LINE * (2 + count))
        self._ended.callback(self._memory.unlink)
        self._ended.callback(self._memory.close)
        self._begin = [context.Semaphore(0) for _ in range(count)]
        self._states = [FIRST_STATE + i * LINE for i in range(count)]
        self._processes = [
            context.Process(target=_answer, args=(self._memory.name, begin, state), daemon=True)
            for begin, state in zip(self._begin, self._states, strict=True)
        ]
        for process in self._processes:
            process.start()
            self._ended.callback(process.join)
            self._ended.callback(process.terminate)

    def __enter__(self) -> Self:
        """Give these."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._ended.close()

    def trips(self) -> None:
        """
        Count up in turn with one partner, `TRIPS` numbers each.

        Tens of nanoseconds of a trip are the cache's where both processors share one, hundreds
        where they do not; some hundred more are the interpreter's.
        """
        with self._memory.buf.cast("Q") as numbers:
            numbers[ORDER] = COUNT
            self._begin[0].release()
            _count(numbers, 0)

    def compute(self) -> float:
        """Compute while all partners do, and give the seconds that it took."""
        with self._memory.buf.cast("Q") as numbers:
            numbers[ORDER] = COMPUTE
            for begin in self._begin:
                begin.release()
            for state in self._states:
                _wait(numbers, state, COMPUTE)
            start = time.perf_counter()
            _compute(ROUNDS)
            taken = time.perf_counter() - start
            numbers[ORDER] = STOP
            for state in self._states:
                _wait(numbers, state, STOP)
        return taken


def nanoseconds(milliseconds: float) -> float:
    """Give the time of a trip from that of a run of them."""
    return 1e6 * milliseconds / TRIPS


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Give a run that says how many seconds it took."""

    def call() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return call


def _answer(name: str, begin: Semaphore, state: int) -> None:
    memory = SharedMemory(name)
    with memory.buf.cast("Q") as numbers:
        while True:
            begin.acquire()
            if numbers[ORDER] == COUNT:
                _count(numbers, 1)
            else:
                numbers[state] = COMPUTE
                while numbers[ORDER] == COMPUTE:
                    _compute(ROUNDS // 100)
                numbers[state] = STOP


def _compute(rounds: int) -> None:
    out = np.empty_like(NUMBERS)
    for _ in range(rounds):
        np.exp(NUMBERS, out=out)


def _count(numbers: memoryview[int], own: int) -> None:
    """Raise the number by one whenever it is even, or odd, as `own` is: from zero to zero."""
    for turn in range(own, 2 * TRIPS, 2):
        _wait(numbers, TURN, turn)
        numbers[TURN] = (turn + 1) % (2 * TRIPS)
    if own == 0:
        _wait(numbers, TURN, 0)


def _wait(numbers: memoryview[int], place: int, number: int) -> None:
    looks = 0
    while numbers[place] != number:
        looks += 1
        if looks % PATIENCE == 0:
            time.sleep(1e-6)  # the partner may be waiting for this processor
            if looks >= MOST:
                raise TimeoutError("partner: expected an answer, got none")
