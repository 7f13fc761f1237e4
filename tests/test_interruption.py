"""How fit is watched, and what stops it: progress, history, signals, divergence."""

import io
import os
import signal
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout

import matplotlib as mpl
import numpy as np
import pytest

import rnncore
from rnncore._progress import Progress

from .sequences import pad, ragged


def test_history_has_every_epoch(rng, tmp_path):
    X = ragged(rng, 50)
    y = [x[0, 0] for x in X]
    model = rnncore.GRU(5, max_epochs=4, random_state=0)
    model.fit(X, y, eval_set=(pad(X[:10])[0], y[:10], pad(X[:10])[1]))
    history = model.history_
    assert isinstance(history, dict)
    assert set(history) == {
        *("loss", "r2", "grad_norm", "learning_rate", "steps", "seconds", "val_loss", "val_r2")
    }
    assert {len(values) for values in history.values()} == {4}
    assert model.n_epochs_ == 4
    assert history["val_r2"][-1] == pytest.approx(model.score(X[:10], y[:10]), abs=1e-5)
    errors = model.predict(X[:10]) - y[:10]
    assert history["val_loss"][-1] == pytest.approx(np.mean(errors**2), rel=1e-4)
    assert min(history["grad_norm"]) > 0
    history.plot().savefig(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000
    figure = rnncore.GRU(5, max_epochs=2).fit(X, [len(x) for x in X]).history_.plot()
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy"]
    mpl.pyplot.close("all")


def test_evaluation_does_not_affect_training(rng):
    X = ragged(rng, 40)
    y = [x[0, 0] for x in X]
    model = rnncore.LSTM(6, num_layers=2, dropout=0.5, max_epochs=3, random_state=0)
    plain = model.fit(X, y).predict(X)
    np.testing.assert_array_equal(model.fit(X, y, eval_set=(X[:9], y[:9])).predict(X), plain)


@pytest.mark.parametrize("verbose", [0, 1, 2, True])
def test_progress_goes_where_it_should(verbose, rng):
    X = rng.standard_normal((40, 5, 1))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        rnncore.LSTM(4, max_epochs=3, verbose=verbose).fit(X, X[:, 0, 0] > 0)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    if verbose == 2:
        assert [line.split()[:2] for line in lines] == [["epoch", f"{i}/3"] for i in (1, 2, 3)]
        assert "accuracy" in lines[0]
    else:
        assert lines == []
    assert ("epoch 3/3" in err.getvalue()) is bool(verbose)


@pytest.mark.parametrize(("method", "sequences"), [("on_batch", 4000), ("on_epoch", 40)])
def test_interrupting_the_progress_bar_is_interrupting_fit(method, sequences, monkeypatch, rng):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, method, interrupt)
    X = rng.standard_normal((sequences, 200, 8)).astype(np.float32)
    model = rnncore.LSTM(128, max_epochs=1000, verbose=1)
    with redirect_stderr(io.StringIO()), pytest.warns(UserWarning, match="fit was interrupted"):
        model.fit(X, X[:, 0, 0])
    assert np.isfinite(model.predict(X[:5])).all()


def test_other_errors_in_the_progress_bar_pass(monkeypatch, rng):
    def fail(*_):
        raise BrokenPipeError

    monkeypatch.setattr(Progress, "on_epoch", fail)
    X = rng.standard_normal((10, 4, 2))
    with redirect_stderr(io.StringIO()), pytest.raises(BrokenPipeError):
        rnncore.LSTM(4, verbose=1).fit(X, X[:, 0, 0])


def interrupt_soon(after=0.4):
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.skipif(sys.platform == "win32", reason="sends itself a signal")
@pytest.mark.parametrize("verbose", [0, 1])
def test_interrupting_keeps_what_was_learned(verbose, rng):
    X = ragged(rng, 400)
    y = [int(x[0, 0] > 0) for x in X]
    model = rnncore.GRU(16, max_epochs=10**6, verbose=verbose, random_state=0)
    timer = interrupt_soon()
    with redirect_stderr(io.StringIO()), pytest.warns(UserWarning, match="fit was interrupted"):
        assert model.fit(X, y) is model
    timer.join()
    assert 0 < model.n_epochs_ == len(model.history_["loss"])
    assert model.score(X, y) > 0.6
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler


@pytest.mark.skipif(sys.platform == "win32", reason="sends itself a signal")
def test_interrupting_the_first_epoch_leaves_a_usable_model(rng):
    X = rng.standard_normal((4000, 200, 8)).astype(np.float32)
    model = rnncore.LSTM(256, max_epochs=10**6, random_state=0)  # an epoch of some seconds
    timer = interrupt_soon(0.3)
    with pytest.warns(UserWarning, match="interrupted in epoch 1 of 1000000"):
        model.fit(X, X[:, 0, 0])
    timer.join()
    assert model.n_epochs_ == 0
    assert {name: [] for name in ("loss", "r2", "grad_norm")}.items() <= model.history_.items()
    assert len(model.history_.to_pandas()) == 0
    assert np.isfinite(model.predict(X[:5])).all()
    assert model.history_.plot().axes
    mpl.pyplot.close("all")


@pytest.mark.skipif(sys.platform == "win32", reason="sends itself a signal")
def test_predict_can_be_interrupted(rng):
    X = np.zeros((6000, 200, 2), np.float32)
    model = rnncore.LSTM(128, max_epochs=1).fit(X[:2], [0.0, 1.0])
    start = time.perf_counter()
    model.predict(X)
    whole = time.perf_counter() - start
    timer = interrupt_soon(whole / 10)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        model.predict(X)
    assert time.perf_counter() - start < 0.7 * whole
    timer.join()


@pytest.mark.parametrize("estimator", [rnncore.RNN, rnncore.LSTM, rnncore.GRU])
def test_divergence_stops_and_keeps_the_last_good_weights(estimator, rng):
    X = rng.standard_normal((64, 10, 2))
    options = {"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": None, "random_state": 0}
    model = estimator(8, max_epochs=50, **options)
    with pytest.raises(FloatingPointError, match=r"epoch \d+, update \d+: "):
        model.fit(X, X[:, 0, 0])
    for value in model._network.parameters().values():
        assert np.isfinite(value).all()
    assert np.isfinite(model.predict(X)).all() or estimator is rnncore.RNN
    assert len(model.history_.get("loss", [])) == model.n_epochs_
