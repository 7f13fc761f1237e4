"""Random sequences of several lengths, as a list and as a padded array."""

import numpy as np


def ragged(rng, count, features=2, longest=12, shortest=4):
    lengths = rng.integers(shortest, longest + 1, count)
    return [rng.standard_normal((length, features)).astype(np.float32) for length in lengths]


def pad(X, fill=0.0):
    lengths = np.array([len(x) for x in X])
    padded = np.full((len(X), lengths.max(), *X[0].shape[1:]), fill, X[0].dtype)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    return padded, lengths
