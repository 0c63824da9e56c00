"""Files of arrays with all else as JSON in their metadata, sealed by a SHA-256: safetensors, nothing in it can run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from liverjax.errors import CheckpointError

_MAX_HEADER_BYTES = 16 * 2**20


def serialised(arrays: dict[str, np.ndarray], facts: Mapping[str, Any]) -> bytes:
    """Returns a file's bytes: arrays, and in the metadata each fact as a JSON text, and "sha256".

    Equal arrays and facts give equal bytes.

    Raises:
      ValueError: a fact holds NaN.
    """
    metadata = {name: json.dumps(value, allow_nan=False) for name, value in facts.items()}
    metadata["sha256"] = json.dumps(digest(metadata, arrays))
    data = safetensors.numpy.save(arrays, metadata)
    # The library orders metadata differently in each process.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def digest(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of the metadata but the checksum itself, and of names, shapes and bytes of all arrays."""
    found = hashlib.sha256(json.dumps({**metadata, "sha256": ""}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


@contextlib.contextmanager
def opened(path: str | os.PathLike, what: str, remedy: str = "") -> Iterator[Any]:
    """Gives a file as `safetensors` opens it: mapped, with its header bounded and parsed, and all bounds checked.

    Args:
      path: the file.
      what: it is to be, as "model bundle".
      remedy: ends the message on a damaged one.

    Raises:
      CheckpointError: it is no such file.
      FileNotFoundError: there is none.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(
            path
        ):  # To open a named pipe is to wait for its writer.
            raise CheckpointError(f"{path}: no {what} (no regular file)")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: no {what} (a header of {length} bytes, at most {_MAX_HEADER_BYTES})"
            )
        with safe_open(os.fspath(path), framework="np") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or no {what} ({error}){remedy}") from None
