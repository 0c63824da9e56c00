"""Files written atomically (temporary file, then rename), JSON read with care, locks of folders, and checksums."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import reprlib
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from liverjax.errors import InputError, LiverjaxError, LockedError

_log = logging.getLogger(__name__)

#: The largest JSON file that is read; parsed, it can take some 25 times as much memory.
MAX_JSON_BYTES = 64 * 2**20
#: The most digits of a whole number in JSON, so that each is also a float.
_MAX_DIGITS = 300

#: How an address starts; of the known ones also as pathlib writes them, with one slash.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(gs|s3|az|abfss?|hdfs|https?|ftps?|sftp|ssh|file):/")


def address_of(path: str | os.PathLike) -> str:
    """Returns an address such as ``gs://bucket/run`` as it was typed (a path has lost a slash), "" of another text."""
    text = os.fspath(path)
    if not _ADDRESS.match(text):
        return ""
    scheme, _, place = text.partition(":")
    return f"{scheme}://{place.lstrip('/')}"


def local_path(path: str | os.PathLike, what: str) -> pathlib.Path:
    """Returns the path of a file or folder that a user named, unless it is an address such as ``gs://bucket/run``.

    As a path, ``gs://bucket/run`` would be the local folder ``gs:/bucket/run``.

    Args:
      path: as typed; it need not exist.
      what: what names it, for the message: "--workdir".

    Raises:
      InputError: it is an address.
    """
    if address := address_of(path):
        mount = (
            "mount the bucket (gcsfuse) and name its folder"
            if address.startswith("gs:")
            else "mount it, or copy it here"
        )
        raise InputError(
            f"{what}: {address} is an address, expected a file or folder of this machine; {mount}"
        )
    return pathlib.Path(path)


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes a folder where there is none, and those that it lies in.

    Raises:
      OSError: it cannot be made; if a file is in its place, the error says which.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _no_folder(path) from None
    return path


def _no_folder(path: pathlib.Path) -> OSError:
    """Returns the error of a folder that cannot be made because one of its parents, or itself, is a file."""
    file = next((place for place in (*reversed(path.parents), path) if place.is_file()), path)
    return NotADirectoryError(errno.ENOTDIR, f"{file} is no folder", str(path))


def output_file(path: str | os.PathLike, what: str) -> pathlib.Path:
    """Returns the path of a file that is to be written later; nothing is made yet.

    Args:
      path: as typed.
      what: what names it, for the message: "--output".

    Raises:
      InputError: it is an address or a folder, or no file can be written there.
    """
    path = local_path(path, what)
    place = next((place for place in path.parents if os.path.lexists(place)), path.parent)
    if path.is_dir():
        raise InputError(f"{what}: {path} is a folder, expected the name of a file")
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"{what}: {path} cannot be written, expected {place} to be a folder that can be written to"
        )
    return path


@contextlib.contextmanager
def naming(path: str | os.PathLike, temporary: str | os.PathLike = "") -> Iterator[None]:
    """Puts the name of a file into an OSError that names none, or only the temporary file that stands for it.

    A full disk is reported by a write, which knows no name.
    """
    try:
        yield
    except OSError as error:
        if str(error.filename or temporary) == str(temporary):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the path of an empty temporary file beside ``path``, which takes its place at the end or is removed.

    The temporary name keeps the ending of ``path``, by which writers choose their format.
    """
    path = pathlib.Path(path)
    make_folder(path.parent)
    temporary = path.parent / f".partial-{secrets.token_hex(8)}{''.join(path.suffixes[-2:])}"
    with naming(path, temporary):
        # Opened so, the file has the permissions of any new file, without asking for the umask: that can only be read
        # by changing it, for all threads.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool = False) -> Iterator[int]:
    """Holds the lock of a folder, a file in it such as ``RUN/.lock``, so that one process at a time works there.

    The lock belongs to the open file: a process that inherits the descriptor (``pass_fds`` of `subprocess.Popen`) keeps
    it after this one has ended or left the block. The system frees it when the last of them ends, however it ends; the
    file stays. Its text names the holder. A file system that has no locks is reported by a warning, and not locked.

    Args:
      path: the lock file, made with its folder where it does not exist.
      wait: until another process has freed it, however long.

    Yields:
      The file's descriptor, which commands that are started do not inherit unless it is passed on.

    Raises:
      LockedError: another process holds the lock, or another block of this one.
    """
    path = pathlib.Path(path)
    make_folder(path.parent)
    with naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            raise LockedError(
                f"{path.parent}: {holder}, or one that it started, is at work here, expected one process at a time; "
                "wait until it ends, or end it"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            _log.warning(
                "%s: this file system has no locks; let one process at a time work here", path.parent
            )
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def read_json(
    path: str | os.PathLike, *, error: type[LiverjaxError] = InputError, remedy: str = ""
) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    The file may begin with a byte order mark. What JSON does not define (NaN, Infinity), what readers understand
    differently (a key that stands twice) and what takes memory or time without end (files above `MAX_JSON_BYTES`,
    numbers of thousands of digits, endless nesting, named pipes) is refused.

    Args:
      path: the file.
      error: the class of the error that is raised.
      remedy: what its message ends with, such as "run `liverjax prepare` again".

    Raises:
      FileNotFoundError: there is no such file, which means something else to each caller.
      LiverjaxError: one of class ``error``: it cannot be read as a JSON object; names the file and the place.
    """
    ending = f"; {remedy}" if remedy else ""
    try:
        data = _bytes_of(path, MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:  # A ValueError if no file can have such a name.
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path}: cannot be read ({reason}){ending}") from None
    if len(data) > MAX_JSON_BYTES:
        raise error(f"{path}: has more than {MAX_JSON_BYTES >> 20} MiB, too much for a JSON file{ending}")
    value = parse_json(data, path, error=error, remedy=remedy)
    if not isinstance(value, dict):
        raise error(f"{path}: holds {reprlib.repr(value)}, expected a JSON object, {{...}}{ending}")
    return value


def _bytes_of(path: str | os.PathLike, limit: int) -> bytes:
    """Returns the first ``limit`` bytes of a regular file."""
    # Not blocking: the opening of a named pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def parse_json(
    text: str | bytes,
    where: str | os.PathLike,
    *,
    error: type[LiverjaxError] = InputError,
    remedy: str = "",
) -> Any:
    """Returns the value of a JSON text as `read_json` reads it, be it an object or not.

    Args:
      text: the text, or its bytes in UTF-8.
      where: the file that it is from, for the message.
      error: the class of the error that is raised.
      remedy: what its message ends with.

    Raises:
      LiverjaxError: one of class ``error``: it is no JSON, or none that `read_json` reads.
    """
    try:
        return _JSON.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        reason = f"byte {problem.start} is not UTF-8"
    except json.JSONDecodeError as problem:
        reason = f"line {problem.lineno}, column {problem.colno}: {problem.msg}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as problem:
        reason = str(problem)
    raise error(f"{where}: not JSON ({reason})" + (f"; {remedy}" if remedy else ""))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {reprlib.repr(twice)} stands twice in an object")
    return value


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits.lstrip('-'))} digits, expected at most {_MAX_DIGITS}")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {reprlib.repr(text)[1:-1]} is too large")
    return value


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_JSON = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_no_number
)


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines, in order; none if there is no such file.

    A line that is no object, such as one that a kill cut short, is left out.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    records = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


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
