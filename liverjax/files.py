"""Writing files so that a reader sees the whole of one or nothing: temporary file, then rename."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence


@contextlib.contextmanager
def naming(path: str | os.PathLike, temporary: str | os.PathLike = "") -> Iterator[None]:
    """Names the file in an error of the system within that names none, or the one that stands for it.

    A full disk is told by a write, which knows no name.
    """
    try:
        yield
    except OSError as error:
        if str(error.filename or temporary) == str(temporary):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives the path of a temporary file beside ``path``; at the end it takes its place, or is removed.

    The temporary name keeps the ending of ``path``, by which writers choose their format.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix="".join(path.suffixes[-2:]), dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        with naming(path, temporary):
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes ``value`` as indented JSON. NaN is refused: JSON has none."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Writes rows as CSV with a line of column names; what a row lacks is empty.

    Raises:
      ValueError: a row has a column that is not among ``columns``.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal; of a folder, that of its files' names and hashes."""
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
