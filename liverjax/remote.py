"""Files of object stores (``gs://``, ``s3://``, any address that fsspec knows), copied into a cache of this machine.

The cache is the folder that ``LIVERJAX_CACHE`` names, else ``~/.cache/liverjax``. Before a copy is used, size and tag
(ETag, generation, times) of each object are compared with those it was copied with, and the SHA-256 of the copy with
that of what was copied: neither an object that changed since nor a damaged copy is used in silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liverjax.errors import InputError, printable
from liverjax.files import address_of, locked, make_folder, read_json, replacing, sha256, write_json

#: Of these, fsspec tells each object's: its identity beside the size. Not all file systems have all.
_TAGS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created")
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_CREDENTIALS = {
    "gs": "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
}
#: Words of an error that say that it is one of permission: each library has classes of its own.
_FORBIDDEN = re.compile(r"credential|forbidden|unauthorized|access ?denied|anonymous|\b40[13]\b")
_ON_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: How often a folder is read anew that changes while it is copied.
_TRIES = 3


def cache() -> pathlib.Path:
    """Returns the folder of the cache, which need not exist yet."""
    if place := os.environ.get("LIVERJAX_CACHE"):
        return pathlib.Path(place)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "liverjax"


def place_in_cache(kind: str, address: str) -> pathlib.Path:
    """Returns the folder of the cache that is of one address alone."""
    return cache() / kind / hashlib.sha256(address.encode()).hexdigest()[:16]


def local_copy(path: str | os.PathLike, what: str, *, without: Sequence[str] = ()) -> pathlib.Path:
    """Returns the path of a file or folder; of an address that of its copy in the cache, which is brought up to date.

    Args:
      path: as typed.
      what: what names it, for the message: "--model".
      without: names of files and folders in it that are not copied.

    Raises:
      InputError: it cannot be read there: the package is missing, it does not exist, there are no credentials.
      OSError: the disk is full.
    """
    address = address_of(path)
    if not address:
        return pathlib.Path(path)
    remote = RemoteFolder(address, what)
    place = place_in_cache("models", address)
    copy = place / (address.rstrip("/").rpartition("/")[2] or "root")
    with locked(place / ".lock", wait=True):
        for _ in range(_TRIES):
            listing = remote.listing(without)
            _bring_up_to_date(remote, listing, copy, place / "copied.json")
            if remote.listing(without) == listing:
                return copy
    raise InputError(
        f"{what}: {address} changes while it is copied, expected files that stay; try again later"
    )


def _bring_up_to_date(
    remote: RemoteFolder, listing: Mapping[str, Any], copy: pathlib.Path, record: pathlib.Path
) -> None:
    """Copies what is missing, changed or damaged, and removes what is there no more."""
    try:
        copied = read_json(record)
    except (FileNotFoundError, InputError):
        copied = {}
    kept = {}
    for name, identity in listing.items():
        file = copy / name if name else copy
        known = copied.get(name)
        if known and known["identity"] == identity and file.is_file() and sha256(file) == known["sha256"]:
            kept[name] = known
            continue
        if file.is_dir():
            raise InputError(f"{file}: is a folder, expected the copy of a file; remove it")
        remote.fetch(name, file, size=identity[0])
        kept[name] = {"identity": identity, "sha256": sha256(file)}
        write_json(record, {**copied, **kept})
    write_json(record, kept)
    if copy.is_dir():
        for file in copy.rglob("*"):
            if file.is_file() and file.relative_to(copy).as_posix() not in kept:
                file.unlink()


@dataclasses.dataclass(frozen=True)
class RemoteFolder:
    """What lies at an address, a folder or a single file.

    Attributes:
      address: such as "s3://bucket/store".
      what: what names it, for messages: "--store".
    """

    address: str
    what: str

    def listing(self, without: Sequence[str] = ()) -> dict[str, Any]:
        """Returns path -> size and tags of all files, sorted; the path of a single file is "".

        Raises:
          InputError: as `local_copy`; or a path would lead out of the folder.
        """
        with self._named():
            system, root = self._system()
            system.invalidate_cache()
            info = system.info(root)
            if info["type"] == "file":
                return {"": _identity(info)}
            found = system.find(root, detail=True)
            if not found:
                raise FileNotFoundError(root)
        start = len(root.rstrip("/")) + 1
        files = {
            name[start:]: _identity(facts) for name, facts in sorted(found.items()) if not name.endswith("/")
        }
        for name in files:
            if not name or name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{self.what}: {self.address} holds {name!r}, expected paths within it")
        return {name: facts for name, facts in files.items() if not set(name.split("/")) & set(without)}

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Returns the contents of small files, read at the same time. Raises as `local_copy`."""
        with self._named():
            system, root = self._system()
            paths = {f"{root.rstrip('/')}/{name}": name for name in names}
            system.invalidate_cache()
            found: Any = system.cat(list(paths), on_error="return") if paths else {}
        if not isinstance(found, dict):  # Of one path some file systems return the content itself.
            found = dict.fromkeys(paths, found)
        for path, name in paths.items():
            with self._named(name):
                if isinstance(found[path], Exception):
                    raise found[path]
        return [found[path] for path in paths]

    def fetch(self, name: str, file: pathlib.Path, *, size: int | None = None, digest: str = "") -> None:
        """Copies a file, atomically.

        Args:
          name: its path, "" for the address itself.
          file: where to.
          size: its bytes, if known.
          digest: its SHA-256, if known.

        Raises:
          InputError: as `local_copy`; or what came is not what was expected.
        """
        with replacing(file) as temporary:
            with self._named(name):
                system, root = self._system()
                system.get_file(f"{root.rstrip('/')}/{name}" if name else root, os.fspath(temporary))
            came = temporary.stat().st_size
            if size is not None and came != size:
                raise InputError(
                    f"{self._at(name)}: {came} bytes came, expected {size}; try again, or copy the file there again"
                )
            if digest and sha256(temporary) != digest:
                raise InputError(
                    f"{self._at(name)}: not as it was written (checksum); copy the file there again"
                )

    def _at(self, name: str) -> str:
        return f"{self.what}: {self.address.rstrip('/')}/{name}" if name else f"{self.what}: {self.address}"

    def _system(self) -> tuple[Any, str]:
        """Returns fsspec's file system, and the address as it calls it."""
        core = importlib.import_module("fsspec.core")
        return core.url_to_fs(self.address)

    @contextlib.contextmanager
    def _named(self, name: str = "") -> Iterator[None]:
        """Turns what goes wrong in a library into an error of one line with a remedy."""
        scheme, where = self.address.partition(":")[0], self._at(name)
        try:
            yield
        except ImportError as error:
            package = _PACKAGES.get(scheme) or (error.name or "fsspec").partition(".")[0]
            raise InputError(
                f"{where}: package {package} is missing; install it with: pip install {package}"
            ) from None
        except FileNotFoundError:
            raise InputError(
                f"{where} does not exist, expected a file or a folder there; verify the names of bucket and folder"
            ) from None
        except Exception as error:  # Each library has classes of its own.
            if isinstance(error, OSError) and error.errno in _ON_THIS_MACHINE:
                raise
            reason = printable((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
            text = f"{type(error).__name__} {reason}".lower()
            if isinstance(error, PermissionError) or _FORBIDDEN.search(text):
                remedy = _CREDENTIALS.get(scheme, f"give the credentials of fsspec's file system {scheme}")
                raise InputError(f"{where} may not be read ({reason}); {remedy}") from None
            raise InputError(
                f"{where} cannot be read ({reason}); verify the address, and that this machine reaches it"
            ) from None


def _identity(info: Mapping[str, Any]) -> list[Any]:
    """Returns size and tags of an object as JSON takes them."""
    return [info["size"], *(f"{tag}={info[tag]}" for tag in _TAGS if tag in info)]


def write_copy(file: pathlib.Path, content: bytes) -> bool:
    """Writes a small file into the cache, unless it is there with this content; returns if it was written."""
    with contextlib.suppress(OSError):
        if file.read_bytes() == content:
            return False
    make_folder(file.parent)
    with replacing(file) as temporary:
        temporary.write_bytes(content)
    return True
