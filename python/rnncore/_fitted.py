"""What the parts of an estimator, each in a file of its own, rely on in one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncore import _core, optim
    from rnncore._history import History
    from rnncore._problem import Problem
    from rnncore._sequences import Sequences
    from rnncore._state import State


class Fitted:
    """A fitted estimator, as its parts see it: names and types alone."""

    if TYPE_CHECKING:
        _problem: Problem
        _network: _core.Network
        _config: dict[str, Any]
        _optimizer: optim.Optimizer | None
        _state: State | None
        history_: History
        best_epoch_: int

        def _given(self) -> dict[str, Any]: ...
        def _become_fitted(
            self,
            problem: Problem,
            config: dict[str, Any],
            network: _core.Network,
            history: History | None = None,
            *,
            state: State | None = None,
            optimizer: optim.Optimizer | None = None,
        ) -> None: ...
        def _check_fitted(self) -> None: ...
        def _task_if_known(self) -> str: ...
        def _n_threads(self) -> int | None: ...
        def _read(
            self, X: object, lengths: object = None, names: tuple[str, str] = ("X", "lengths")
        ) -> Sequences: ...
        def _examples(self, sequences: Sequences) -> _core.Examples: ...
        def _labelled(
            self, X: object, y: object, lengths: object, sample_weight: object = None
        ) -> tuple[Sequences, _core.Examples]: ...
        def score(
            self,
            X: object,
            y: object = None,
            *,
            lengths: object = None,
            sample_weight: object = None,
        ) -> float: ...
