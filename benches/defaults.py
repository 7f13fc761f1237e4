"""
What the default settings reach, by optimizer: the table that the defaults are chosen by.

Each task is learned by an estimator with nothing set but what it needs to be told (ids, output,
how many epochs there is time for), once for each optimizer at its default learning rate, at a
third of it and at three times of it. Run it on a folder of data sets as

    python benches/defaults.py FOLDER

where FOLDER holds what there is of

    aclImdb/                 reviews, https://ai.stanford.edu/~amaas/data/sentiment
    en_ewt-ud-*.conllu.gz    sentences, https://github.com/UniversalDependencies/UD_English-EWT
    input.txt                plays, https://github.com/karpathy/char-rnn
    ETTh1.csv                hourly series, https://github.com/zhouhaoyi/ETDataset
    JapaneseVowels/          speakers, https://www.timeseriesclassification.com

Tasks without data are left out; digits and parity need none.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import rnncore

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import forecasting
import parity
import pos_tagging
import text_classification

OPTIMIZERS = ("adam", "sgd")


@dataclass
class Task:
    """Data and what an estimator has to be told of it.

    score : what is printed, of a fitted model and the test data; None for the model's own score
    """

    train: tuple[Any, ...]
    test: tuple[Any, ...]
    epochs: int
    settings: dict[str, Any] = field(default_factory=dict)
    score: Callable[[Any, tuple[Any, ...]], float] | None = None


def digits(folder: Path) -> Task:
    """Rows of pixels; accuracy."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    X_train, X_test, y_train, y_test = train_test_split(images, labels, random_state=0)
    return Task((X_train, y_train), (X_test, y_test), epochs=40)


def parities(folder: Path) -> Task:
    """Bits, the parity at every step; accuracy on sequences three times as long."""
    return Task(parity.bits(2000, 20, seed=0), parity.bits(500, 60, seed=1), epochs=40)


def speakers(folder: Path) -> Task:
    """Series of 7 to 29 steps, nine speakers; accuracy."""

    def read(part: str) -> tuple[list[np.ndarray], list[str]]:
        path = folder / "JapaneseVowels" / f"JapaneseVowels_{part}.ts"
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        cases = [line.split(":") for line in lines if line and line[0] not in "#@"]
        X = [np.array([c.split(",") for c in case[:-1]], np.float32).T for case in cases]
        return X, [case[-1] for case in cases]

    return Task(read("TRAIN"), read("TEST"), epochs=100)


def tags(folder: Path) -> Task:
    """Words of sentences; accuracy by word."""
    train, test = (pos_tagging.sentences(folder, part) for part in ("train", "test"))
    return Task(train, test, epochs=5, settings={"embedding_dim": 64})


def reviews(folder: Path) -> Task:
    """Film reviews, pooled by their maximum; accuracy."""
    train, test = (
        text_classification.reviews(folder / "aclImdb" / part, None) for part in ("train", "test")
    )
    return Task(train, test, epochs=2, settings={"embedding_dim": 64, "output": "max"})


def plays(folder: Path) -> Task:
    """Characters; nats a character, the lower the better."""
    text = (folder / "input.txt").read_text()
    cut = len(text) * 9 // 10
    settings = {"task": "language_model", "hidden_size": 128}
    return Task((text[:cut],), (text[cut:],), 3, settings, lambda model, test: -model.score(*test))


def transformer(folder: Path) -> Task:
    """Seven columns, 24 hours ahead; mean squared error of the standardised values."""
    table = np.genfromtxt(folder / "ETTh1.csv", delimiter=",", skip_header=1)[:, 1:]
    month = forecasting.MONTH
    series = StandardScaler().fit(table[: 12 * month]).transform(table).astype(np.float32)
    train = forecasting.windows(series, 96, 12 * month, 96)
    test = forecasting.windows(series, 16 * month, 20 * month, 96)

    def error(model: Any, test: tuple[Any, ...]) -> float:
        return float(np.square(model.predict(test[0]) - test[1]).mean())

    return Task(train, test, 3, {"output": "last"}, error)


TASKS = {
    "digits, accuracy": digits,
    "parity, accuracy": parities,
    "JapaneseVowels, accuracy": speakers,
    "UD-EWT tags, accuracy": tags,
    "IMDB, accuracy": reviews,
    "tiny-shakespeare, nats": plays,
    "ETTh1, MSE": transformer,
}


def results(task: Task, cell: str, optimizer: str, factors: list[float], seed: int) -> list[str]:
    """Train once at each factor of the default rate; return scores and seconds."""
    settings = {**task.settings, "optimizer": optimizer, "max_epochs": task.epochs}
    rate = default_rate(cell, optimizer)
    found = []
    for factor in factors:
        model = getattr(rnncore, cell)(random_state=seed, **settings, learning_rate=factor * rate)
        start = time.perf_counter()
        try:
            model.fit(*task.train)
        except FloatingPointError:
            found.append("diverged")
            continue
        seconds = time.perf_counter() - start
        score = task.score(model, task.test) if task.score else model.score(*task.test)
        found.append(f"{score:.4f} ({seconds:.0f} s)")
    return found


def default_rate(cell: str, optimizer: str) -> float:
    """Return what learning_rate="auto" stands for."""
    model = getattr(rnncore, cell)(1, optimizer=optimizer, max_epochs=1)
    return model.fit(np.zeros((2, 1, 1)), np.zeros(2)).history_["learning_rate"][0]


def main() -> None:
    """Print the table as Markdown, a row as soon as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--tasks", nargs="*", default=list(TASKS), help="names, or their beginnings"
    )
    parser.add_argument("--cell", default="LSTM", choices=("RNN", "LSTM", "GRU"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--factors", nargs="*", type=float, default=[1 / 3, 1, 3])
    arguments = parser.parse_args()
    columns = [(optimizer, factor) for optimizer in OPTIMIZERS for factor in arguments.factors]
    heads = [f"{optimizer}, rate x {factor:.2g}" for optimizer, factor in columns]
    print(f"| {arguments.cell} | epochs | {' | '.join(heads)} |")
    print("|---" * (len(columns) + 2) + "|")
    for name, read in TASKS.items():
        if not any(name.startswith(wanted) for wanted in arguments.tasks):
            continue
        try:
            task = read(arguments.folder)
        except FileNotFoundError:
            print(f"left out for want of data: {name}", file=sys.stderr)
            continue
        cells = []
        for optimizer in OPTIMIZERS:
            cells += results(task, arguments.cell, optimizer, arguments.factors, arguments.seed)
        print(f"| {name} | {task.epochs} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
