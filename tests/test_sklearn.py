"""The estimators under scikit-learn's tools: its own checks, searches, parallel work."""

import os

import pytest
from joblib import Parallel, delayed, parallel_config

from rnncore._threads import threads_for


def limits():
    """Say what a task has for threads, and whether its environment limits them."""
    return threads_for(None), threads_for(5), "OMP_NUM_THREADS" in os.environ


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_workers_have_the_cpus_between_them(backend, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RNNCORE_NUM_THREADS", raising=False)
    assert threads_for(None) is None
    with parallel_config(backend=backend):
        alone = Parallel(n_jobs=1)(delayed(limits)() for _ in range(2))
        several = Parallel(n_jobs=2)(delayed(limits)() for _ in range(2))
    assert alone == [(None, 5, False)] * 2
    limited = backend == "loky"  # whose environment has each worker's share
    assert several == [(None if limited else 1, 5, limited)] * 2


def test_limits_of_the_environment_hold_in_workers(monkeypatch):
    monkeypatch.setenv("RNNCORE_NUM_THREADS", "3")
    assert (
        Parallel(n_jobs=2, backend="threading")(delayed(limits)() for _ in range(2))
        == [(None, 5, False)] * 2
    )
