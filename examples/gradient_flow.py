"""
Draw how far back in time gradients reach: in an RNN, a residual RNN and an LSTM.

    python examples/gradient_flow.py --output gradient_flow.png
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import rnncore


def main() -> None:
    """Train each network on the sign of its first step, and draw where the gradient is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gradient_flow.png"))
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    mpl.use("Agg")
    X = np.random.default_rng(0).standard_normal((200, arguments.steps, 1))
    y = X[:, 0, 0] > 0
    models = {
        "RNN": rnncore.RNN(16, max_epochs=1, random_state=0),
        "residual RNN": rnncore.RNN(16, residual=True, max_epochs=1, random_state=0),
        "LSTM": rnncore.LSTM(16, forget_bias=2.0, max_epochs=1, random_state=0),
    }
    for name, model in models.items():
        flow = np.mean(model.fit(X, y).gradient_flow(X, y), axis=0)
        print(f"{name}: the first step's gradient is {flow[0] / flow[-1]:.1e} of the last step's")
    axes = rnncore.plot.gradient_flow(models, X, y)
    axes.figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()
