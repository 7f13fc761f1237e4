"""Random sequences of several lengths, as a list and as a padded array, and how they are read."""

import numpy as np

from rnncore._data import read_ids, read_vectors


def ragged(rng, count, features=2, longest=12, shortest=4):
    lengths = rng.integers(shortest, longest + 1, count)
    return [rng.standard_normal((length, features)).astype(np.float32) for length in lengths]


def pad(X, fill=0.0):
    lengths = np.array([len(x) for x in X])
    padded = np.full((len(X), lengths.max(), *X[0].shape[1:]), fill, X[0].dtype)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    return padded, lengths


def vectors(X, lengths=None, padding_value=None, n_features=None, dtype="float32", **options):
    return read_vectors(
        X, lengths, padding_value=padding_value, n_features=n_features, dtype=dtype, **options
    )


def ids(X, lengths=None, padding_value=None, vocabulary_size=None, **options):
    return read_ids(
        X, lengths, padding_value=padding_value, vocabulary_size=vocabulary_size, **options
    )


def objects(items):
    """Return a one-dimensional array of objects, as a column of a table holds them."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def as_unaligned(array):
    """Copy `array` to an odd address."""
    block = np.empty(array.nbytes + 1, np.uint8)
    view = block[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view
