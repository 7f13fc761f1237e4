"""How much memory calls of torch modules take, in MB: no padding, no copies of input or output."""

import pytest

from .memory import grown

# Threads and packed weights are there before anything is measured.
BEGINNING = """
import torch
from torch.nn.utils.rnn import PackedSequence
from rnncore.torch import GRU, LSTM, RNN

torch.set_num_threads(2)

def made(kind, *sizes, **options):
    layer = kind(*sizes, **options)
    layer(torch.randn(40, 16, sizes[0]))[0].sum().backward()
    return layer
"""


@pytest.mark.slow
def test_packed_sequences_are_not_padded():
    # One sequence of 20,000 steps and 500 of one: 20,500 rows, and 10 million with padding, of
    # which each column takes 40 MB. A row has 64 inputs, 64 outputs and some numbers of the gates.
    before = """
layers = [made(kind, 64, 64) for kind in (RNN, GRU, LSTM)]
x = torch.randn(20_500, 64, requires_grad=True)
packed = PackedSequence(x, torch.tensor([501] + [1] * 19_999))
"""
    code = """
for layer in layers:
    layer(packed)[0].data.sum().backward()
"""
    assert grown(BEGINNING + before, code) < 200


@pytest.mark.slow
def test_large_batches_are_read_where_they_lie():
    before = """
first, turned, other = made(LSTM, 512, 16), made(GRU, 512, 16, batch_first=True), made(RNN, 512, 16)
x = torch.randn(64, 512, 512)  # 67 MB
"""
    code = """
with torch.no_grad():
    first(x), turned(x), other(x[:, ::2])
"""
    assert grown(BEGINNING + before, code) < 15


@pytest.mark.slow
def test_large_outputs_are_there_once():
    before = """
layer = made(LSTM, 16, 512)
x = torch.randn(64, 512, 16)
"""
    code = """
with torch.no_grad():
    output, _ = layer(x)  # 67 MB
"""
    assert grown(BEGINNING + before, code) < 80


@pytest.mark.slow
def test_training_keeps_no_copy_of_its_input():
    # The input is 67 MB, as is its gradient; what is kept of 16 units is 17 MB.
    before = """
layer = made(LSTM, 512, 16)
x = torch.randn(64, 512, 512, requires_grad=True)
"""
    forward = "output = layer(x)[0]"
    assert grown(BEGINNING + before, forward) < 40
    backward = "output.sum().backward()"
    assert grown(BEGINNING + before + forward, backward) < 110
