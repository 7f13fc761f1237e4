"""What all tests share: how hard the property tests try, their order, the threads, real data."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import rnncore
from rnncore import _core

ROOT = Path(__file__).resolve().parent.parent

# "dev" looks for something new each time and is quick; "ci" is thorough, and the same in every run.
# No deadline in either: one slow example on a busy machine says nothing about the code.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_report_header() -> str:
    """Name what is under test: which copy, on which kernels and threads."""
    return (
        f"rnncore {rnncore.__version__} from {Path(rnncore.__file__).parent}: "
        f"{_core.isa()}, {rnncore.get_num_threads()} threads"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run quick tests first; what is marked slow comes last, in its own order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    """Put the number of threads back, so that a test may set it freely."""
    before = rnncore.get_num_threads()
    yield
    if rnncore.get_num_threads() != before:
        rnncore.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Let SIGINT interrupt, as in a terminal: a shell ignores it for what it runs in background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rng() -> np.random.Generator:
    """Give random numbers, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real data sets beside the checkout; skip where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets of ../shared/data beside the checkout")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the calls from torch that the kernels computed."""
    from rnncore.torch import _autograd

    made: list[Any] = []
    kernels = _autograd.forward

    def counted(call: Any, *args: Any, **kwargs: Any) -> Any:
        found = kernels(call, *args, **kwargs)
        made.extend([] if found is None else [call])
        return found

    monkeypatch.setattr(_autograd, "forward", counted)
    return made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch's threads from waiting for work where ours want to do some."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rnncore.set_num_threads(1)
    yield
    torch.set_num_threads(before)
