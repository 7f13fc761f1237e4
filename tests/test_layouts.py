"""Arrays of every layout in, and arrays of their own out."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rnncore import nn

Array = NDArray[np.floating]

LAYERS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def reversed_axis(axis: int) -> Callable[[Array], Array]:
    """Lay an array out backwards along one axis."""

    def lay(x: Array) -> Array:
        return np.flip(np.ascontiguousarray(np.flip(x, axis)), axis)

    return lay


def among_others(x: Array) -> Array:
    """Lay rows out in wider ones."""
    wide = np.full((*x.shape[:-1], x.shape[-1] + 3), np.nan, x.dtype)
    wide[..., 1:-2] = x
    return wide[..., 1:-2]


def every_second(x: Array) -> Array:
    """Lay numbers out with others between them."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def swapped(x: Array) -> Array:
    """Lay the first two axes out the other way round."""
    return np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)


LAYOUTS = {
    "swapped": swapped,
    "steps reversed": reversed_axis(0),
    "sequences reversed": reversed_axis(1),
    "columns reversed": reversed_axis(2),
    "among others": among_others,
    "every second": every_second,
    "Fortran": np.asfortranarray,
}


def make(cell: str, inputs: int, hidden: int, **options: object) -> nn.RNN | nn.GRU | nn.LSTM:
    """Make a layer; widths of 16 and 32 are whole registers everywhere."""
    return LAYERS[cell](inputs, hidden, random_state=1, **options)


def numbers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 2) -> Array:
    """Draw an array."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same(found: object, expected: object) -> None:
    """Compare bit by bit, all the way down."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        for name in expected:
            same(found[name], expected[name])
    else:
        assert isinstance(found, tuple)
        assert isinstance(expected, tuple)
        for one, other in zip(found, expected, strict=True):
            same(one, other)


def step(
    layer: nn.RNN | nn.GRU | nn.LSTM, x: Array, dy: Array, *, copy: bool = True
) -> tuple[object, ...]:
    """Give all that comes out, of inference and of a training step."""
    output, state, tape = layer.forward(x, copy=copy)
    return layer(x), (output, state), layer.backward(tape, dy)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("cell", "inputs", "hidden", "options"),
    [
        ("RNN", 16, 32, {}),
        ("GRU", 5, 16, {"bidirectional": True}),
        ("LSTM", 50, 20, {"dtype": "float64"}),
        ("LSTM", 16, 32, {"proj_size": 16, "num_layers": 2}),
    ],
)
def test_layout_changes_no_bit(
    cell: str,
    inputs: int,
    hidden: int,
    options: dict[str, object],
    *,
    batch_first: bool,
    layout: str,
) -> None:
    layer = make(cell, inputs, hidden, batch_first=batch_first, **options)
    dtype = str(options.get("dtype", "float32"))
    x = numbers((4, 3, inputs), dtype)
    dy = numbers(layer(x)[0].shape, dtype, 3)
    lay = LAYOUTS[layout]
    expected = step(layer, x, dy)
    same(step(layer, lay(x), lay(dy)), expected)
    same(step(layer, lay(x), lay(dy), copy=False), expected)


@pytest.mark.parametrize("batch_first", [False, True])
def test_axes_order_changes_no_bit(*, batch_first: bool) -> None:
    x, dy = numbers((7, 3, 16)), numbers((7, 3, 32))
    for cell in LAYERS:
        rows, steps = (make(cell, 16, 32, batch_first=first) for first in (True, False))
        expected = step(steps, x, dy)
        found = step(rows, x.swapaxes(0, 1), dy.swapaxes(0, 1))
        same(np.ascontiguousarray(found[0][0].swapaxes(0, 1)), expected[0][0])
        same(np.ascontiguousarray(found[2][0].swapaxes(0, 1)), expected[2][0])
        same(found[2][1:], expected[2][1:])


@pytest.mark.parametrize(
    "shape", [(1, 1, 16), (5, 1, 16), (1, 5, 16), (0, 3, 16), (3, 0, 16), (0, 0, 16)]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_axes_of_one_and_none(shape: tuple[int, ...], *, batch_first: bool) -> None:
    layer = make("GRU", 16, 32, batch_first=batch_first)
    x, dy = numbers(shape), numbers((*shape[:2], 32))
    expected = step(layer, x, dy)
    # An axis of one or none may have any stride.
    odd = np.lib.stride_tricks.as_strided
    strides = [s if n > 1 else -8 for s, n in zip(x.strides, shape, strict=True)]
    same(step(layer, odd(x, strides=strides), dy), expected)


def test_one_row_for_all_steps_is_read_at_each() -> None:
    layer = make("LSTM", 16, 32)
    x, dy = np.broadcast_to(numbers((16,)), (6, 3, 16)), np.broadcast_to(numbers((32,)), (6, 3, 32))
    same(step(layer, x, dy), step(layer, x.copy(), dy.copy()))


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 4, 1], [2, 6, 0]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_ragged_rows_end_in_zeros(lengths: list[int], *, batch_first: bool) -> None:
    layer = make("GRU", 16, 32, batch_first=batch_first)
    x, dy = numbers((3, 6, 16)), numbers((3, 6, 32))
    for i, length in enumerate(lengths):
        x[i, length:], dy[i, length:] = np.nan, np.nan
    if not batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    inferred = layer(x, lengths=lengths)[0]
    output, _, tape = layer.forward(x, lengths=lengths)
    found = layer.backward(tape, dy)
    dx = found[0]
    same(inferred, output)
    lent, _, tape = layer.forward(x, lengths=lengths, copy=False)
    same(lent, output)
    same(layer.backward(tape, dy), found)
    for rows in (output, dx):
        rows = rows if batch_first else rows.swapaxes(0, 1)
        for i, length in enumerate(lengths):
            assert np.all(rows[i, length:] == 0)
            assert np.all(rows[i, :length] != 0)


@pytest.mark.parametrize("hidden", [32, 20])
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_is_given_out_is_the_callers_own(hidden: int, *, batch_first: bool) -> None:
    layer = make("LSTM", 16, hidden, batch_first=batch_first)
    x, dy = numbers((4, 3, 16)), numbers((4, 3, hidden))
    kept = []
    for i in range(4):
        inferred, state = layer(x * i)
        output, _, tape = layer.forward(x * i)
        dx, dhx, grads = layer.backward(tape, dy)
        found = [inferred, *state, output, dx, *dhx, *grads.values()]
        for array in found:
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.flags.aligned
        kept += [(array, array.copy()) for array in found]
    del layer
    for array, copy in kept:
        # No later call wrote to it, nor does it share memory with another.
        same(array, copy)
        array.fill(np.nan)
    assert all(np.isnan(array).all() for array, _ in kept)


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_is_written_after_forward_does_not_count(*, batch_first: bool) -> None:
    layer = make("GRU", 16, 32, batch_first=batch_first)
    x, dy = numbers((4, 3, 16)), numbers((4, 3, 32))
    expected = step(layer, x, dy)[2]
    given = x.copy()
    output, _, tape = layer.forward(given)
    output.fill(np.nan)
    given.fill(np.nan)
    same(layer.backward(tape, dy), expected)


@pytest.mark.parametrize("hidden", [32, 20])
@pytest.mark.parametrize("batch_first", [False, True])
def test_without_copies_what_was_given_is_read_again(hidden: int, *, batch_first: bool) -> None:
    layer = make("GRU", 16, hidden, batch_first=batch_first)
    x, dy = numbers((4, 3, 16)), numbers((4, 3, hidden))
    expected = step(layer, x, dy)
    output, state, tape = layer.forward(x, copy=False)
    same((output, state), expected[1])
    for array in (output, output[1:].view()):
        with pytest.raises(ValueError, match="read-only"):
            array.fill(0)
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    # The arrays are looked at alone: what the caller makes of theirs is no matter.
    output.shape, x.shape = (-1,), (12, 16)
    same(layer.backward(tape, dy), expected[2])
    x.shape = (4, 3, 16)
    _, _, tape = layer.forward(x, copy=False)
    x.fill(0)
    assert not layer.backward(tape, dy)[2]["weight_ih_l0"].any()
    assert x.flags.writeable


def test_one_sequence_goes_without_copies_to_the_same_bits() -> None:
    for cell in LAYERS:
        layer = make(cell, 16, 32, num_layers=2, bidirectional=True)
        for lengths in ([300], [300, 3, 0]):
            x, dy = (numbers((300, len(lengths), width)) for width in (16, 64))
            found = []
            for copy in (True, False):
                output, state, tape = layer.forward(x, lengths=lengths, copy=copy)
                found.append((output, state, layer.backward(tape, dy)))
            same(*found)


def test_a_used_tape_lets_its_arrays_go() -> None:
    layer, x = make("LSTM", 16, 32), numbers((4, 3, 16))
    output, _, tape = layer.forward(x, copy=False)
    held = sys.getrefcount(x)
    with pytest.raises(ValueError, match="d_output: expected shape"):
        layer.backward(tape, x)
    assert sys.getrefcount(x) == held
    layer.backward(tape, output)
    assert sys.getrefcount(x) == held - 1
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, output)


def test_gradient_may_be_the_output_or_the_input() -> None:
    layer = make("RNN", 32, 32)
    x = numbers((4, 3, 32))
    output, _, tape = layer.forward(x)
    expected = layer.backward(tape, output.copy())
    output, _, tape = layer.forward(x)
    same(layer.backward(tape, output), expected)
    _, _, tape = layer.forward(x)
    expected = layer.backward(tape, x.copy())
    for copy in (True, False):
        _, _, tape = layer.forward(x, copy=copy)
        same(layer.backward(tape, x), expected)


def test_output_is_fed_again() -> None:
    layer = make("GRU", 32, 32)
    x = numbers((4, 3, 32))
    expected = x
    for _ in range(5):
        x, expected = layer(x)[0], layer(expected.copy())[0]
        same(x, expected)
    # And the same memory as the state.
    same(layer(x, x[:1]), layer(x.copy(), x[:1].copy()))
