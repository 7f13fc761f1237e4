"""The progress bar, and Ctrl-C in a terminal."""

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest
import tqdm.notebook

from rnncore import _progress
from rnncore._progress import Progress

from .fake_network import FakeNetwork, trainer

BATCH = {"done": 1, "total": 4, "loss": 0.5, "metric": 0.25, "steps": 1000, "rate": 0.01}
EPOCH = {"loss": 0.5, "r2": 0.1, "learning_rate": 0.02, "steps": 3000, "seconds": 2.0}


def output(**options):
    """Return the lines on standard output, and all of standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        trainer(FakeNetwork(losses=[1, 0.5, 0.25]), max_epochs=3, **options).fit()
    return [line for line in out.getvalue().splitlines() if line.strip()], err.getvalue()


def test_silence():
    assert output(verbose=0) == ([], "")


def test_a_bar():
    lines, bar = output(verbose=1, validation=True)
    assert lines == []
    last = bar.split("\r")[-1]
    for part in ("epoch 3/3", "100%", "loss 0.25", "accuracy 0.5", "rate 0.1", "steps/s"):
        assert part in last
    assert "val_loss" in last
    assert "epoch 2/3" in bar
    assert "2/4  loss" in bar


def test_lines():
    lines, bar = output(verbose=2)
    assert [line.split()[:2] for line in lines] == [["epoch", f"{i}/3"] for i in (1, 2, 3)]
    assert "loss 0.5000  accuracy 0.5000  rate 0.1" in lines[1]
    assert lines[1].endswith(" s")
    assert "epoch 3/3" in bar


def test_the_bar_moves_within_an_epoch_and_is_closed(monkeypatch):
    clock = iter([10.0, 10.5, 11.0, 12.0])
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: next(clock))
    with redirect_stderr(io.StringIO()), Progress(0, 4, "r2", lines=False) as progress:
        progress.on_batch(2, BATCH)
        assert progress._bar.n == 1.25
        assert progress._bar.postfix == "1/4  loss 0.5000  r2 0.2500  rate 0.01"
        progress.on_batch(2, {**BATCH, "steps": 2000, "done": 2})
        assert progress._bar.n == 1.5
        assert progress._bar.postfix.endswith("rate 0.01  2,000 steps/s")
        progress.on_batch(2, {**BATCH, "steps": 4000, "done": 4})
        assert progress._bar.postfix.endswith("2,600 steps/s")  # most of it as before
        progress.on_epoch(2, EPOCH)
        assert progress._bar.n == 2
        assert progress._bar.postfix == "loss 0.5000  r2 0.1000  rate 0.02  1,500 steps/s"
        progress.on_batch(3, BATCH)  # steps count from nothing again
        assert progress._bar.postfix.endswith("2,600 steps/s")
    assert progress._bar.disable


def test_a_bar_for_what_is_left():
    with redirect_stderr(io.StringIO()), Progress(3, 5, "r2", lines=False) as progress:
        assert progress._bar.desc.startswith("epoch 4/5")
        progress.on_batch(4, BATCH)
        assert (progress._bar.n, progress._bar.total) == (0.25, 2)


def test_an_epoch_without_batches_or_time():
    with redirect_stderr(io.StringIO()), Progress(0, 1, "r2", lines=False) as progress:
        progress.on_batch(1, {**BATCH, "done": 0, "total": 0, "steps": 0})
        progress.on_epoch(1, {**EPOCH, "steps": 0, "seconds": 0.0})
        assert "steps/s" not in progress._bar.postfix


def test_notebooks_get_a_bar_of_their_own(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(_progress, "tqdm", tqdm.notebook.tqdm)
    with redirect_stdout(io.StringIO()), Progress(0, 4, "r2", lines=True) as progress:
        progress.on_batch(2, BATCH)
        left, bar, right = progress._bar.container.children
        assert bar.value == 1.25
        shown = (left.value + right.value).replace("\u2007", " ")
        assert "epoch 2/4" in shown
        assert "loss 0.5000" in shown
        progress.on_epoch(2, EPOCH)
        assert bar.value == 2


@pytest.mark.parametrize("method", ["on_batch", "on_epoch"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_errors_in_the_bar(method, error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Progress, method, fail)
    made = trainer(FakeNetwork(), verbose=1)
    expected = (
        pytest.warns(UserWarning, match="fit was interrupted in epoch")
        if error is KeyboardInterrupt
        else pytest.raises(error)
    )
    with redirect_stderr(io.StringIO()), expected:
        made.fit()
    assert made.model.n_epochs_ == len(made.model.history_.get("loss", [])) <= 1
