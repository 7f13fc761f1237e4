r"""
Train one model in several processes, with `rnncore.torch` under torch's DistributedDataParallel.

Sequences of random lengths are told apart by the sign of the sum of their first feature. Each
process reads a part of every batch, packed, and the gradients are averaged between them. Two
processes on this machine, or a single one:

    torchrun --nproc-per-node 2 examples/data_parallel.py
    python examples/data_parallel.py

With `--check` the gradients of all processes are first compared with those of one process on the
joined batch, and the weights of all with each other at the end.

More machines: the same command on each of them, with the name and a free port of one:

    torchrun --nnodes 4 --nproc-per-node 2 --rdzv-backend c10d --rdzv-id 1 \
        --rdzv-endpoint first-machine:29400 examples/data_parallel.py

`--save` then writes on the first machine only. Where a machine has several networks,
GLOO_SOCKET_IFNAME names the one to use.

Ray Train: a TorchTrainer starts the processes and joins them, so that `train` runs as it is:

    from data_parallel import DEFAULTS, train
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    scaling = ScalingConfig(num_workers=4, resources_per_worker={"CPU": 2})
    TorchTrainer(train, train_loop_config={**DEFAULTS, "threads": 2}, scaling_config=scaling).fit()

`ray.train.torch.prepare_model(model)` may stand for DistributedDataParallel there, and
`ray.train.report` takes the losses; `prepare_data_loader` leaves a loader that has a
DistributedSampler already as it is.
"""

import argparse
import copy
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, DistributedSampler, Subset

from rnncore.torch import LSTM  # torch.nn's LSTM would do the same, slower

Example = tuple[Tensor, int]
Batch = tuple[PackedSequence, Tensor]

DEFAULTS: dict[str, Any] = {
    "sequences": 4096,
    "batch_size": 64,
    "hidden_size": 64,
    "epochs": 5,
    "learning_rate": 0.005,
    "seed": 0,
    "threads": 0,
    "check": False,
    "save": None,
}


class Classifier(nn.Module):
    """Two layers of LSTM, and two classes told from the upper one's last state."""

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.layers = LSTM(features, hidden_size, num_layers=2, dropout=0.1)
        self.head = nn.Linear(hidden_size, 2)

    def forward(self, sequences: PackedSequence) -> Tensor:
        """Give the logits, (B, 2), in the order of the batch."""
        _, (h, _) = self.layers(sequences)
        return self.head(h[-1])


def make_examples(count: int, seed: int, features: int = 4) -> list[Example]:
    """Give sequences (T, features), each T from 5 to 40, with their classes: the same anywhere."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 41, (count,), generator=generator).tolist()
    sequences = [torch.randn(length, features, generator=generator) for length in lengths]
    return [(sequence, int(sequence[:, 0].sum() > 0)) for sequence in sequences]


def collate(examples: list[Example]) -> Batch:
    """Pack sequences of any lengths, in any order: what is not there is not computed."""
    sequences, labels = zip(*examples, strict=True)
    return pack_sequence(list(sequences), enforce_sorted=False), torch.tensor(labels)


def share_threads(threads: int) -> None:
    """Let each of a machine's processes have its part of the processors.

    torch and rnncore both go by `torch.set_num_threads`. Left alone, every process would take all
    of the processors, or one: torchrun sets OMP_NUM_THREADS=1 where it is not set.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // processes))


def check_gradients(
    model: DistributedDataParallel, examples: list[Example], options: dict[str, Any]
) -> float:
    """Give the largest difference between the averaged gradients and those of the joined batch."""
    world = dist.get_world_size()
    size = options["batch_size"] // world
    parts = [
        [examples[i] for i in list(DistributedSampler(examples, world, rank))[:size]]
        for rank in range(world)
    ]
    alone = copy.deepcopy(model.module)
    batches = {model: parts[dist.get_rank()], alone: [one for part in parts for one in part]}
    for module, batch in batches.items():
        module.eval()  # without dropout, which each process draws for itself
        sequences, labels = collate(batch)
        nn.functional.cross_entropy(module(sequences), labels).backward()
    pairs = zip(model.module.parameters(), alone.parameters(), strict=True)
    differences = [(ours.grad - theirs.grad).abs().max() for ours, theirs in pairs]
    largest = torch.stack(differences).max()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    model.zero_grad()
    return largest.item()


def check_weights(model: DistributedDataParallel) -> bool:
    """Tell whether every process has the first one's weights, to the bit."""
    mine = nn.utils.parameters_to_vector(model.module.parameters()).detach()
    firsts = mine.clone()
    dist.broadcast(firsts, src=0)
    equal = torch.tensor(int(torch.equal(mine, firsts)))
    dist.all_reduce(equal, dist.ReduceOp.MIN)
    return bool(equal)


def accuracy(model: nn.Module, examples: list[Example], batch_size: int) -> float:
    """Give the share that is told right; each process reads every world-size-th sequence."""
    part = Subset(examples, range(dist.get_rank(), len(examples), dist.get_world_size()))
    right = torch.tensor(0)
    model.eval()
    with torch.inference_mode():
        for sequences, labels in DataLoader(part, batch_size, collate_fn=collate):
            right += (model(sequences).argmax(dim=1) == labels).sum()
    dist.all_reduce(right)
    return right.item() / len(examples)


def train(options: dict[str, Any]) -> None:
    """Train in one process of those that `torch.distributed` has joined."""
    rank, world = dist.get_rank(), dist.get_world_size()
    seed, size = options["seed"], options["batch_size"] // world
    say = print if rank == 0 else lambda *_: None
    share_threads(options["threads"])
    examples = make_examples(options["sequences"], seed)
    held_out = make_examples(options["sequences"] // 4, seed + 1)

    # The first process's weights are everybody's. Dropout is drawn differently by each.
    torch.manual_seed(seed)
    model = DistributedDataParallel(Classifier(4, options["hidden_size"]))
    torch.manual_seed(seed + 1 + rank)
    say(f"processes: {world}; each has {torch.get_num_threads()} threads, {size} sequences a step")

    if options["check"]:
        difference = check_gradients(model, examples, options)
        say(f"largest difference from the joined batch's gradients: {difference:.1e}")
        if not difference <= 1e-6:
            raise RuntimeError("the processes' gradients are not those of the joined batch")

    # Every process has as many sequences as the others (the last ones come twice where it does
    # not come out), so that the average of their means is the mean over all. A loss by the step,
    # of which ragged batches have different numbers, has to be divided by the number over all.
    sampler = DistributedSampler(examples, world, rank, seed=seed)
    loader = DataLoader(examples, size, sampler=sampler, collate_fn=collate)
    optimizer = torch.optim.Adam(model.parameters(), lr=options["learning_rate"])
    for epoch in range(options["epochs"]):
        sampler.set_epoch(epoch)  # another order, the same in all processes
        model.train()
        total = torch.tensor(0.0)
        for sequences, labels in loader:
            loss = nn.functional.cross_entropy(model(sequences), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # averaged: the same norm for all
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        share = accuracy(model.module, held_out, size)
        say(f"epoch {epoch + 1}: loss {total.item() / len(loader) / world:.4f}, right {share:.4f}")

    if options["check"]:
        if not check_weights(model):
            raise RuntimeError("the processes' weights are not the same")
        say("all processes have the same weights")
    if options["save"] and rank == 0:
        # Of the model itself, so that it loads without processes, and with torch's own LSTM.
        torch.save(model.module.state_dict(), options["save"])
        say(f"saved {options['save']}")


def main() -> None:
    """Join the processes that torchrun started, or be the only one, and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("sequences", "batch_size", "hidden_size", "epochs", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=DEFAULTS[name])
    parser.add_argument("--learning-rate", type=float, default=DEFAULTS["learning_rate"])
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0: its share")
    parser.add_argument("--check", action="store_true", help="compare with a single process")
    parser.add_argument("--save", help="file for the weights, written by the first process")
    options = vars(parser.parse_args())

    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        train(options)
        dist.barrier()  # nobody leaves while another still works
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
