"""A store at an address (``s3://bucket/store``): its facts are copied when it is opened, its arrays as they are needed.

An array is read from its copy in the cache (`liverjax.remote`), verified, when it is made, with the checksum of
``case.json``. All stores of the cache together stay below ``LIVERJAX_CACHE_GB`` gigabytes (100): arrays that were not
opened for longest give way. So a bound that is smaller than the store costs transfers, and no correctness.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import shutil
import time
from typing import Any

from liverjax.data import stored_case
from liverjax.data.case_arrays import array_names
from liverjax.data.stored_case import StoredCase, read_facts, require
from liverjax.errors import InputError
from liverjax.files import locked
from liverjax.remote import RemoteFolder, cache, place_in_cache, write_copy

_LOG = logging.getLogger("liverjax")

_BOUND_GB = 100.0
#: An array's time of use is noted when the last note is older than this.
_NOTED_AFTER_S = 60.0
_LEFT_AFTER_S = 24 * 3600


@dataclasses.dataclass(frozen=True)
class RemoteArrays:
    """The arrays of one case at an address.

    Attributes:
      address: of the case's folder.
      checksums: name -> SHA-256.
    """

    address: str
    checksums: dict[str, str]

    def provide(self, path: pathlib.Path) -> None:
        """Sees to it that the copy of an array is there; others may have to give way.

        Raises:
          InputError: it cannot be read, or is not as it was written; or the disk is full.
        """
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if time.time() - status.st_atime > _NOTED_AFTER_S:
                os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
            return
        with locked(path.parent / ".lock", wait=True):
            if path.exists():  # Another process has copied it meanwhile.
                return
            try:
                RemoteFolder(self.address, "the store").fetch(
                    path.name, path, digest=self.checksums[path.name]
                )
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be written ({error.strerror or error}); free some space, or set LIVERJAX_CACHE to "
                    "a folder that has it, and LIVERJAX_CACHE_GB to how much"
                ) from None
        _make_room(path)


def copy_facts(address: str) -> pathlib.Path:
    """Brings the copies of ``index.json`` and of each ``case.json`` up to date, and returns the folder of the copies.

    The arrays of a case that was prepared anew are removed. What the files say is verified by those who read them.

    Raises:
      InputError: they cannot be read.
    """
    remote, folder = RemoteFolder(address, "the store"), place_in_cache("stores", address)
    with locked(folder / ".lock", wait=True):
        (index,) = remote.read(["index.json"])
        write_copy(folder / "index.json", index)
        names = read_facts(folder / "index.json").get("cases")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return folder  # `open_store` says what is wrong with it.
        names = [name for name in names if name not in ("", ".", "..") and "/" not in name]
        for name, facts in zip(
            names, remote.read([f"cases/{name}/case.json" for name in names]), strict=True
        ):
            place = folder / "cases" / name
            with contextlib.suppress(OSError):
                if (place / "case.json").read_bytes() != facts:
                    shutil.rmtree(place)
            write_copy(place / "case.json", facts)
    return folder


def with_remote_arrays(case: StoredCase, address: str, region: str) -> StoredCase:
    """Returns a case whose arrays are copied when they are opened.

    Args:
      case: as opened from the copies of the facts.
      address: of the store.
      region: of the store.

    Raises:
      InputError: ``case.json`` does not have a checksum of each array.
    """
    path, names = case.folder / "case.json", array_names(region)
    checksums = require(
        path,
        read_facts(path),
        "sha256",
        "a checksum of each array",
        lambda value: _are_checksums(value, names),
    )
    place = f"{address.rstrip('/')}/cases/{case.id}"
    return dataclasses.replace(case, remote=RemoteArrays(place, {name: checksums[name] for name in names}))


def warn_of_a_small_cache(cases: tuple[StoredCase, ...], address: str) -> None:
    """Logs a warning if the arrays of a store take more than the cache may hold."""
    size = sum(_bytes(case) for case in cases)
    if size > bound():
        _LOG.warning(
            "%s has %.1f GB of arrays, the cache %.1f GB at most: arrays will be copied again and again; set "
            "LIVERJAX_CACHE_GB=%.0f, if the disk has it",
            address, size / 1e9, bound() / 1e9, size / 1e9 + 1,
        )  # fmt: skip


def bound() -> float:
    """Returns how many bytes the arrays in the cache may take.

    Raises:
      InputError: the variable is no number above 0.
    """
    text = os.environ.get("LIVERJAX_CACHE_GB", "")
    if not text:
        return _BOUND_GB * 1e9
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) or float(text) == 0:
        raise InputError(f"LIVERJAX_CACHE_GB is {text!r}, expected gigabytes, a number above 0, such as 100")
    return float(text) * 1e9


def _bytes(case: StoredCase) -> int:
    """Bytes of a case's arrays: int16 slices, uint8 labels; in boxes also uint8 distances and uint16 lesions."""
    per_voxel = 3 if case.lesions_mm3 is None else 6
    return sum(per_voxel * slices * rows * columns for slices, rows, columns in case.shapes.values())


def _are_checksums(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch("[0-9a-f]{64}", str(value.get(name))) is not None for name in names
    )


def _make_room(newest: pathlib.Path) -> None:
    """Removes arrays from the cache until they keep to the bound, those first that were not used for longest."""
    found = []
    for file in (cache() / "stores").glob("*/cases/*/*"):
        with contextlib.suppress(FileNotFoundError):  # Another process makes room, too.
            status = file.stat()
            if file.name.startswith(".partial-"):
                if time.time() - status.st_mtime > _LEFT_AFTER_S:
                    file.unlink()
            elif file.suffix == ".npy":
                found.append((status.st_atime_ns, status.st_size, file))
    excess = sum(size for _, size, _ in found) - bound()
    if excess <= 0:
        return
    for _, size, file in sorted(found):
        if excess <= 0:
            break
        if file != newest:
            file.unlink(missing_ok=True)
            excess -= size
    # A mapped file takes its place on the disk until the last map of it is gone.
    stored_case.forget_maps()
