"""The weights of a fitted estimator, as others take them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from problems import Array


def weights_of(model: Any) -> dict[str, Array]:
    """Give what `save` writes, by name: torch's names after "rnn." and "head."."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return load_file(path)


def part(weights: dict[str, Array], name: str) -> dict[str, Array]:
    """Give the weights of "rnn" or "head" alone, without that in their names."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
