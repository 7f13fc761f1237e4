"""Callbacks: the caller's own code between the epochs of a fit."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from rnncore._validate import describe

_METHODS = ("on_fit_begin", "on_epoch_end", "on_fit_end")


def as_callbacks(name: str, value: object) -> list[object]:
    """Return the callbacks that an argument stands for: None, one, or several of them."""
    if value is None:
        return []
    if _is_callback(value):
        return [value]
    no_list = isinstance(value, str | bytes) or getattr(value, "shape", None) == ()
    if no_list or not isinstance(value, Collection):  # an iterator is empty the second time
        raise TypeError(f"{name}: expected {_EXPECTED}, or a list of such, got {describe(value)}")
    several = list(value)
    for index, item in enumerate(several):
        if not _is_callback(item):
            raise TypeError(f"{name}[{index}]: expected {_EXPECTED}, got {describe(item)}")
    return several


_EXPECTED = "a function of (model, logs), or an object with " + " or ".join(_METHODS)


def _is_callback(value: object) -> bool:
    # A class has methods too, but nobody to call them on.
    return not isinstance(value, type) and (
        callable(value) or any(hasattr(value, method) for method in _METHODS)
    )


class Callbacks:
    """Calls those of a fit, each in its turn; what they raise passes."""

    def __init__(self, callbacks: list[object], model: object) -> None:
        self._callbacks = callbacks
        self._model = model

    def on_fit_begin(self) -> None:
        """Call every ``on_fit_begin(model)``."""
        for callback in self._callbacks:
            if hasattr(callback, "on_fit_begin"):
                callback.on_fit_begin(self._model)

    def on_epoch_end(self, logs: dict[str, float]) -> bool:
        """Call every ``on_epoch_end(model, logs)``; return whether one of them returned True."""
        stop = False
        for callback in self._callbacks:
            call: Any = getattr(callback, "on_epoch_end", None)
            if call is None and callable(callback):
                call = callback
            if call is not None:
                answer = call(self._model, dict(logs))
                # Only True itself stops: functions that return something else do so by accident.
                stop |= isinstance(answer, bool | np.bool_) and bool(answer)
        return stop

    def on_fit_end(self) -> None:
        """Call every ``on_fit_end(model)``."""
        for callback in self._callbacks:
            if hasattr(callback, "on_fit_end"):
                callback.on_fit_end(self._model)
