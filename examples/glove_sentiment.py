"""
Tag film reviews by a plain recurrent network over word vectors from elsewhere, kept as they are.

The vectors are GloVe's, https://nlp.stanford.edu/projects/glove, the reviews those of Maas et al.,
https://ai.stanford.edu/~amaas/data/sentiment. Only the first 50 words that are no stop words are
read, as in many a first network. Run it as

    python examples/glove_sentiment.py aclImdb glove.6B.50d.txt
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from sklearn.datasets import load_files
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

import rnncore
from rnncore.text import Vocabulary


def read_vectors(path: Path) -> dict[str, np.ndarray]:
    """Return the vector of each word of a GloVe file, which may be gzipped."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        lines = [line.decode("utf-8", "replace").split() for line in file]
    return {line[0]: np.array(line[1:], np.float32) for line in lines if len(line) == len(lines[0])}


def first_words(text: str) -> list[str]:
    """Return the first 50 words that are no stop words."""
    words = "".join(c if c.isalpha() or c == "'" else " " for c in text.lower()).split()
    return [word for word in words if word not in ENGLISH_STOP_WORDS][:50]


def main() -> None:
    """Train as the network was once written by hand: momentum, clipping by value."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="aclImdb, with train/pos, train/neg, test/...")
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--most", type=int, help="only so many reviews of each set")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    train, test = (
        load_files(arguments.folder / part, categories=["neg", "pos"], random_state=0)
        for part in ("train", "test")
    )
    X_train, X_test = (
        [first_words(text.decode()) for text in data.data[: arguments.most]]
        for data in (train, test)
    )
    y_train, y_test = train.target[: arguments.most], test.target[: arguments.most]

    vocabulary = Vocabulary().fit(X_train)
    model = rnncore.RNN(
        128,
        embedding=vocabulary.vectors(read_vectors(arguments.vectors)),
        freeze_embedding=True,
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.005,
        clip_norm=None,
        clip_value=1.0,
        batch_size=128,
        init="xavier_uniform",
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=2,
    )
    model.fit(
        vocabulary.transform(X_train),
        y_train,
        eval_set=(vocabulary.transform(X_test), y_test),
    )


if __name__ == "__main__":
    main()
