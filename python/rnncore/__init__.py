"""Recurrent networks (RNN, LSTM, GRU) over NumPy arrays, trained and served by Rust kernels.

`rnncore.RNN`, `rnncore.LSTM`, `rnncore.GRU`
    scikit-learn estimators over sequences: ``rnncore.LSTM(hidden_size=64).fit(X, y)``.
`rnncore.nn`
    Layers and cells with torch's shapes, names and gate order, to train by hand.
`rnncore.init`, `rnncore.optim`
    Initialisation and optimizers for those layers.
`rnncore.schedules`
    Learning-rate schedules for the estimators.
`rnncore.text`, `rnncore.preprocessing`
    Words to ids and back; scikit-learn's transformers applied step by step.
`rnncore.plot`
    Pictures of a fitted model.
`rnncore.torch`
    torch's recurrent modules, computed by the same kernels.
`rnncore.load`
    Read back what an estimator's ``save`` wrote.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rnncore import _core, init, nn, optim
from rnncore._validate import integer

if TYPE_CHECKING:
    from rnncore import plot, preprocessing, schedules, text, torch
    from rnncore._io import load
    from rnncore._models import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "get_num_threads",
    "init",
    "load",
    "nn",
    "optim",
    "plot",
    "preprocessing",
    "schedules",
    "set_num_threads",
    "text",
    "torch",
]

__version__: str

# Imported when first asked for: the estimators need scikit-learn, which is slow to import.
_LAZY = {"GRU": "_models", "LSTM": "_models", "RNN": "_models", "load": "_io"}
_LAZY_MODULES = {"plot", "preprocessing", "schedules", "text", "torch"}


def _can_be_found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # somebody hides it, or has put another in its place
        return sys.modules.get(name) is not None


# `import *` and `help` import all that is named: only what can be.
_MISSING: set[str] = set() if _can_be_found("torch") else {"torch"}
__all__[:] = [name for name in __all__ if name not in _MISSING]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rnncore")
    if name in _LAZY_MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_LAZY_MODULES, "__version__"} - _MISSING)


def set_num_threads(n: int) -> None:
    """Set how many threads computations use from now on.

    At the start it is the environment's ``RNNCORE_NUM_THREADS`` or ``OMP_NUM_THREADS``, or else the
    number of CPUs that the process may use.

    Parameters
    ----------
    n : int, >= 1

    Raises
    ------
    TypeError, ValueError
        When `n` is not an integer, or below 1.
    """
    _core.set_num_threads(integer("n", n, 1))


def get_num_threads() -> int:
    """Return how many threads computations use."""
    return _core.get_num_threads()
