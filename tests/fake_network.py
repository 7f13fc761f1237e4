"""A network that trains in no time, with losses by script, for tests of the loop around it."""

from types import SimpleNamespace

import numpy as np

from rnncore._state import State
from rnncore._training import Trainer

BATCHES = 4
STEPS = 100

OPTIONS = {
    "batch_size": 32,
    "shuffle": True,
    "bucket_by_length": True,
    "bptt_steps": None,
    "checkpoint_time": False,
    "accumulate_batches": 1,
    "max_epochs": 5,
    "lr_schedule": None,
    "early_stopping": False,
    "n_iter_no_change": 2,
    "tol": 1e-4,
    "restore_best": True,
    "callbacks": [],
    "checkpoint_epochs": 1,
    "checkpoint_minutes": None,
    "n_jobs": None,
    "verbose": 0,
}


class FakeOptimizer:
    learning_rate = 0.1

    def __init__(self):
        self.buffer = None

    def state(self, network):
        return None if self.buffer is None else {"steps": 1, "buffers": [self.buffer.copy()]}

    def set_state(self, network, state):
        self.buffer = None if state is None else np.array(state["buffers"][0])


class FakeNetwork:
    """Weights wander by seed, epoch, batch and rate; `events` happen in an (epoch, batch)."""

    def __init__(self, losses=(), val_losses=(), events=None):
        self.weights = {"w": np.zeros(3), "head.bias": np.zeros((1, 2), np.float32)}
        self.losses, self.val_losses = list(losses), list(val_losses)
        self.events = events or {}
        self.epoch = 0
        self.calls = []

    def parameters(self):
        return {name: value.copy() for name, value in self.weights.items()}

    def set_parameters(self, parameters):
        assert set(parameters) == set(self.weights)
        self.weights = {name: value.copy() for name, value in parameters.items()}

    def train_epoch(self, examples, optimizer, *, epoch, seed, rates, on_batch, **options):
        position, pause_after = options["position"], options["pause_after"]
        self.calls.append({"epoch": epoch, "seed": seed, "rates": rates, **options})
        self.epoch = epoch
        total = 0.0 if position is None else float(position["total"][0])
        for batch in range(0 if position is None else position["done"], BATCHES):
            if event := self.events.get((epoch, batch)):
                event()
            rate = rates[0] + (rates[1] - rates[0]) * batch / BATCHES
            noise = np.random.default_rng([seed, epoch, batch]).standard_normal(3)
            old = np.zeros(3) if optimizer.buffer is None else optimizer.buffer
            optimizer.buffer = 0.9 * old + noise
            self.weights["w"] += rate * optimizer.buffer
            total += abs(noise[0])
            done = batch + 1
            if on_batch:
                figures = {"loss": total, "metric": 0.5, "steps": done * STEPS, "rate": rate}
                on_batch({"done": done, "total": BATCHES, **figures})
            result = {"metric": 0.5, "grad_norm": 1.0, "steps": done * STEPS, "seconds": 0.0}
            result["loss"] = self.losses[epoch - 1] if self.losses else total
            if pause_after is not None and pause_after < 1 and done < BATCHES:
                return {**result, "position": {"done": done, "total": np.array([total])}}
        return result

    def evaluate(self, examples, *, batch_size, n_threads):
        assert examples == "validation"
        if event := self.events.get((self.epoch, "validation")):
            event()
        loss = self.val_losses[self.epoch - 1] if self.val_losses else abs(self.weights["w"][0])
        return loss, 0.25


def trainer(network, *, model=None, optimizer=None, state=None, validation=False, **options):
    """Return a trainer over a fake network; it keeps all that it was made of."""
    made = Trainer(
        model or SimpleNamespace(),
        network,
        optimizer or FakeOptimizer(),
        state or State(7),
        options={**OPTIONS, **options},
        metric="accuracy",
        train="train",
        validation="validation" if validation else None,
    )
    made.network, made.model, made.optimizer, made.state = (
        made._network,
        made._model,
        made._optimizer,
        made._state,
    )
    return made
