"""
Follow measurements as they arrive: an answer after every step, in microseconds.

A network that was trained on whole digits, eight rows of pixels each, reads new ones row by row and
says after each row what it thinks so far. Run it as

    python examples/streaming.py
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rnncore


def main() -> None:
    """Train, stream one digit, check that the answers are those of `predict_proba`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    data = load_digits()
    images = data.images.astype(np.float32) / 16
    X_train, X_test, y_train, y_test = train_test_split(images, data.target, random_state=0)
    model = rnncore.GRU(64, max_epochs=arguments.epochs, random_state=0).fit(X_train, y_train)

    stream = model.stream(method="predict_proba")
    print(f"a {y_test[0]}, row by row:")
    for row in X_test[0]:
        probabilities = stream.step(row[None])[0]
        drawn = "".join(" .:*#"[round(4 * pixel)] * 2 for pixel in row)
        print(f"  {drawn}  {probabilities.argmax()} with {probabilities.max():.2f}")
    assert np.array_equal(probabilities, model.predict_proba(X_test[:1])[0])

    stream.reset()
    start = time.perf_counter()
    for _ in range(1000):
        stream.step(X_test[0, :1])
    print(f"{1e3 * (time.perf_counter() - start):.1f} microseconds a step")


if __name__ == "__main__":
    main()
