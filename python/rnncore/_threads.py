"""How many threads a model takes, so that a search over models does not take too many."""

from __future__ import annotations

import os

from joblib.parallel import get_active_backend

# Set by a user, or by joblib for the processes that it starts, each to its share of the CPUs.
_LIMITS = ("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS")


def threads_for(n_jobs: int | None) -> int | None:
    """Return the threads that `n_jobs` stands for; None for `rnncore.get_num_threads`.

    Inside a task of a joblib.Parallel with several workers, as in a search with ``n_jobs=2``, None
    stands for one thread: the workers have the CPUs between them. Where the environment limits the
    threads, as in joblib's own processes, that limit is each worker's share already.
    """
    if n_jobs is not None or any(os.environ.get(name, "").strip() for name in _LIMITS):
        return n_jobs
    backend, _ = get_active_backend()
    return 1 if backend.nesting_level else None
