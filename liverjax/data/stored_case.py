"""One case of a store: its facts, each verified when it is opened, and its arrays as memory maps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import mmap
import pathlib
import reprlib
import stat
import threading
import tokenize
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from liverjax.errors import InputError
from liverjax.files import read_json
from liverjax.options import Preprocess
from liverjax.scans import intensity
from liverjax.views import VIEWS

_LARGEST = 1e30
#: What makes a store whole that is not as it was written.
REMEDY = "run `liverjax prepare` again"


class Arrays(Protocol):
    """Where arrays come from that are not there yet."""

    def provide(self, path: pathlib.Path) -> None:
        """Sees to it that the array of a path is there."""


@dataclasses.dataclass(frozen=True)
class StoredCase:
    """One case of a store.

    Attributes:
      id: name of the case.
      patient: name of the patient; all cases of a patient go into one subset of a split.
      folder: where its arrays are.
      scale: a stored integer times this is the scan's intensity.
      window: how intensities are normalised.
      fingerprint: SHA-256 of the scan's files, of the mask's, and of the predicted liver's where there is one.
      liver_only: whether the mask does not distinguish tumours from the liver.
      counts: for each view (slices, 2) pixels of liver (with tumour) and of tumour on each slice.
      shapes: for each view (slices, rows, columns).
      doubts: what speaks against the scan's intensities or the mask's volume, each a few words with the file.
      synthetic: whether its tumours were placed by `liverjax.data.synthetic`: such a case is only for training.
      lesions_mm3: volume of each lesion in mm3, by its id from 1, in a store of boxes; None in one of scans.
      remote: brings the arrays of a store that is elsewhere (`liverjax.data.remote_store`).
    """

    id: str
    patient: str
    folder: pathlib.Path
    scale: float
    window: intensity.Window
    fingerprint: tuple[str, ...]
    liver_only: bool
    counts: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, int, int]]
    doubts: tuple[str, ...] = ()
    lesions_mm3: tuple[float, ...] | None = None
    synthetic: bool = False
    remote: Arrays | None = None

    def image(self, view: str) -> np.memmap:
        """Returns the slices of a view, int16 (slice, row, column), as a memory map."""
        return self._open(f"{view}.npy", np.int16, self.shapes[view])

    def labels(self, view: str) -> np.memmap:
        """Returns the labels of a view's slices, uint8 (slice, row, column), as a memory map."""
        return self._open(f"{view}_labels.npy", np.uint8, self.shapes[view])

    def distance(self, view: str) -> np.memmap:
        """Returns how far each pixel of a box lies from the liver, uint8 in mm (`scans.liver_box.liver_distance`)."""
        return self._open(f"{view}_distance.npy", np.uint8, self.shapes[view])

    def lesions(self, view: str) -> np.memmap:
        """Returns the id of each pixel's lesion in a box, uint16: 0 for none, else from 1 as in `lesions_mm3`."""
        return self._open(f"{view}_lesions.npy", np.uint16, self.shapes[view])

    def slice(self, view: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a slice of a view and its labels (row, column), as memory maps that are being read ahead."""
        stacks = self.image(view), self.labels(view)
        for stack in stacks:
            _read_ahead(stack, index)
        image, labels = stacks
        return image[index], labels[index]

    @property
    def stored_window(self) -> intensity.Window:
        """The window in units of the stored voxels."""
        low, high, gamma = self.window
        return intensity.Window(low / self.scale, high / self.scale, gamma)

    def _open(self, name: str, dtype: type, shape: tuple[int, int, int]) -> np.memmap:
        path = self.folder / name
        try:
            array = _mapped(path) if self.remote is None else _brought(path, self.remote)
        except (OSError, ValueError, TypeError, OverflowError, RecursionError, tokenize.TokenError) as error:
            raise InputError(f"{path}: not readable ({error}); {REMEDY}") from None
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            raise InputError(
                f"{path}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape} in C order; {REMEDY}"
            )
        return array


def _mapped(path: pathlib.Path) -> np.memmap:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no regular file")
    with _LOCK:
        return _memory_map(path, status.st_mtime_ns)


def _brought(path: pathlib.Path, remote: Arrays) -> np.memmap:
    for _ in range(_TRIES - 1):
        remote.provide(path)
        with contextlib.suppress(FileNotFoundError):  # Another process has made room meanwhile.
            return _mapped(path)
    remote.provide(path)
    return _mapped(path)


_TRIES = 5
# Numpy parses a file's header with `ast`, which is not safe in several threads of CPython 3.11.
_LOCK = threading.Lock()


# Each map holds a file open, and systems commonly allow a process 1024.
@functools.lru_cache(maxsize=768)
def _memory_map(path: pathlib.Path, modified_ns: int) -> np.memmap:
    """Opens an array once, and again when its file has been replaced."""
    del modified_ns
    return np.lib.format.open_memmap(path, mode="r")


def forget_maps() -> None:
    """Closes the maps of arrays that nobody uses."""
    with _LOCK:
        _memory_map.cache_clear()


def _read_ahead(stack: np.memmap, index: int) -> None:
    """Has the system read a slice at once, where it can: of pages touched one by one, it reads a few and waits."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return
    size = stack.strides[0]
    start = stack.offset + index * size
    before = start % mmap.PAGESIZE
    mapped: Any = stack.base
    with contextlib.suppress(OSError):
        mapped.madvise(mmap.MADV_WILLNEED, start - before, before + size)


def read_facts(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a store, or raises `InputError`, which says that `prepare` makes it."""
    try:
        return read_json(path, remedy=REMEDY)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {REMEDY}") from None


def require(
    path: pathlib.Path, facts: Mapping[str, Any], field: str, expected: str, fits: Callable[[Any], bool]
) -> Any:
    """Returns a field of a store's JSON file.

    Args:
      path: the file, for the message.
      facts: what is in it.
      field: name of the field.
      expected: what it is to be, in words.
      fits: whether a value is that.

    Raises:
      InputError: it is missing, or another value.
    """
    if field in facts and fits(facts[field]):
        return facts[field]
    found = f"is {reprlib.repr(facts[field])}" if field in facts else "is missing"
    raise InputError(f"{path}: {field} {found}, expected {expected}; {REMEDY}")


def open_case(folder: pathlib.Path, identity: Mapping[str, object], options: Preprocess) -> StoredCase:
    """Returns the case in a folder of a store.

    Args:
      folder: the folder, named as the case.
      identity: of the store.
      options: of the window.

    Raises:
      InputError: its ``case.json`` is missing or is not as `prepare` writes it; the arrays are not looked at.
    """
    path = folder / "case.json"
    facts = read_facts(path)
    fact = functools.partial(require, path, facts)
    fact("identity", f"that of the store, {dict(identity)}", lambda value: value == identity)
    if options.modality == "any":
        options = dataclasses.replace(options, modality="mr" if facts.get("quantiles") else "ct")
    quantiles = fact(
        "quantiles",
        "those of an MR scan in rising order, and null of a CT",
        lambda v: _are_quantiles(v, options),
    )
    boxed = identity.get("target.region") != "scan"
    texts = 3 if identity.get("target.region") == "predicted" else 2
    shapes = fact("shapes", "slices, rows and columns of each view of one volume", _are_shapes)
    counts = fact(
        "counts",
        "pixels of liver and of tumour on each slice of each view, alike in sum",
        lambda value: _are_counts(value, shapes),
    )
    return StoredCase(
        id=fact("id", f"{folder.name!r}", lambda value: value == folder.name),
        patient=fact("patient", "a name", lambda value: isinstance(value, str) and bool(value)),
        folder=folder,
        scale=float(
            fact("scale", "1 of a CT, a number above 0 of an MR scan", lambda v: _is_scale(v, options))
        ),
        window=intensity.Window(*options.window)
        if quantiles is None
        else intensity.window_from_quantiles(quantiles, options),
        fingerprint=tuple(
            fact("fingerprint", f"{('two', 'three')[texts - 2]} checksums", lambda v: _are_texts(v, texts))
        ),
        liver_only=fact("liver_only", "true or false", lambda value: isinstance(value, bool)),
        counts={view: np.array(counts[view]) for view in VIEWS},
        shapes={view: tuple(shapes[view]) for view in VIEWS},
        # Stores that were made before there were any have none.
        doubts=tuple(fact("doubts", "a list of texts", _are_texts) if "doubts" in facts else ()),
        synthetic=bool(facts.get("synthetic")),
        lesions_mm3=tuple(fact("lesions_mm3", "volumes above 0", _are_volumes)) if boxed else None,
    )


def _is_number(value: Any) -> bool:
    """Whether it is a number that float32 holds, as intensities are."""
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_scale(value: Any, options: Preprocess) -> bool:
    return _is_number(value) and (value == 1 if options.modality == "ct" else value > 1 / _LARGEST)


def _are_texts(value: object, number: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(text, str) for text in value)
        and number in (None, len(value))
    )


def _are_volumes(value: object) -> bool:
    return isinstance(value, list) and all(_is_number(volume) and volume > 0 for volume in value)


def _are_quantiles(value: object, options: Preprocess) -> bool:
    if options.modality == "ct":
        return value is None
    return (
        isinstance(value, list)
        and len(value) == len(intensity.PERCENTILES)
        and all(map(_is_number, value))
        and all(low <= high for low, high in itertools.pairwise(value))
    )


def _are_shapes(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != set(VIEWS):
        return False
    for shape in value.values():
        if not (isinstance(shape, list) and len(shape) == 3):
            return False
        if not all(type(size) is int and size > 0 for size in shape):
            return False
    z, y, x = value["axial"]
    return value["coronal"] == [y, z, x] and value["sagittal"] == [x, z, y]


def _are_counts(value: object, shapes: Mapping[str, list[int]]) -> bool:
    if not isinstance(value, dict) or set(value) != set(VIEWS):
        return False
    totals = set()
    for view, (slices, rows, columns) in shapes.items():
        try:
            counts = np.array(value[view])
        except (ValueError, OverflowError):  # of lists of different lengths
            return False
        if counts.dtype.kind != "i" or counts.shape != (slices, 2):
            return False
        liver, tumor = counts.T
        if tumor.min() < 0 or (tumor > liver).any() or liver.max() > rows * columns:
            return False
        totals.add((int(liver.sum()), int(tumor.sum())))
    return len(totals) == 1
