"""A whole network in torch, step by step and sequence by sequence, for what `torch.nn` has not."""

import numpy as np
import torch

from .reference import tensors

FUNCTIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "softsign": torch.nn.functional.softsign,
    "sigmoid": torch.sigmoid,
}


def cell_step(cell: str, weights, x, state):
    """Take a step; state is (h,) or (h, c)."""
    w, u, b, d = weights
    a, r = x @ w.T + b, state[0] @ u.T + d
    if cell == "lstm":
        i, f, g, o = (a + r).chunk(4)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if cell == "gru":
        (ar, az, an), (rr, rz, rn) = a.chunk(3), r.chunk(3)
        z = torch.sigmoid(az + rz)
        n = torch.tanh(an + torch.sigmoid(ar + rr) * rn)
        return ((1 - z) * n + z * state[0],)
    name = cell.removeprefix("rnn_").removesuffix("_residual")
    h = FUNCTIONS[name](a + r)
    return (h + state[0] if cell.endswith("_residual") else h,)


class Twin:
    """The network that `_core.Network(**config)` is, with its parameters."""

    def __init__(self, config, parameters):
        self.config = config
        self.p = {name: value.requires_grad_() for name, value in tensors(parameters).items()}
        self.trained = dict(self.p)
        if config.get("freeze_embedding"):
            del self.trained["embedding.weight"]
        self.directions = ["", "_reverse"][: 2 if config["bidirectional"] else 1]

    def initial(self):
        """Return the states that a sequence begins in, by layer and direction."""
        kinds = ["h0", "c0"][: 2 if self.config["cell"] == "lstm" else 1]
        return {
            f"l{layer}{direction}": tuple(
                self.p[f"rnn.{kind}_l{layer}{direction}"]
                if self.config.get("learn_initial_state")
                else torch.zeros(size, dtype=torch.float64)
                for kind in kinds
            )
            for layer, size in enumerate(self.config["hidden_sizes"])
            for direction in self.directions
        }

    def inputs(self, values):
        """Return what the first layer is fed."""
        if self.config["input"] == "dense":
            return torch.from_numpy(values)
        ids = torch.from_numpy(values)
        if self.config["input"] == "one-hot":
            return torch.nn.functional.one_hot(ids, self.config["vocabulary_size"]).double()
        vectors = self.p["embedding.weight"][ids]
        if self.config.get("masked_id") is not None:
            vectors = torch.where((ids == self.config["masked_id"])[..., None], 0, vectors)
        return vectors.sum(1) if values.ndim == 2 else vectors

    def run(self, x, states):
        """Run a sequence; return the last layer's outputs, and all states by step."""
        trails = {}
        for layer in range(len(self.config["hidden_sizes"])):
            outputs = []
            for direction in self.directions:
                name = f"l{layer}{direction}"
                weights = [
                    self.p[f"rnn.{kind}_{name}"]
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
                trail = [states[name]]
                for x_t in x.flip(0) if direction else x:
                    trail.append(cell_step(self.config["cell"], weights, x_t, trail[-1]))
                trails[name] = trail
                hidden = [state[0] for state in trail[1:]]
                hidden = hidden[::-1] if direction else hidden
                size = self.config["hidden_sizes"][layer]
                outputs.append(torch.stack(hidden) if hidden else x.new_zeros(0, size))
            x = torch.cat(outputs, 1)
        return x, trails

    def pooled(self, x, trails, output):
        """Return what the head sees."""
        if output == "sequence":
            return x
        if output == "last":
            last = len(self.config["hidden_sizes"]) - 1
            ends = [trails[f"l{last}{direction}"][-1][0] for direction in self.directions]
            return torch.cat(ends)[None]
        if not len(x):
            return x.new_zeros(1, x.shape[1])
        return x.mean(0)[None] if output == "mean" else x.max(0).values[None]

    def head(self, seen):
        name = "embedding" if self.config.get("tie_embedding") else "head"
        return seen @ self.p[f"{name}.weight"].T + self.p["head.bias"]

    def outputs(self, values):
        """Return a sequence's outputs."""
        x, trails = self.run(self.inputs(values), self.initial())
        return self.head(self.pooled(x, trails, self.config["output"]))

    def losses(self, outputs, targets):
        """Return the rows' losses."""
        of, name = torch.nn.functional, self.config["loss"]
        if name == "cross_entropy":
            return of.cross_entropy(outputs, torch.from_numpy(targets), reduction="none")
        by_name = {
            "binary_cross_entropy": of.binary_cross_entropy_with_logits,
            "squared_error": of.mse_loss,
            "absolute_error": of.l1_loss,
            "huber": lambda *a, **k: of.huber_loss(*a, delta=self.config["huber_delta"], **k),
        }
        return by_name[name](outputs, torch.from_numpy(targets), reduction="none").mean(1)

    def descend(self, loss, rate):
        """Take a step down a loss; return the gradient's norm."""
        names = list(self.trained)
        found = torch.autograd.grad(
            loss, [self.trained[name] for name in names], allow_unused=True, materialize_grads=True
        )
        gradients = dict(zip(names, found, strict=True))
        if self.config.get("masked_id") is not None and "embedding.weight" in gradients:
            gradients["embedding.weight"][self.config["masked_id"]] = 0
        with torch.no_grad():
            for name in names:
                self.trained[name] -= rate * gradients[name]
        return float(torch.cat([g.ravel() for g in gradients.values()]).norm())

    def arrays(self):
        return {name: value.detach().numpy() for name, value in self.p.items()}


def detached(trails, step):
    """Return the states after so many steps, without their past."""
    return {name: tuple(part.detach() for part in trail[step]) for name, trail in trails.items()}


def windows(twin: Twin, values, targets, weights, block, reach):
    """Return a sequence's weighted loss whose errors go back through windows."""
    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        _, trails = twin.run(twin.inputs(values), twin.initial())
    for start in range(0, len(values), block):
        begin = max(0, start + block - 1 - reach)
        states = detached(trails, begin) if begin else twin.initial()
        x, _ = twin.run(twin.inputs(values)[begin : start + block], states)
        losses = twin.losses(
            twin.head(x[start - begin :]), np.ascontiguousarray(targets[start : start + block])
        )
        total = total + (losses * torch.from_numpy(weights[start : start + block])).sum()
    return total
