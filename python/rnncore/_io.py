"""Models as safetensors files: weights as tensors, everything else as JSON in the metadata.

Nothing is unpickled: a stranger's file can give wrong numbers but run no code. A SHA-256 over
weights and JSON finds files that were altered or damaged after they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from rnncore._validate import Array, file_path

if TYPE_CHECKING:
    from rnncore._estimator import RecurrentEstimator

# Raised with every change that makes files unreadable for older versions.
FORMAT_VERSION = 1


def load(path: str | os.PathLike[str]) -> RecurrentEstimator:
    """Read back a model that an estimator's ``save`` wrote.

    Parameters
    ----------
    path : path of the file

    Returns
    -------
    rnncore.RNN, rnncore.LSTM or rnncore.GRU
        Fitted, with the parameters, weights and history it was saved with; and ready to be trained
        on as it was, if ``include_optimizer=True`` saved that too.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is truncated or altered, was written by a later version, or holds no model
        of rnncore (but a checkpoint, say).
    """
    from rnncore import _models

    path = file_path("path", path)
    text, arrays = read_file(path)
    kinds = {kind.__name__: kind for kind in (_models.RNN, _models.LSTM, _models.GRU)}
    try:
        configuration = json.loads(text)
        return kinds[configuration["estimator"]]._from_configuration(configuration, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected the description of a model, got one that does not fit: {error!r}"
        ) from error


def write_file(
    path: str | os.PathLike[str],
    configuration: dict[str, Any],
    weights: Mapping[str, Array],
    *,
    kind: str = "model",
) -> None:
    """Write a file that `read_file` reads; errors name `path`."""
    given = Path(path)
    if given.exists() and not (given.is_file() or given.is_dir()):  # a file would take its place
        raise ValueError(
            "path: expected the path of a file, got that of a device, pipe or socket, "
            f"{os.fspath(path)!r}"
        )
    text = json.dumps(configuration)
    metadata = {
        "format": "rnncore",
        "kind": kind,
        "format_version": str(FORMAT_VERSION),
        "configuration": text,
        "sha256": _digest(text, weights),
    }
    data = safetensors_bytes(dict(weights), metadata)
    try:
        _replace(Path(os.path.realpath(path)), data)  # what a link leads to, not the link
    except OSError as error:  # may speak of the other name
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _replace(target: Path, data: bytes) -> None:
    """Write under another name, then rename, so that `target` is never half a file."""
    # Not by tempfile, which leaves files to their owner alone: others may read what the umask lets.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def clear_abandoned(target: Path) -> None:
    """Remove what processes left that were killed while they wrote `target`."""
    for left in target.parent.glob(f".{target.name}.*.*"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not _is_running(int(pid)):
            with suppress(OSError):
                left.unlink()


def _is_running(pid: int) -> bool:
    """Say whether there is such a process on this machine, or may be."""
    if os.name != "posix":  # where signal 0 is one that stops processes
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def read_file(path: str | os.PathLike[str], *, kind: str = "model") -> tuple[str, dict[str, Array]]:
    """Return configuration (as JSON) and weights of a file of `kind`, whole and unaltered."""
    with open(path, "rb"):  # for the usual exceptions of missing files, folders and permissions
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata, kind)  # before anything is read, of types there may not be
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a whole safetensors file, got one that is truncated, damaged or of "
            f"another kind ({error})"
        ) from None
    text = metadata.get("configuration", "")
    if metadata.get("sha256") != _digest(text, weights):
        raise ValueError(
            f"{path}: expected the contents that were saved, got altered or damaged ones"
        )
    return text, weights


def _check_kind(path: str | os.PathLike[str], metadata: Mapping[str, str], kind: str) -> None:
    """Check whether a file says that it is one of `kind` that can be read here."""
    if metadata.get("format") != "rnncore":
        raise ValueError(
            f"{path}: expected a {kind} saved by rnncore, got another safetensors file"
        )
    found = metadata.get("format_version", "")
    if not found.isdecimal() or int(found) > FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected format version {FORMAT_VERSION} or older, got {found!r}; "
            "a later rnncore wrote it"
        )
    if metadata.get("kind") != kind:
        raise ValueError(f"{path}: expected a {kind}, got a {metadata.get('kind')}")


def to_json(value: Any) -> Any:
    """Return a parameter as JSON can hold it: NumPy scalars and dtypes become plain values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype | type):
        return np.dtype(value).name
    return value


def pack(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Return nested dicts and lists as JSON can hold them; arrays go to `arrays` by path."""
    if isinstance(value, np.ndarray):
        arrays[name] = np.asarray(value, order="C")
        return {"array": name}
    if isinstance(value, dict):
        items = {key: pack(v, f"{name}/{key}".strip("/"), arrays) for key, v in value.items()}
        return {"dict": items}
    if isinstance(value, list | tuple):
        return [pack(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]
    return to_json(value)


def unpack(value: Any, arrays: dict[str, Array]) -> Any:
    """Return what `pack` was given; tuples come as lists."""
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return {key: unpack(item, arrays) for key, item in value["dict"].items()}
    return value


def _digest(text: str, weights: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
