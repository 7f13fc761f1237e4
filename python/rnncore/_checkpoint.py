"""Checkpoints: one file in a folder, from which a killed fit goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnncore._io import clear_abandoned, pack, read_file, to_json, unpack, write_file
from rnncore._state import State
from rnncore._validate import Array

_FILE = "checkpoint.safetensors"
_DIGEST = "blake2b:"


@dataclass(frozen=True)
class Checkpoint:
    """What a fit goes on from.

    state : where it stands
    max_epochs : how many epochs it was to have
    weights, optimizer : those after the last finished update
    best : (epoch, validation loss, weights or None), or None
    position : how far the epoch after the finished ones has come, or None for not at all
    seconds : the time that this took
    """

    state: State
    max_epochs: int
    weights: dict[str, Array]
    optimizer: dict[str, Any] | None
    best: tuple[int, float, dict[str, Array] | None] | None = None
    position: dict[str, Any] | None = None
    seconds: float = 0.0


class Checkpoints:
    """The folder of a fit's checkpoint. There is one file, replaced whole by each newer one.

    `fingerprint` has what must be the same for a fit to go on: parameters and digests of the data,
    by the names that the user knows them by.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: Mapping[str, object]) -> None:
        self._folder = os.fspath(folder)
        self._path = Path(folder) / _FILE
        self._fingerprint = {name: json.dumps(to_json(v)) for name, v in fingerprint.items()}

    def make_folder(self) -> None:
        """Make the folder if there is none; clear it of what killed processes left.

        Raises
        ------
        OSError
            When there can be no such folder, or it is none to write to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                f"checkpoint_dir: expected a folder, got {self._folder!r}, which is a file or "
                "would lie in one"
            ) from error
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise PermissionError(
                f"checkpoint_dir: expected a folder to write to, got {self._folder!r}"
            )
        clear_abandoned(self._path)

    def find(self, max_epochs: int) -> Checkpoint | None:
        """Return the checkpoint in the folder; None where there is none.

        Raises
        ------
        ValueError
            When the file is damaged, altered or of a later version, or when it is of a fit with
            other parameters or data, or with more epochs than `max_epochs`; names what differs.
        """
        if not os.path.exists(self._path):  # which is also false where one may not look
            return None
        text, arrays = read_file(self._path, kind="checkpoint")
        try:
            configuration = json.loads(text)
            content = unpack(configuration["content"], arrays)
            checkpoint = Checkpoint(**{**content, "state": State.from_json(content["state"])})
            fingerprint = dict(configuration["fingerprint"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{self._path}: expected a checkpoint, got one that does not fit: {error!r}"
            ) from error
        self._compare(fingerprint)
        if max_epochs < checkpoint.max_epochs:
            raise ValueError(
                f"max_epochs: expected at least {checkpoint.max_epochs}, as in {self._path}, "
                f"got {max_epochs}"
            )
        return checkpoint

    def _compare(self, fingerprint: dict[str, str]) -> None:
        differences = []
        for name in sorted({*fingerprint, *self._fingerprint}):
            there, here = (known.get(name, "nothing") for known in (fingerprint, self._fingerprint))
            if there == here:
                continue
            if _DIGEST in there + here:
                differences.append(f"another {name}")
            else:
                differences.append(f"{name} {there} there and {here} here")
        if differences:
            raise ValueError(
                f"{self._path}: expected the checkpoint of this fit, got one with "
                f"{', '.join(differences)} (another checkpoint_dir or resume=False begins anew)"
            )

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint in the folder; it is on disk when this returns."""
        arrays: dict[str, Array] = {}
        content = {**vars(checkpoint), "state": checkpoint.state.to_json()}
        configuration = {
            "content": pack(content, "", arrays),
            "fingerprint": self._fingerprint,
        }
        write_file(self._path, configuration, arrays, kind="checkpoint")
        if os.name == "posix":  # the new name, too, must outlive a loss of power
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def digest(*data: object) -> str:
    """Return a digest of data as they are given: arrays, nested lists, strings, tables, None."""
    state = hashlib.blake2b(digest_size=16)
    for item in data:
        _feed(state, item)
    return _DIGEST + state.hexdigest()


def _feed(state: hashlib.blake2b, item: object) -> None:
    if item is None or isinstance(item, str | bytes | int | float):
        state.update(f"{type(item).__name__} {item!r};".encode())
        return
    if not isinstance(item, list | tuple | np.ndarray):
        item = np.asarray(item)
    if isinstance(item, np.ndarray):
        if item.dtype != object:
            state.update(f"{item.dtype.str} {item.shape};".encode())
            if item.nbytes:
                state.update(np.ascontiguousarray(item).reshape(-1).view(np.uint8).data)
            return
        if item.ndim == 0:
            state.update(f"{item.item()!r};".encode())
            return
    state.update(f"{len(item)} items;".encode())
    for part in item:
        _feed(state, part)
