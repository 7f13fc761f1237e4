"""
Train an LSTM to read handwritten digits row by row.

scikit-learn brings 1797 scans of 8 x 8 pixels. Each becomes a sequence of eight steps, one a row
of pixels, and the network names the digit after the last. Run it as

    python examples/digits.py --output demo

It leaves the model and a picture of its training in the folder `demo`.
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rnncore


def digits() -> list[np.ndarray]:
    """Give training and test sequences, (n, 8, 8) in 0..1, and their labels, (n,)."""
    images, labels = load_digits(return_X_y=True)
    sequences = images.reshape(-1, 8, 8).astype(np.float32) / 16
    return train_test_split(sequences, labels, test_size=0.25, stratify=labels, random_state=0)


def draw(sequence: np.ndarray) -> str:
    """Draw a scan in characters."""
    return "\n".join("".join(" .:*#"[round(4 * pixel)] * 2 for pixel in row) for row in sequence)


def main() -> None:
    """Train, save, load and predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of the results")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")  # pictures go to files: no screen is needed

    X_train, X_test, y_train, y_test = digits()
    print(
        f"rnncore {rnncore.__version__} on {rnncore.get_num_threads()} threads: an LSTM learns to "
        f"read {len(X_train)} digits and is tested on {len(X_test)} others\n"
    )

    # verbose=2: a progress bar, and a line for each epoch. The test set is looked at after each
    # epoch and does not affect the training. `random_state` makes the result the same each time.
    model = rnncore.LSTM(hidden_size=64, max_epochs=40, random_state=0, verbose=2)
    start = time.perf_counter()
    model.fit(X_train, y_train, eval_set=(X_test, y_test))
    seconds = time.perf_counter() - start

    print(f"\ntrained in {seconds:.1f} s")
    print(f"accuracy on the training set: {model.score(X_train, y_train):.4f}")
    print(f"accuracy on the test set:     {model.score(X_test, y_test):.4f}\n")

    model.save(output / "digits.safetensors")
    model.history_.plot().savefig(output / "history.png", dpi=150)
    print(f"saved {output / 'digits.safetensors'} and {output / 'history.png'}")

    loaded = rnncore.load(output / "digits.safetensors")
    assert np.array_equal(loaded.predict(X_test), model.predict(X_test))
    probabilities = loaded.predict_proba(X_test[:1])[0]
    digit = loaded.classes_[probabilities.argmax()]
    print(f"loaded it again; it reads this as {digit}, with probability {probabilities.max():.3f}:")
    print(draw(X_test[0]))


if __name__ == "__main__":
    main()
