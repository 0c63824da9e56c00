"""DICOM files in folders: which are DICOM, which may be slices, and which folders of a tree hold some.

A look at the first bytes of a file suffices; pydicom parses only what that does not decide.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from liverjax.errors import InputError

_LOG = logging.getLogger("liverjax")

#: How many levels below a folder, and how many files and folders there, are looked at for slices.
MAX_DEPTH, MAX_ENTRIES = 8, 200_000
#: The largest file, in bytes, to which a deflated one may inflate.
MAX_INFLATED = 1 << 29

_START = 4096
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: SOP classes of slices and of stacks of them.
SLICE_CLASSES = {_STORAGE + end for end in ("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "128.1", "130")}
#: Those of them whose files hold stacks.
ENHANCED_CLASSES = {_STORAGE + end for end in ("2.1", "2.2", "4.1", "4.4", "128.1", "130")}
#: SOP classes of no image or of no scan: spectra, waveforms, presentation states, segmentations and registrations,
#: mappings, measurements, reports, encapsulated documents, radiotherapy; then directories and protocols.
_OTHER_CLASSES = re.compile(
    re.escape(_STORAGE)
    + r"(4\.2|9|11|66|67|68|78|79|80|88|104|200|481)(\.\d+)*"
    + r"|1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.(34|38|39|43|44|45)(\.\d+)*)"
)
_CLASS = re.compile(
    rb"(?:\x02\x00\x02\x00UI..|\x08\x00\x16\x00(?:UI..|..\x00\x00)|\x00\x08\x00\x16UI..)([0-9.]{1,64})",
    re.DOTALL,
)
#: The first element of a file without preamble: of group 2 or 8, explicit or implicit, little-endian or big.
_FIRST_ELEMENT = re.compile(
    rb"\x02\x00[\x00-\x02]\x00(UL|OB|UI)|\x08\x00[\x00-\x70]\x00([A-Z]{2}|..\x00\x00)|\x00\x08\x00[\x00-\x70][A-Z]{2}",
    re.DOTALL,
)
_META = re.compile(rb"\x02\x00\x00\x00UL")  # after a mark that is damaged
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def pydicom() -> ModuleType:
    """Returns the package pydicom.

    Raises:
      InputError: it is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise InputError("reading DICOM needs pydicom, which is not installed: pip install pydicom") from None
    return pydicom


def find_folders(root: str | os.PathLike) -> list[Path]:
    """Returns the folders, `root` among them, that hold at least one DICOM slice themselves, parents first.

    Hidden entries, DICOMDIR files and documents do not count. Links are followed, but not in circles.

    Raises:
      InputError: there is more below `root` than a data set holds.
    """
    found: list[Path] = []
    entries = 0
    waiting: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(Path(root), ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = folder.stat()
            content = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            _LOG.warning("%s: cannot be searched for DICOM series (%s)", folder, error.strerror)
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        entries += len(content)
        if entries > MAX_ENTRIES:
            raise InputError(
                f"{root}: holds more than {MAX_ENTRIES} files and folders, expected a data set; name a folder in it"
            )
        inside, below = _files_and_folders(content)
        if any(map(_is_slice, inside)):
            found.append(folder)
        if len(above) < MAX_DEPTH:
            waiting += [(path, (*above, here)) for path in reversed(below)]
    return found


def is_scout(folder: Path) -> bool:
    """Whether all slices in a folder are localizers, as of a series on which the others were planned."""
    try:
        # Of any other series, the first slice decides.
        return all(
            "LOCALIZER" in str(read(path).get("ImageType")).upper()
            for path in filter(_is_slice, files(folder))
        )
    except InputError:  # It is reported when the series is read.
        return False


def is_enhanced(folder: Path) -> bool:
    """Whether all slices in a folder lie in enhanced files, as the first bytes of the files say."""
    classes = {sop_class(path) for path in files(folder)} & SLICE_CLASSES
    return bool(classes) and classes <= ENHANCED_CLASSES


def files(folder: Path) -> list[Path]:
    """Returns the files in a folder, by name, but no hidden ones and no DICOMDIR."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.name[0] != "." and entry.is_file()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror}), expected a folder") from None
    return sorted(entry for entry in entries if entry.name.upper() != "DICOMDIR")


def sop_class(path: Path) -> str | None:
    """Returns the SOP class UID that a file's first bytes state, "" if they state none, None if it is no DICOM.

    Files without preamble count as DICOM if they begin with a plausible element.
    """
    start = _start(path)
    if start[128:132] == b"DICM":
        start = start[132:]
    elif not (b"1.2.840.10008." in start and (_FIRST_ELEMENT.match(start) or _META.match(start, 132))):
        return None
    stated = _CLASS.search(start)
    return stated[1].decode() if stated else ""


def is_other_class(uid: str) -> bool:
    """Whether a SOP class is that of a document or of derived data, never of a scan's slice."""
    return _OTHER_CLASSES.fullmatch(uid) is not None


def read(path: Path, *, voxels: bool = False) -> Any:
    """Returns the pydicom data set of a DICOM file, with or without its voxels.

    Raises:
      InputError: pydicom cannot read it.
    """
    with errors_named(path, "cannot be read as DICOM"):
        if _DEFLATED in _start(path):
            _check_inflated(path)
        return pydicom().dcmread(path, stop_before_pixels=not voxels, force=True)


@contextlib.contextmanager
def errors_named(path: Path, what: str) -> Iterator[None]:
    """Turns any error within the block, but for want of memory, into an `InputError` that names the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pydicom raises errors of many types on a damaged file
        raise InputError(f"{path}: {what} ({one_line(error)})") from None


def one_line(value: object) -> str:
    """Returns a value, or an error's message, as a short text without line breaks and control characters."""
    if isinstance(value, Exception):
        value = str(value) or type(value).__name__
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return " ".join(text.split())[:200]


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_START)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None


def _files_and_folders(entries: list[os.DirEntry[str]]) -> tuple[list[Path], list[Path]]:
    """Returns the files and the folders, but no hidden entries, pipes, devices and links that lead nowhere."""
    kinds: tuple[list[Path], list[Path]] = [], []
    for entry in entries:
        if entry.name[0] != ".":
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_file() or entry.is_dir():
                    kinds[entry.is_dir()].append(Path(entry))
    return kinds


def _is_slice(path: Path) -> bool:
    """Whether a file is a DICOM slice, or a damaged one, which is reported when it is read."""
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        uid = sop_class(path)
    except InputError:
        return False
    if uid is None or is_other_class(uid):
        return False
    try:
        return uid in SLICE_CLASSES or "ImagePositionPatient" in read(path)
    except InputError:
        return True


def _check_inflated(path: Path) -> None:
    """Refuses a deflated file that takes too much memory once inflated, by inflating it piece by piece."""
    inflated = 0
    for piece in _inflate(path):
        inflated += len(piece)
        if inflated > MAX_INFLATED:
            raise InputError(f"{path}: inflates to more than {MAX_INFLATED} bytes, expected one slice")


def _inflate(path: Path) -> Iterator[bytes]:
    meta = pydicom().filereader.read_file_meta_info(path)
    data = path.read_bytes()
    # preamble and mark, the group's length element, then the group itself
    start = 132 + 12 + int(meta.get("FileMetaInformationGroupLength", 0))
    engine, rest = zlib.decompressobj(-zlib.MAX_WBITS), data[start:]
    while rest:
        yield engine.decompress(rest, 1 << 20)
        rest = engine.unconsumed_tail
