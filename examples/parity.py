"""
Learn the parity of a stream of bits: at every step, whether the number of ones so far is odd.

It is trained on sequences of 1 to 20 bits and is right on sequences three times as long. Run it as

    python examples/parity.py
"""

import argparse

import numpy as np

import rnncore


def bits(count: int, longest: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return sequences (T, 1) of random bits, T up to `longest`, and parities (T,)."""
    rng = np.random.default_rng(seed)
    X = [rng.integers(2, size=(length, 1)) for length in rng.integers(1, longest + 1, size=count)]
    return X, [np.cumsum(x) % 2 for x in X]


def main() -> None:
    """Train, then test on longer sequences than any that was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    model = rnncore.LSTM(16, max_epochs=arguments.epochs, random_state=0, verbose=1)
    model.fit(*bits(arguments.sequences, 20, seed=0))
    for longest in (20, 60):
        print(f"up to {longest} bits: {model.score(*bits(1000, longest, seed=longest)):.4%} right")


if __name__ == "__main__":
    main()
