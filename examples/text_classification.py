"""
Tell good film reviews from bad ones: words in, no vectors from elsewhere.

The reviews are those of Maas et al. (2011), https://ai.stanford.edu/~amaas/data/sentiment, which
may not be shipped. Unpack them, and run

    python examples/text_classification.py aclImdb
"""

import argparse
import time
from pathlib import Path

from sklearn.datasets import load_files

import rnncore
from rnncore.text import Vocabulary


def reviews(folder: Path, most: int | None) -> tuple[list[str], list[str]]:
    """Return texts and labels ("neg", "pos") of aclImdb/train or aclImdb/test."""
    data = load_files(folder, categories=["neg", "pos"], encoding="utf-8", random_state=0)
    labels = [data.target_names[label] for label in data.target]
    return data.data[:most], labels[:most]


def main() -> None:
    """Train on the official training set, score on the official test set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="aclImdb, with train/pos, train/neg, test/...")
    parser.add_argument("--most", type=int, help="only so many reviews of each set")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--save", type=Path, help="where to leave the model")
    arguments = parser.parse_args()
    X_train, y_train = reviews(arguments.folder / "train", arguments.most)
    X_test, y_test = reviews(arguments.folder / "test", arguments.most)

    model = rnncore.LSTM(
        hidden_size=64,
        embedding_dim=64,
        vocabulary=Vocabulary(lowercase=True, max_size=20_000),
        output="max",
        input_dropout=0.5,
        learning_rate=0.004,
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=2,
    )
    start = time.perf_counter()
    model.fit(X_train, y_train)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    print(f"accuracy on the test set: {model.score(X_test, y_test):.4f}")
    for text in ("A moving film, and a brave one.", "Two hours that I will never get back."):
        print(model.predict_proba([text])[0].round(3), model.classes_, text)
    if arguments.save:
        model.save(arguments.save)


if __name__ == "__main__":
    main()
