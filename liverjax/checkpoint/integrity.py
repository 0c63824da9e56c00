"""Checksums of a checkpoint's files: what storage flips, restoring does not notice by itself."""

from __future__ import annotations

import json
import pathlib

from liverjax.errors import CheckpointError
from liverjax.files import sha256, write_json

CHECKSUMS = "checksums.json"


def write_checksums(folder: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file below ``folder`` to its ``checksums.json``."""
    facts = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }
    write_json(folder / CHECKSUMS, facts)


def verify_checksums(folder: pathlib.Path) -> None:
    """Raises `CheckpointError` if a file below ``folder`` is missing or is not what was written."""
    path = folder / CHECKSUMS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        expected = {name: (fact["bytes"], fact["sha256"]) for name, fact in facts.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: not finished (no {CHECKSUMS})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    for name, (size, digest) in expected.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        if file.stat().st_size != size or sha256(file) != digest:
            raise CheckpointError(f"{file}: not as it was written (checksum)")
