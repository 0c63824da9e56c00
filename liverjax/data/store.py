"""The training store: each case on the working grid, one slice-major array per view.

    STORE/index.json                     preprocessing and the list of cases
    STORE/cases/<id>/case.json           geometry, intensity window, fingerprint, label counts per slice
    STORE/cases/<id>/<view>.npy          int16 (slice, row, column), unwindowed
    STORE/cases/<id>/<view>_labels.npy   uint8 (slice, row, column)

Intensities are stored before windowing, so that another window needs no new store. A slice of any view is
one contiguous read: of a single volume in C order, a sagittal slice would read the whole file when cold.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import mmap
import os
import pathlib
import shutil
import tempfile
import threading

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from liverjax import labels as label_ids
from liverjax.config import resolve
from liverjax.datasets import layouts
from liverjax.errors import InputError
from liverjax.files import sha256, write_json
from liverjax.options import Config, Preprocess
from liverjax.scans import intensity, nifti
from liverjax.scans.grid import to_grid
from liverjax.views import VIEWS, to_stack

_FORMAT = 1
#: Largest magnitude that a stored voxel uses; MR intensities are scaled into it.
_INT16_RANGE = 32_000
#: Stored voxel of what lies outside a slice: below every window, so air.
OUTSIDE = -(2**15)


@dataclasses.dataclass(frozen=True)
class StoredCase:
    """One case of a store.

    Attributes:
      id: name of the case.
      patient: name of the patient; two cases of one patient are never split apart.
      folder: where its arrays are.
      scale: a stored integer times this is the scan's intensity.
      window: intensities that are normalised to -1 and 1.
      fingerprint: SHA-256 of the scan's files and of the mask's.
      liver_only: whether the mask does not tell tumours from the liver.
      counts: for each view (slices, 2) pixels of liver (with tumour) and of tumour on each slice.
      shapes: for each view (slices, rows, columns).
    """

    id: str
    patient: str
    folder: pathlib.Path
    scale: float
    window: tuple[float, float]
    fingerprint: tuple[str, str]
    liver_only: bool
    counts: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, int, int]]

    def image(self, view: str) -> np.ndarray:
        """Returns the slices of a view, int16 (slice, row, column), as a memory map."""
        return self._open(f"{view}.npy", np.int16, self.shapes[view])

    def labels(self, view: str) -> np.ndarray:
        """Returns the labels of a view's slices, uint8 (slice, row, column), as a memory map."""
        return self._open(f"{view}_labels.npy", np.uint8, self.shapes[view])

    def slice(self, view: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a slice of a view and its labels (row, column), as memory maps that the system was asked to read."""
        stacks = self.image(view), self.labels(view)
        for stack in stacks:
            _read_ahead(stack, index)
        image, labels = stacks
        return image[index], labels[index]

    @property
    def stored_window(self) -> tuple[float, float]:
        """The window in units of the stored voxels."""
        low, high = self.window
        return low / self.scale, high / self.scale

    def _open(self, name: str, dtype: type, shape: tuple[int, int, int]) -> np.ndarray:
        path = self.folder / name
        try:
            with _LOCK:
                array = _memory_map(path, path.stat().st_mtime_ns)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable ({error}); run `liverjax prepare` again") from None
        if array.dtype != dtype or array.shape != shape:
            raise InputError(f"{path}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        return array


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened store: its folder, its preprocessing, its cases in natural order."""

    folder: pathlib.Path
    preprocess: Preprocess
    cases: tuple[StoredCase, ...]


def prepare(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    config: Config | ConfigDict,
    *,
    layout: str = "auto",
    phase: int | str | None = None,
    quiet: bool = False,
) -> Store:
    """Writes the cases of a folder of scans and masks into a store, and returns it.

    A case that is there already, of the same files and preprocessing, is kept; so an interrupted call goes on.

    Args:
      source: folder of scans and masks in one of the layouts of `liverjax.datasets.layouts`.
      folder: the store; made where missing.
      config: its ``preprocess`` says what is stored.
      layout: name of the layout, or "auto".
      phase: of dynamic scans, the phase to take: an index from 0, or "last".
      quiet: show no progress bar.

    Raises:
      InputError: a scan or mask cannot be used, or the store holds another preprocessing.
    """
    folder, config = pathlib.Path(folder), resolve(config)
    cases = layouts.find_cases(source, layout, labelled=True)
    _refuse_other_preprocessing(folder, config.preprocess)
    work = functools.partial(_prepare_case, folder=folder, options=config.preprocess, phase=phase)
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(work, case) for case in cases]
        try:
            for future in tqdm(futures, desc="prepare", unit="case", disable=quiet):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    index = {
        "format": _FORMAT,
        "preprocess": dataclasses.asdict(config.preprocess),
        "cases": [case.id for case in cases],
    }
    write_json(folder / "index.json", index)
    return open_store(folder)


def open_store(folder: str | os.PathLike) -> Store:
    """Returns the store in a folder.

    Raises:
      InputError: the folder holds no store, or one that this version does not understand.
    """
    folder = pathlib.Path(folder)
    index = _read_json(folder / "index.json")
    if index.get("format") != _FORMAT:
        raise InputError(
            f"{folder}: store of format {index.get('format')}, expected {_FORMAT}; prepare it again"
        )
    options = Preprocess(**{name: _tuple(value) for name, value in index["preprocess"].items()})
    return Store(folder, options, tuple(_open_case(folder / "cases" / name) for name in index["cases"]))


# Numpy parses a file's header with `ast`, which is not safe in several threads of CPython 3.11.
_LOCK = threading.Lock()


# Each map holds a file open, and systems commonly allow a process 1024.
@functools.lru_cache(maxsize=768)
def _memory_map(path: pathlib.Path, modified_ns: int) -> np.ndarray:
    """Opens an array once, and again when its file has been replaced."""
    del modified_ns
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_ahead(stack: np.memmap, index: int) -> None:
    """Has the system read a slice at once, where it can: of pages touched one by one, it reads a few and waits."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return
    size = stack.strides[0]
    start = stack.offset + index * size
    before = start % mmap.PAGESIZE
    with contextlib.suppress(OSError):
        stack.base.madvise(mmap.MADV_WILLNEED, start - before, before + size)


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _read_json(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path} does not exist; `liverjax prepare` makes a store")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def _open_case(folder: pathlib.Path) -> StoredCase:
    facts = _read_json(folder / "case.json")
    return StoredCase(
        id=facts["id"],
        patient=facts["patient"],
        folder=folder,
        scale=facts["scale"],
        window=tuple(facts["window"]),
        fingerprint=tuple(facts["fingerprint"]),
        liver_only=facts["liver_only"],
        counts={view: np.array(facts["counts"][view]).reshape(-1, 2) for view in VIEWS},
        shapes={view: tuple(facts["shapes"][view]) for view in VIEWS},
    )


def _refuse_other_preprocessing(folder: pathlib.Path, options: Preprocess) -> None:
    if (folder / "index.json").exists():
        stored = open_store(folder).preprocess
        if stored != options:
            raise InputError(f"{folder}: store of {stored}, expected {options}; choose another folder")


def _prepare_case(
    case: layouts.Case, *, folder: pathlib.Path, options: Preprocess, phase: int | str | None
) -> None:
    target = folder / "cases" / case.id
    wanted = {
        "fingerprint": [sha256(case.image), sha256(case.label)],
        "phase": phase,
        "preprocess": json.loads(json.dumps(dataclasses.asdict(options))),
    }
    if (target / "case.json").exists():
        facts = _read_json(target / "case.json")
        if {name: facts.get(name) for name in wanted} == wanted:
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        partial = pathlib.Path(temporary) / "case"
        partial.mkdir()
        _write_case(case, partial, options, wanted)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


def _write_case(case: layouts.Case, folder: pathlib.Path, options: Preprocess, wanted: dict) -> None:
    scan, mask = case.read_image(phase=wanted["phase"]), case.read_mask()
    nifti.require_same_geometry(scan, mask)
    image = to_grid(scan, options.spacing)
    mask = to_grid(mask, options.spacing, labels=True).voxels
    window = intensity.intensity_window(image.voxels, options)
    largest = float(np.abs(image.voxels).max())
    scale = 1.0 if options.modality == "ct" or largest == 0 else largest / _INT16_RANGE
    stored = np.clip(np.rint(image.voxels / scale), -_INT16_RANGE, _INT16_RANGE).astype(np.int16)
    counts, shapes = {}, {}
    for view in VIEWS:
        labels = np.ascontiguousarray(to_stack(mask, view))
        np.save(folder / f"{view}.npy", np.ascontiguousarray(to_stack(stored, view)))
        np.save(folder / f"{view}_labels.npy", labels)
        tumor = (labels == label_ids.TUMOR).sum((1, 2))
        counts[view] = np.stack([(labels != label_ids.BACKGROUND).sum((1, 2)), tumor], axis=1).tolist()
        shapes[view] = labels.shape
    facts = {
        "id": case.id,
        "patient": case.patient,
        "liver_only": case.liver_only,
        "scale": scale,
        "window": [float(value) for value in window],
        "affine": image.affine.tolist(),
        "shapes": shapes,
        "counts": counts,
        **wanted,
    }
    write_json(folder / "case.json", facts)
