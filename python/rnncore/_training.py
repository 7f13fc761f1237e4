"""The training loop: what happens around the epochs of a network."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from rnncore import _core
from rnncore._callbacks import Callbacks
from rnncore._checkpoint import Checkpoint, Checkpoints
from rnncore._network import EVALUATION_BATCH
from rnncore._progress import Progress
from rnncore._state import State
from rnncore._validate import Array

# What marks a model as in training, by process, as a forked child has no part in it, and by id.
_in_training: dict[tuple[int, int], object] = {}


@contextmanager
def alone(model: object, call: str) -> Iterator[None]:
    """Refuse a `call` that trains a model which is in training: one of the two would be lost."""
    key, mark = (os.getpid(), id(model)), object()
    try:
        if _in_training.setdefault(key, mark) is not mark:
            raise RuntimeError(
                f"{call}: expected a model that is not in training, got one that is: in another "
                "thread, or in the call that a callback was called from"
            )
        yield
    finally:
        if _in_training.get(key) is mark:
            del _in_training[key]


class _Best(NamedTuple):
    """The epoch with the least validation loss, with its weights where they will be wanted."""

    epoch: int
    loss: float
    weights: dict[str, Array] | None


class Trainer:
    """Trains a network epoch by epoch, and keeps the record of it on the model.

    However training ends, the network has the weights after the last finished update; or with
    ``early_stopping`` and ``restore_best`` those of the best epoch, if one has finished.

    Parameters
    ----------
    model : estimator
        Gets `history_`, `n_epochs_` and, with validation, `best_epoch_`. Callbacks see it, so all
        else that its methods need is there already.
    network, optimizer
        What is trained, and how. The optimizer's learning rate is the one that schedules start
        from.
    state : State
        Where the training stands, and where it is kept.
    options : mapping
        The estimator's parameters, checked.
    metric : str
        How the history calls the metric beside the loss.
    train, validation : examples
        `validation` may be None.
    """

    def __init__(
        self,
        model: Any,
        network: _core.Network,
        optimizer: _core.Optimizer,
        state: State,
        *,
        options: Mapping[str, Any],
        metric: str,
        train: _core.Examples,
        validation: _core.Examples | None = None,
    ) -> None:
        self._model = model
        self._network = network
        self._optimizer = optimizer
        self._state = state
        self._options = options
        self._metric = metric
        self._train = train
        self._validation = validation
        self._callbacks = Callbacks(options["callbacks"], model)
        self._stops_early = options["early_stopping"] and validation is not None
        self._best: _Best | None = None
        self._checkpoints: Checkpoints | None = None
        self._written = time.monotonic()  # when the last checkpoint was
        self._written_epoch: int | None = None  # finished epochs in it
        # How far an earlier process came in the next epoch, and the time that this took.
        self._position: dict[str, Any] | None = None
        self._seconds = 0.0

    def fit(
        self,
        checkpoints: Checkpoints | None = None,
        found: Checkpoint | None = None,
        stacklevel: int = 2,
    ) -> None:
        """Train for ``max_epochs`` epochs, or as many of them as are missing in `found`.

        Parameters
        ----------
        checkpoints : Checkpoints, optional
            Where to keep them.
        found : Checkpoint, optional
            What to go on from.
        stacklevel : int
            That of the warning after Ctrl-C: 2 is the caller of the function that calls this.

        Raises
        ------
        FloatingPointError
            When loss or weights stop being finite; names epoch and update.
        """
        if found is None:
            self._state.begin_fit()
        else:
            self._go_on_from(found)
        self._checkpoints = checkpoints
        self._run("fit", self._state.begin + self._options["max_epochs"], stacklevel + 1)

    def partial_fit(self, stacklevel: int = 2) -> None:
        """Train for one more epoch, without early stopping; the rest is as for `fit`."""
        self._stops_early = False
        self._run("partial_fit", self._state.epoch + 1, stacklevel + 1)

    def _go_on_from(self, found: Checkpoint) -> None:
        vars(self._state).update(vars(found.state))
        self._network.set_parameters(found.weights)
        self._optimizer.set_state(self._network, found.optimizer)
        self._best = None if found.best is None else _Best(*found.best)
        self._position, self._seconds = found.position, found.seconds
        self._written_epoch = None if found.position else self._state.epoch

    def _run(self, call: str, last: int, stacklevel: int) -> None:
        """Train up to the epoch `last`."""
        state = self._state
        state.history.begin(self._figures())
        interrupted = False
        bar: AbstractContextManager[Progress | None] = (
            Progress(state.epoch, last, self._metric, lines=self._options["verbose"] == 2)
            if self._options["verbose"]
            else nullcontext()
        )
        try:
            with bar as progress:
                self._show_on_model()
                self._callbacks.on_fit_begin()
                stop = False
                while state.epoch < last and not stop and not self._has_waited():
                    stop = self._epoch(progress)
                if self._written_epoch != state.epoch:
                    self._write()
        except KeyboardInterrupt:
            interrupted = True
        except FloatingPointError as error:
            if self._restores():
                raise FloatingPointError(f"{error}; {self._which_weights()}") from None
            raise
        finally:
            self._settle()
        if interrupted:
            warnings.warn(
                f"{call} was interrupted in epoch {min(state.epoch + 1, last)} of {last}: "
                f"{self._which_weights()}",
                stacklevel=stacklevel + 1,
            )
        self._callbacks.on_fit_end()

    def _figures(self) -> list[str]:
        """Return what the history has of every epoch."""
        names = ["loss", self._metric, "grad_norm", "learning_rate", "steps", "seconds"]
        return names if self._validation is None else [*names, "val_loss", f"val_{self._metric}"]

    def _epoch(self, progress: Progress | None) -> bool:
        """Train and validate for an epoch; return whether a callback wants to stop."""
        state = self._state
        epoch = state.epoch + 1
        rates = self._rates()
        result, seconds = self._train_epoch(epoch, rates, progress)
        figures = {
            "loss": result["loss"],
            self._metric: result["metric"],
            "grad_norm": result["grad_norm"],
            "learning_rate": rates[0],
            "steps": result["steps"],
            "seconds": seconds,
        }
        if self._validation is not None:
            figures["val_loss"], figures[f"val_{self._metric}"] = self._network.evaluate(
                self._validation, batch_size=EVALUATION_BATCH, n_threads=self._options["n_jobs"]
            )
        state.history.add_epoch(figures)
        self._observe(epoch, figures)
        state.epoch = epoch
        self._show_on_model()
        if progress:
            progress.on_epoch(epoch, figures)
        stop = self._callbacks.on_epoch_end({"epoch": epoch, **figures})
        every = self._options["checkpoint_epochs"]
        if (every and (epoch - state.begin) % every == 0) or self._pause_after() == 0:
            self._write()
        return stop

    def _train_epoch(
        self, epoch: int, rates: tuple[float, float], progress: Progress | None
    ) -> tuple[dict[str, Any], float]:
        """Train for an epoch, or what is left of it; return its figures and its seconds."""
        options = self._options
        bptt = options["bptt_steps"]
        steps, window = bptt if isinstance(bptt, tuple) else (bptt, None)
        position, self._position = self._position, None
        seconds, self._seconds = self._seconds, 0.0
        while True:
            start = time.perf_counter()
            result = self._network.train_epoch(
                self._train,
                self._optimizer,
                epoch=epoch,
                batch_size=options["batch_size"],
                shuffle=options["shuffle"],
                bucket_by_length=options["bucket_by_length"],
                seed=self._state.seed,
                bptt_steps=steps,
                bptt_window=window,
                checkpoint_time=options["checkpoint_time"],
                accumulate_batches=options["accumulate_batches"],
                rates=rates,
                n_threads=options["n_jobs"],
                on_batch=partial(progress.on_batch, epoch) if progress else None,
                position=position,
                pause_after=self._pause_after(),
            )
            seconds += time.perf_counter() - start
            position = result.get("position")
            if position is None:
                return result, seconds
            self._write(position, seconds)

    def _rates(self) -> tuple[float, float]:
        """Return the learning rates at both ends of the next epoch."""
        base = self._optimizer.learning_rate
        state, schedule = self._state, self._options["lr_schedule"]
        if schedule is None:
            return base, base
        begun = schedule.start()
        if state.counts is None or state.counts.keys() != begun.keys():  # of none, or of another
            state.counts = begun
        epochs = self._options["max_epochs"]
        rates: tuple[float, float] = schedule.rates(
            base, state.epoch - state.begin, epochs, state.counts
        )
        return rates

    def _observe(self, epoch: int, figures: dict[str, float]) -> None:
        """Tell the schedule and early stopping of an epoch, and remember the best."""
        state, options = self._state, self._options
        loss, val_loss = figures["loss"], figures.get("val_loss")
        if options["lr_schedule"] is not None:
            options["lr_schedule"].observe(epoch - 1 - state.begin, loss, val_loss, state.counts)
        if val_loss is None:
            return
        if val_loss < (math.inf if self._best is None else self._best.loss):
            keep = self._stops_early and options["restore_best"]
            self._best = _Best(epoch, val_loss, self._network.parameters() if keep else None)
        target = math.inf if state.target is None else state.target - options["tol"]
        if val_loss < target:
            state.target, state.waited = val_loss, 0
        else:
            state.waited += 1

    def _has_waited(self) -> bool:
        """Return whether early stopping ends the training."""
        return self._stops_early and self._state.waited >= self._options["n_iter_no_change"]

    # How it ends.

    def _restores(self) -> bool:
        return self._best is not None and self._best.weights is not None

    def _which_weights(self) -> str:
        if self._best is not None and self._restores():
            return f"the model has the weights of epoch {self._best.epoch}, the best"
        return "the model keeps what it had learned by then"

    def _settle(self) -> None:
        """Leave the record without a part of an epoch, and the best weights where wanted."""
        self._state.history.cut(self._state.epoch)
        self._show_on_model()
        if self._best is not None and self._best.weights is not None:
            self._network.set_parameters(self._best.weights)

    def _show_on_model(self) -> None:
        self._model.history_ = self._state.history
        self._model.n_epochs_ = self._state.epoch
        if self._best is not None:
            self._model.best_epoch_ = self._best.epoch
        elif hasattr(self._model, "best_epoch_"):
            del self._model.best_epoch_  # of an earlier fit

    # Checkpoints.

    def _pause_after(self) -> float | None:
        """Return the seconds until the clock asks for a checkpoint; None for never."""
        minutes: float | None = self._options["checkpoint_minutes"]
        if self._checkpoints is None or minutes is None:
            return None
        return max(60.0 * minutes - (time.monotonic() - self._written), 0.0)

    def _write(self, position: dict[str, Any] | None = None, seconds: float = 0.0) -> None:
        """Write a checkpoint where they are wanted; `position` is that within the next epoch."""
        if self._checkpoints is None:
            return
        self._checkpoints.write(
            Checkpoint(
                state=self._state,
                max_epochs=self._options["max_epochs"],
                weights=self._network.parameters(),
                optimizer=self._optimizer.state(self._network),
                best=self._best,
                position=position,
                seconds=seconds,
            )
        )
        self._written = time.monotonic()
        self._written_epoch = None if position else self._state.epoch
