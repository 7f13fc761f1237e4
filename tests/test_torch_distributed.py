"""`rnncore.torch` in several processes: gradients under DistributedDataParallel, the example."""

import re
from pathlib import Path

import pytest
import torch

from .children import run_python

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="torch is built without gloo",
    ),
]


def in_two_processes(script, *arguments):
    """Run a script as ``torchrun --nproc-per-node 2`` does, on a free port; give what it says."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return run_python(*launcher, script, *arguments)


# Each process reads half of a batch; its gradients are then those of the whole.
WORKER = """
import copy
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_sequence

import rnncore.torch

class Model(nn.Module):
    def __init__(self, kind, dtype, **options):
        super().__init__()
        self.layers = getattr(nn, kind)(3, 8, dtype=dtype, **options)
        self.head = nn.Linear(8 * (1 + self.layers.bidirectional), 1, dtype=dtype)
        self.unused = nn.GRU(3, 3, dtype=dtype)

    def forward(self, x):
        output, _ = self.layers(x)
        output = output.data if isinstance(x, nn.utils.rnn.PackedSequence) else output
        return self.head(output).pow(2).sum()

def check(kind, dtype, packed, options, ddp, frozen=(), micro_batches=1):
    torch.manual_seed(0)
    lengths = [9, 2, 5, 1, 7, 3, 3, 8] if packed else [6] * 8
    batch = [torch.randn(length, 3, dtype=dtype) for length in lengths]
    alone = rnncore.torch.convert(Model(kind, dtype, **options))
    for name in frozen:
        alone.get_parameter(name).requires_grad_(False)
    model = copy.deepcopy(alone)
    if not ddp.get("find_unused_parameters"):
        del model.unused
    model = DistributedDataParallel(model, **ddp)

    def loss(model, batch):
        joined = pack_sequence(batch, enforce_sorted=False) if packed else torch.stack(batch, 1)
        return model(joined) / len(lengths)

    loss(alone, batch).backward()
    mine = batch[rank::2]
    size = len(mine) // micro_batches
    for i in range(micro_batches):
        with model.no_sync() if i + 1 < micro_batches else nullcontext():
            (2 * loss(model, mine[i * size : (i + 1) * size])).backward()
    for name, parameter in model.module.named_parameters():
        expected = alone.get_parameter(name).grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            atol = 1e-6 if dtype is torch.float32 else 1e-12
            torch.testing.assert_close(parameter.grad, expected, rtol=atol, atol=atol)

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.set_num_threads(1)
deep = {"num_layers": 2, "bidirectional": True}
for kind in ("RNN", "LSTM", "GRU"):
    for dtype in (torch.float32, torch.float64):
        for packed in (False, True):
            check(kind, dtype, packed, {}, {})
            check(kind, dtype, packed, deep, {"gradient_as_bucket_view": True}, micro_batches=2)
    check(kind, torch.float64, True, {}, {"find_unused_parameters": True})
    check(kind, torch.float64, True, deep, {"static_graph": True, "bucket_cap_mb": 0.001})
    frozen = ["layers.weight_hh_l0", "layers.bias_ih_l1"]
    check(kind, torch.float64, False, {"num_layers": 2}, {}, frozen)
dist.barrier()
print("all equal" if rank == 0 else "", flush=True)
dist.destroy_process_group()
"""


def test_gradients_are_those_of_the_joined_batch(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    assert "all equal" in in_two_processes(script)


def test_the_example_in_two_processes(tmp_path):
    file = tmp_path / "weights.pt"
    arguments = ("--check", "--sequences", 512, "--epochs", 3, "--save", file)
    told = in_two_processes(ROOT / "examples" / "data_parallel.py", *arguments)
    assert "processes: 2" in told
    (difference,) = re.findall(r"joined batch's gradients: (\S+)", told)
    assert float(difference) <= 1e-6
    assert "all processes have the same weights" in told
    # What the first process wrote is for torch's own modules too.
    theirs = torch.nn.LSTM(4, 64, num_layers=2)
    weights = torch.load(file, weights_only=True)
    theirs.load_state_dict({k[7:]: v for k, v in weights.items() if k.startswith("layers.")})
