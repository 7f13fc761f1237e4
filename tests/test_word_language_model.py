"""The word language model that is trained with both LSTMs: the same losses, or exit status 1."""

from pathlib import Path

import numpy as np
import pytest
import torch

import rnncore.torch

BENCHES = Path(__file__).resolve().parent.parent / "benches"
SMALL = ["--steps=25", "--emsize=12", "--nhid=16", "--bptt=8", "--batch-size=4", "--threads=1"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Train on a text of forty words that follow one another by rule, mostly."""
    monkeypatch.syspath_prepend(str(BENCHES))
    import word_language_model

    rng = np.random.default_rng(0)
    steps = rng.choice([1, 7, 11], size=1000, p=[0.6, 0.3, 0.1]).cumsum() % 40
    lines = [" ".join(f"w{i}" for i in line) for line in steps.reshape(-1, 10)]
    (tmp_path / "text").write_text("\n".join(lines))
    monkeypatch.setattr(word_language_model, "rest", lambda: None)
    before = torch.get_num_threads()
    yield lambda *more: word_language_model.main(
        ["--text", str(tmp_path / "text"), *SMALL, *map(str, more)]
    )
    torch.set_num_threads(before)


@pytest.mark.parametrize("dropout", [0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_the_same(run, dropout, dtype, capsys):
    assert run("--lr", 5, "--dropout", dropout, "--dtype", dtype) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line]
    losses = {words[0]: float(words[2]) for words in map(str.split, told[1:]) if words[0].isdigit()}
    assert losses["24"] < losses["1"]  # it learns
    (apart,) = (line for line in told if line.startswith("largest difference"))
    assert float(apart.split()[5].rstrip(",")) <= (1e-3 if dtype == "float32" else 1e-9)
    assert [line.split()[0] for line in told[-2:]] == ["all", "of"]


def test_other_losses_are_noticed(run, monkeypatch):
    class Wrong(rnncore.torch.LSTM):
        def forward(self, *args):
            output, state = super().forward(*args)
            return output * 1.1, state

    monkeypatch.setattr(rnncore.torch, "LSTM", Wrong)
    assert run() == 1


def test_losses_that_are_no_numbers_are_noticed(run):
    assert run("--lr", "nan", "--dropout", 0) == 1
