"""The loop around the epochs: early stopping, schedules, callbacks, endings."""

import json
import math
import pickle

import matplotlib as mpl
import numpy as np
import pytest

from rnncore._callbacks import as_callbacks
from rnncore._history import History
from rnncore._state import State
from rnncore.schedules import Cosine, HalveOnRise, ReduceOnPlateau, WarmUp

from .fake_network import STEPS, FakeNetwork, trainer


def weights(network):
    return network.weights["w"].tobytes()


def weights_after(epochs, **options):
    network = FakeNetwork()
    trainer(network, **{"max_epochs": epochs, **options}).fit()
    return weights(network)


def stop(error):
    def event():
        raise error

    return event


# The record.


def test_every_epoch_is_trained_and_recorded():
    network = FakeNetwork(losses=[3, 2, 1, 1, 1], val_losses=[3, 2, 4, 1, 2])
    options = {"bptt_steps": (1, 4), "accumulate_batches": 2, "checkpoint_time": True, "n_jobs": 1}
    made = trainer(network, validation=True, **options)
    made.fit()
    assert [call["epoch"] for call in network.calls] == [1, 2, 3, 4, 5]
    for call in network.calls:
        assert call["seed"] == 7
        assert call["rates"] == (0.1, 0.1)
        assert (call["bptt_steps"], call["bptt_window"]) == (1, 4)
        assert (call["accumulate_batches"], call["n_threads"]) == (2, 1)
        assert call["checkpoint_time"] is True
        assert call["position"] is call["pause_after"] is None
    model, history = made.model, made.model.history_
    assert type(history) is History
    assert (model.n_epochs_, model.best_epoch_) == (5, 4)
    assert history["loss"] == [3, 2, 1, 1, 1]
    assert history["val_loss"] == [3, 2, 4, 1, 2]
    assert history["val_accuracy"] == [0.25] * 5
    assert history["learning_rate"] == [0.1] * 5
    assert history["steps"] == [4 * STEPS] * 5
    names = ("loss", "accuracy", "grad_norm", "learning_rate", "steps", "seconds")
    assert list(history) == [*names, "val_loss", "val_accuracy"]
    # Validation alone changes nothing.
    assert weights(network) == weights_after(5)


def test_a_state_survives_pickling_and_json():
    made = trainer(FakeNetwork(), lr_schedule=ReduceOnPlateau(), validation=True)
    made.fit()
    state = made.state
    assert pickle.loads(pickle.dumps(state)) == state
    again = State.from_json(json.loads(json.dumps(state.to_json())))
    assert again == state
    assert type(again.history) is History


def test_history_fills_what_an_epoch_does_not_have():
    history = History()
    history.add_epoch({"loss": 1.0})
    history.add_epoch({"loss": 0.5, "val_loss": 0.7})
    history.add_epoch({"val_loss": 0.6})
    np.testing.assert_array_equal(history["val_loss"], [math.nan, 0.7, 0.6])
    np.testing.assert_array_equal(history["loss"], [1.0, 0.5, math.nan])
    history.cut(1)
    assert history["loss"] == [1.0]


def test_history_plots_itself():
    history = History(
        loss=[1.0, 0.5], accuracy=[0.5, 0.6], val_loss=[1.0, 2.0], seconds=[1.0, 1.0], steps=[5, 5]
    )
    figure = history.plot()
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 1]
    assert [axis.get_ylabel() for axis in History().plot().axes] == ["loss"]
    mpl.pyplot.close("all")


def test_history_as_a_table():
    pandas = pytest.importorskip("pandas")
    table = History(loss=[1.0, 0.5], accuracy=[0.5, 0.6]).to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table.index.name == "epoch"
    assert list(table.index) == [1, 2]
    assert table["accuracy"].tolist() == [0.5, 0.6]
    assert History().to_pandas().empty


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_a_missing_package_is_named(package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    method = {"pandas": "to_pandas", "matplotlib": "plot"}[package]
    with pytest.raises(ImportError, match=f"history_.{method}.. needs {package}: pip install"):
        getattr(History(loss=[1.0]), method)()


# Early stopping.


@pytest.mark.parametrize(
    ("val_losses", "patience", "tol", "epochs", "best"),
    [
        ([3, 2, 2.5, 2.1, 1, 1], 2, 0.0, 4, 2),
        ([3, 2, 2.5, 1, 1.5, 1.5], 2, 0.0, 6, 4),
        ([3, 2, 1, 0.5, 0.4, 0.3], 2, 0.0, 6, 6),
        # Better, but never by more than tol in a row; then slowly so.
        ([3, 2.9, 2.8, 1, 1, 1], 2, 1.0, 3, 3),
        ([3, 2.4, 1.9, 1.5, 0.8, 0.7], 2, 1.0, 6, 6),
        ([math.nan, math.nan, 1, 1, 1, 1], 2, 0.0, 2, None),
        ([math.nan, 2, 1, 1, 1, 1], 2, 0.0, 5, 3),
        ([1, 2, 0.5, 0, 0, 0], 1, 0.0, 2, 1),
    ],
)
def test_early_stopping(val_losses, patience, tol, epochs, best):
    network = FakeNetwork(val_losses=val_losses)
    made = trainer(
        network,
        validation=True,
        max_epochs=6,
        early_stopping=True,
        n_iter_no_change=patience,
        tol=tol,
    )
    made.fit()
    assert made.model.n_epochs_ == len(made.model.history_["loss"]) == epochs
    assert getattr(made.model, "best_epoch_", None) == best
    assert weights(network) == weights_after(best or epochs)


def test_the_last_weights_stay_where_the_best_are_not_wanted():
    network = FakeNetwork(val_losses=[3, 1, 2, 2])
    made = trainer(network, validation=True, early_stopping=True, restore_best=False)
    made.fit()
    assert (made.model.n_epochs_, made.model.best_epoch_) == (4, 2)
    assert weights(network) == weights_after(4)


def test_early_stopping_needs_validation():
    made = trainer(FakeNetwork(), early_stopping=True)
    made.fit()
    assert made.model.n_epochs_ == 5
    assert not hasattr(made.model, "best_epoch_")


# Schedules.


def test_schedules_set_the_rates():
    network = FakeNetwork()
    made = trainer(network, lr_schedule=WarmUp(1, then=Cosine()))
    made.fit()
    found = [call["rates"] for call in network.calls]
    assert found[0] == (0, 0.1)
    assert found[1][0] == pytest.approx(0.1)
    assert found[3] == pytest.approx((0.05, 0.1 * (1 - math.sqrt(0.5)) / 2))
    assert found[4][1] == pytest.approx(0, abs=1e-12)
    assert made.model.history_["learning_rate"] == [first for first, _ in found]
    assert made.optimizer.learning_rate == 0.1


@pytest.mark.parametrize("validation", [False, True])
def test_schedules_see_the_losses(validation):
    losses, val_losses = [1, 2, 3, 0, 0], [5, 4, 4, 4, 3]
    network = FakeNetwork(losses, val_losses)
    trainer(network, validation=validation, lr_schedule=HalveOnRise()).fit()
    assert [call["rates"][0] for call in network.calls] == [0.1, 0.1, 0.05, 0.025, 0.025]
    network = FakeNetwork(losses, val_losses)
    schedule = ReduceOnPlateau(0.5, patience=0)
    trainer(network, validation=validation, lr_schedule=schedule).fit()
    want = [0.1, 0.1, 0.1, 0.05, 0.025] if validation else [0.1, 0.1, 0.05, 0.025, 0.025]
    assert [call["rates"][0] for call in network.calls] == want


# Going on.


def test_partial_fit_is_one_more_epoch():
    network = FakeNetwork()
    made = trainer(network, max_epochs=1, lr_schedule=Cosine(4))
    made.fit()
    for _ in range(2):
        # As after pickling: another trainer, and an optimizer told of its state.
        again = trainer(
            network, model=made.model, optimizer=made.optimizer, state=made.state,
            lr_schedule=Cosine(4), max_epochs=1,
        )  # fmt: skip
        again.partial_fit()
    assert made.model.n_epochs_ == len(made.model.history_["loss"]) == 3
    assert weights(network) == weights_after(3, lr_schedule=Cosine(4))


def test_partial_fit_may_come_first():
    network = FakeNetwork()
    made = trainer(network)
    made.partial_fit()
    assert made.model.n_epochs_ == 1
    assert weights(network) == weights_after(1)


def test_partial_fit_never_stops_early():
    network = FakeNetwork(val_losses=[1, 2, 3, 4, 5, 6])
    made = trainer(network, validation=True, early_stopping=True)
    made.fit()
    assert made.model.n_epochs_ == 3
    trainer(
        network, model=made.model, state=made.state, validation=True, early_stopping=True
    ).partial_fit()
    assert made.model.n_epochs_ == 4


def test_another_fit_goes_on_with_the_epochs_and_begins_schedule_and_patience_anew():
    network = FakeNetwork(losses=[1, 2, 3, 4, 1, 1], val_losses=[1, 2, 3, 9, 8, 7])
    options = {"validation": True, "early_stopping": True, "lr_schedule": HalveOnRise()}
    made = trainer(network, **options)
    made.fit()
    assert (made.model.n_epochs_, made.model.best_epoch_) == (3, 1)
    again = trainer(
        network,
        model=made.model,
        optimizer=made.optimizer,
        state=made.state,
        **{**options, "max_epochs": 3},
    )
    again.fit()
    assert (made.model.n_epochs_, made.model.best_epoch_) == (6, 6)
    assert [call["epoch"] for call in network.calls] == [1, 2, 3, 4, 5, 6]
    assert made.model.history_["learning_rate"] == [0.1, 0.1, 0.05, 0.1, 0.1, 0.1]
    # Without validation data now: no best epoch of earlier is left.
    third = trainer(network, model=made.model, state=made.state, max_epochs=1)
    network.losses.append(1)
    third.fit()
    assert not hasattr(made.model, "best_epoch_")
    assert math.isnan(made.model.history_["val_loss"][-1])


# Callbacks.


class Recorder:
    def __init__(self):
        self.seen = []

    def on_fit_begin(self, model):
        self.seen.append(("begin", model.n_epochs_))

    def on_epoch_end(self, model, logs):
        assert model.n_epochs_ == logs["epoch"] == len(model.history_["loss"])
        self.seen.append(logs)

    def on_fit_end(self, model):
        self.seen.append(("end", model.n_epochs_))


def test_callbacks_see_every_epoch():
    recorder, epochs = Recorder(), []
    made = trainer(
        FakeNetwork(),
        validation=True,
        max_epochs=2,
        callbacks=[recorder, lambda model, logs: epochs.append(logs["epoch"])],
    )
    made.fit()
    begin, first, second, end = recorder.seen
    assert (begin, end) == (("begin", 0), ("end", 2))
    assert set(first) == {"epoch", *made.model.history_}
    assert second == {"epoch": 2, **{n: v[1] for n, v in made.model.history_.items()}}
    assert epochs == [1, 2]


def test_callbacks_get_logs_of_their_own():
    made = trainer(FakeNetwork(), callbacks=[lambda model, logs: logs.clear()] * 2, max_epochs=2)
    made.fit()
    assert len(made.model.history_["loss"]) == 2


@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_callback_may_stop(answer):
    recorder = Recorder()
    callbacks = [lambda model, logs: answer if logs["epoch"] == 2 else None, recorder]
    network = FakeNetwork(val_losses=[1, 2, 3])
    made = trainer(network, validation=True, early_stopping=True, callbacks=callbacks)
    made.fit()
    assert made.model.n_epochs_ == 2
    assert recorder.seen[-1] == ("end", 2)
    assert weights(network) == weights_after(1)


@pytest.mark.parametrize("answer", [1, "yes", 0.5, np.ones(3), False])
def test_only_true_stops(answer):
    made = trainer(FakeNetwork(), callbacks=[lambda model, logs: answer])
    made.fit()
    assert made.model.n_epochs_ == 5


@pytest.mark.parametrize("early_stopping", [False, True])
def test_what_a_callback_raises_passes_and_the_model_is_kept(early_stopping):
    def fail(model, logs):
        if logs["epoch"] == 3:
            raise ZeroDivisionError

    recorder = Recorder()
    network = FakeNetwork(val_losses=[2, 1, 3])
    made = trainer(
        network, validation=True, early_stopping=early_stopping, callbacks=[fail, recorder]
    )
    with pytest.raises(ZeroDivisionError):
        made.fit()
    assert made.model.n_epochs_ == 3
    assert recorder.seen[-1] != ("end", 3)
    assert weights(network) == weights_after(2 if early_stopping else 3)


def test_what_callbacks_may_be():
    def function(model, logs):
        pass

    recorder = Recorder()
    assert as_callbacks("callbacks", None) == []
    assert as_callbacks("callbacks", function) == [function]
    assert as_callbacks("callbacks", recorder) == [recorder]
    assert as_callbacks("callbacks", (recorder, function)) == [recorder, function]
    for wrong, name in [(3, "callbacks"), ("x", "callbacks"), (Recorder, "callbacks")]:
        with pytest.raises(TypeError, match=f"{name}: expected a function of"):
            as_callbacks("callbacks", wrong)
    with pytest.raises(TypeError, match=r"callbacks\[1\]: expected .* got int 3"):
        as_callbacks("callbacks", [function, 3])


# Ctrl-C and divergence.


@pytest.mark.parametrize(("where", "epochs"), [((3, 2), 2), ((3, "validation"), 2), ((1, 0), 0)])
def test_ctrl_c_keeps_the_model(where, epochs):
    network = FakeNetwork(events={where: stop(KeyboardInterrupt())})
    recorder = Recorder()
    made = trainer(network, validation=True, callbacks=[recorder])

    def fit():
        made.fit()

    message = f"^fit was interrupted in epoch {epochs + 1} of 5: the model keeps what it had"
    with pytest.warns(UserWarning, match=message) as caught:
        fit()
    assert caught[0].lineno == fit.__code__.co_firstlineno + 5
    assert made.model.n_epochs_ == epochs
    assert {len(values) for values in made.model.history_.values()} <= {epochs}
    assert recorder.seen[-1] == ("end", epochs)


def test_ctrl_c_gives_the_best_weights_where_they_are_wanted():
    network = FakeNetwork(val_losses=[2, 1, 3], events={(4, 1): stop(KeyboardInterrupt())})
    made = trainer(network, validation=True, early_stopping=True, n_iter_no_change=9)
    with pytest.warns(UserWarning, match=r"epoch 4 of 5: the model has the weights of epoch 2, th"):
        made.fit()
    assert weights(network) == weights_after(2)


def test_ctrl_c_in_a_callback_or_in_partial_fit():
    made = trainer(FakeNetwork(), callbacks=[lambda model, logs: stop(KeyboardInterrupt())()])
    with pytest.warns(UserWarning, match="fit was interrupted in epoch 2 of 5"):
        made.fit()
    assert made.model.n_epochs_ == 1
    network = FakeNetwork(events={(1, 1): stop(KeyboardInterrupt())})
    with pytest.warns(UserWarning, match="partial_fit was interrupted in epoch 1 of 1"):
        trainer(network).partial_fit()


def test_ctrl_c_while_an_epoch_is_recorded_leaves_no_part_of_it(monkeypatch):
    add_epoch = History.add_epoch

    def interrupted(self, figures):
        if self.get("loss"):
            self["loss"].append(figures["loss"])
            raise KeyboardInterrupt
        add_epoch(self, figures)

    monkeypatch.setattr(History, "add_epoch", interrupted)
    made = trainer(FakeNetwork())
    with pytest.warns(UserWarning, match="epoch 2 of 5"):
        made.fit()
    assert {len(values) for values in made.model.history_.values()} == {1}


@pytest.mark.parametrize("early_stopping", [False, True])
def test_divergence_passes_with_finite_weights(early_stopping):
    error = FloatingPointError("training diverged in epoch 3, update 1: the loss is not finite")
    network = FakeNetwork(val_losses=[1, 2], events={(3, 0): stop(error)})
    made = trainer(network, validation=True, early_stopping=early_stopping, n_iter_no_change=9)
    message = "epoch 3, update 1"
    message += (
        ".*; the model has the weights of epoch 1, the best" if early_stopping else ".*finite$"
    )
    with pytest.raises(FloatingPointError, match=message):
        made.fit()
    assert made.model.n_epochs_ == 2
    assert weights(network) == weights_after(1 if early_stopping else 2)
