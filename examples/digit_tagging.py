"""
Tag every column of a strip of handwritten digits with the digit that it belongs to.

scikit-learn's scans of 8 x 8 pixels are put side by side, three to six in a strip, and read from
left to right, a column of pixels a step: ragged lists in, ragged lists of labels out. Run it as

    python examples/digit_tagging.py
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rnncore


def strips(
    images: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return `count` strips, each (8 k, 8), and the label of each of their columns, (8 k,)."""
    X, y = [], []
    for _ in range(count):
        chosen = rng.integers(len(images), size=rng.integers(3, 7))
        X.append(np.concatenate([images[i].T for i in chosen]))
        y.append(np.repeat(labels[chosen], 8))
    return X, y


def main() -> None:
    """Train a tagger and draw one of its answers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strips", type=int, default=1500, help="strips to train on")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    data = load_digits()
    split = train_test_split(
        data.images.astype(np.float32) / 16, data.target, test_size=0.25, random_state=0
    )
    rng = np.random.default_rng(0)
    X_train, y_train = strips(split[0], split[2], arguments.strips, rng)
    X_test, y_test = strips(split[1], split[3], 200, rng)

    tagger = rnncore.GRU(
        hidden_size=64, bidirectional=True, max_epochs=arguments.epochs, random_state=0, verbose=1
    ).fit(X_train, y_train)

    print(f"accuracy by column, digits never seen: {tagger.score(X_test, y_test):.4f}")
    print("a strip: ", "".join(map(str, y_test[0])))
    print("is read: ", "".join(map(str, tagger.predict(X_test[:1])[0])))


if __name__ == "__main__":
    main()
