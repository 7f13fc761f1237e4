"""torch's own modules beside ours, and how closely what they give is compared."""

import copy

import torch

import rnncore.torch


def theirs(module):
    """torch's own module with a copy of the weights."""
    return rnncore.torch.revert(copy.deepcopy(module))


def parts(value):
    """All tensors of nested tuples and lists; an empty one for what is missing."""
    if value is None:
        return [torch.empty(0)]
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in parts(part)]


def same(ours, expected, tolerance=1e-9):
    torch.testing.assert_close(parts(ours), parts(expected), rtol=tolerance, atol=tolerance)
