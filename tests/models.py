"""Comparing the weights of two models."""

import numpy as np


def weights_of(model):
    return model._network.parameters()


def assert_same_bits(a, b):
    for name, value in weights_of(a).items():
        np.testing.assert_array_equal(weights_of(b)[name], value, err_msg=name)


def assert_close(a, b, rtol=1e-6):
    for name, value in weights_of(a).items():
        np.testing.assert_allclose(weights_of(b)[name], value, rtol, 1e-9, err_msg=name)
