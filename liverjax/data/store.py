"""The training store: each case on the working grid, one slice-major array per view.

    STORE/index.json                     what identifies the store, and the list of cases
    STORE/cases/<id>/case.json           geometry, quantiles of the intensities, fingerprint, label counts per slice
    STORE/cases/<id>/<view>.npy          int16 (slice, row, column), unwindowed
    STORE/cases/<id>/<view>_labels.npy   uint8 (slice, row, column)

A store is identified by modality, spacing and region (`store_identity`). Intensities are stored before windowing, and
windows are computed when it is opened, so that another window or other percentiles need no new store. A slice of any
view is one contiguous read: of a single volume in C order, a sagittal slice would read the whole file when cold.
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
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from liverjax import labels as label_ids
from liverjax.config import resolve
from liverjax.datasets.case import Case
from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError, InputError
from liverjax.files import locked, sha256, write_json
from liverjax.options import Config, Preprocess, Target
from liverjax.scans import AS_STORED, Reading, intensity
from liverjax.scans.grid import box_grid, to_grid, working_grid
from liverjax.views import VIEWS, to_stack

_FORMAT = 2
#: Largest magnitude that a stored voxel uses; MR intensities are scaled into it.
_INT16_RANGE = 32_000
#: MR: the largest intensity that is kept, in units of the body's 99.5th percentile; what is brighter is stored as that.
_BRIGHTEST = 4.0
#: Stored voxel of what lies outside a slice: below every window, so air.
OUTSIDE = -(2**15)


@dataclasses.dataclass(frozen=True)
class StoredCase:
    """One case of a store.

    Attributes:
      id: name of the case.
      patient: name of the patient; all cases of a patient go into one subset of a split.
      folder: where its arrays are.
      scale: a stored integer times this is the scan's intensity.
      window: intensities that are normalised to -1 and 1.
      fingerprint: SHA-256 of the scan's files and of the mask's.
      liver_only: whether the mask does not distinguish tumours from the liver.
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

    def image(self, view: str) -> np.memmap:
        """Returns the slices of a view, int16 (slice, row, column), as a memory map."""
        return self._open(f"{view}.npy", np.int16, self.shapes[view])

    def labels(self, view: str) -> np.memmap:
        """Returns the labels of a view's slices, uint8 (slice, row, column), as a memory map."""
        return self._open(f"{view}_labels.npy", np.uint8, self.shapes[view])

    def slice(self, view: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a slice of a view and its labels (row, column), as memory maps that are being read ahead."""
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

    def _open(self, name: str, dtype: type, shape: tuple[int, int, int]) -> np.memmap:
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
    """An opened store: its folder, what identifies it (`store_identity`), its cases in natural order."""

    folder: pathlib.Path
    identity: dict[str, object]
    cases: tuple[StoredCase, ...]


def store_identity(preprocess: Preprocess, target: Target) -> dict[str, object]:
    """Returns the fields of a config that a store depends on, as field -> value of JSON. The others are free."""
    return {
        "preprocess.modality": preprocess.modality,
        "preprocess.spacing": list(preprocess.spacing),
        "target.region": target.region,
        "target.margin_mm": target.margin_mm if target.region != "scan" else 0.0,
    }


def prepare(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    config: Config | ConfigDict,
    *,
    layout: str = "auto",
    reading: Reading = AS_STORED,
    quiet: bool = False,
) -> Store:
    """Writes the cases of a folder of scans and masks into a store, and returns it.

    A case that is there already, whole and of the same files, is kept; so the same call continues what was interrupted,
    and repairs what is missing or damaged.

    Args:
      source: folder of scans and masks in one of the layouts of `liverjax.datasets.layouts`.
      folder: the store; made where missing.
      config: its ``preprocess`` and ``target`` say what is stored. With ``target.region`` "liver", that is the box
        around the liver of the mask.
      layout: name of the layout, or "auto".
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: show no progress bar.

    Raises:
      InputError: a scan or mask cannot be used, or the folder holds a store of another modality, spacing or region.
      LockedError: another process prepares this store.
    """
    folder, config = pathlib.Path(folder), resolve(config)
    cases = find_cases(source, layout, labelled=True, reading=reading)
    identity = store_identity(config.preprocess, config.target)
    with locked(folder / ".prepare.lock"):
        _refuse_another_store(folder, identity)
        _remove_leftovers(folder)
        work = functools.partial(
            _prepare_case, folder=folder, options=config.preprocess, target=config.target
        )
        with concurrent.futures.ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            futures = [pool.submit(work, case) for case in cases]
            try:
                for future in tqdm(futures, desc="prepare", unit="case", disable=quiet):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        index = {"format": _FORMAT, "identity": identity, "cases": [case.id for case in cases]}
        write_json(folder / "index.json", index)
    return open_store(folder, config.preprocess, config.target)


def open_store(folder: str | os.PathLike, preprocess: Preprocess, target: Target) -> Store:
    """Returns the store in a folder.

    Args:
      folder: as `prepare` wrote it.
      preprocess: gives the window of each case.
      target: its region is compared with the store's.

    Raises:
      InputError: the folder holds no store, or one that this version does not understand.
      ConfigError: the store is of another modality, spacing or region.
    """
    folder = pathlib.Path(folder)
    index = _read_json(folder / "index.json")
    if index.get("format") != _FORMAT:
        raise InputError(
            f"{folder}: store of format {index.get('format')}, expected {_FORMAT}; prepare it again"
        )
    identity = index["identity"]
    changed = _differences(identity, store_identity(preprocess, target))
    if changed:
        raise ConfigError(f"store {folder} was prepared with other values of the config: {changed}")
    cases = tuple(_open_case(folder / "cases" / name, preprocess) for name in index["cases"])
    return Store(folder, identity, cases)


# Numpy parses a file's header with `ast`, which is not safe in several threads of CPython 3.11.
_LOCK = threading.Lock()


# Each map holds a file open, and systems commonly allow a process 1024.
@functools.lru_cache(maxsize=768)
def _memory_map(path: pathlib.Path, modified_ns: int) -> np.memmap:
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
    mapped: Any = stack.base
    with contextlib.suppress(OSError):
        mapped.madvise(mmap.MADV_WILLNEED, start - before, before + size)


def _read_json(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path} does not exist; `liverjax prepare` makes a store")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); run `liverjax prepare` again") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: holds a {type(value).__name__}, expected an object; run `liverjax prepare` again"
        )
    return value


def _open_case(folder: pathlib.Path, options: Preprocess) -> StoredCase:
    facts = _read_json(folder / "case.json")
    if options.modality == "ct":
        window = options.window
    else:
        window = intensity.window_from_quantiles(facts["quantiles"], options)
    return StoredCase(
        id=facts["id"],
        patient=facts["patient"],
        folder=folder,
        scale=facts["scale"],
        window=window,
        fingerprint=tuple(facts["fingerprint"]),
        liver_only=facts["liver_only"],
        counts={view: np.array(facts["counts"][view]).reshape(-1, 2) for view in VIEWS},
        shapes={view: tuple(facts["shapes"][view]) for view in VIEWS},
    )


# --- preparing ----------------------------------------------------------------------------------------------


def _differences(stored: dict, wanted: dict) -> str:
    """Returns the fields in which two identities differ, as text; "" if they are the same."""

    def shown(value: object) -> str:
        return str(tuple(value) if isinstance(value, list) else value)

    return ", ".join(
        f"{field} {shown(stored.get(field))}, now {shown(value)}"
        for field, value in wanted.items()
        if stored.get(field) != value
    )


def _refuse_another_store(folder: pathlib.Path, identity: dict[str, object]) -> None:
    """Refuses to overwrite a store of another identity. One that is damaged or of another format is made again."""
    try:
        index = _read_json(folder / "index.json")
    except InputError:
        return
    if index.get("format") == _FORMAT:
        changed = _differences(index.get("identity", {}), identity)
        if changed:
            raise InputError(f"{folder} holds a store of other values: {changed}; choose another folder")


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what calls that were killed had begun to write."""
    for leftover in folder.glob(".partial-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _prepare_case(case: Case, *, folder: pathlib.Path, options: Preprocess, target: Target) -> None:
    """Writes a case into the store, unless it is there already and whole."""
    place = folder / "cases" / case.id
    stated = {
        "format": _FORMAT,
        "identity": store_identity(options, target),
        "fingerprint": [sha256(path) for path in (case.image, case.label) if path],
        "reading": [case.reading.phase, case.reading.series, list(case.reading.spacing or ())],
        "id": case.id,
        "patient": case.patient,
        "liver_only": case.liver_only,
        "voxel_on_voxel": case.voxel_on_voxel,
        "label_map": [list(pair) for pair in case.label_map],
    }
    if _is_prepared(place, stated, options):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        new, old = pathlib.Path(temporary) / "new", pathlib.Path(temporary) / "old"
        new.mkdir()
        facts = _write_arrays(case, new, options, target)
        write_json(new / "case.json", {**stated, **facts})
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, old)
        os.replace(new, place)


def _is_prepared(place: pathlib.Path, stated: dict[str, object], options: Preprocess) -> bool:
    """Whether a case's folder states these facts, and all its arrays can be opened."""
    try:
        facts = _read_json(place / "case.json")
        if {name: facts.get(name) for name in stated} != stated:
            return False
        stored = _open_case(place, options)
        for view in VIEWS:
            stored.image(view)
            stored.labels(view)
    except (InputError, KeyError, TypeError, ValueError):
        return False
    return True


def _write_arrays(case: Case, folder: pathlib.Path, options: Preprocess, target: Target) -> dict[str, object]:
    """Writes the slices of a case, and returns what opening them needs."""
    scan, mask = case.read_pair()
    whole = working_grid(scan, options.spacing)
    grid = whole
    if target.region == "liver":
        if not mask.voxels.any():
            raise InputError(f"{case.label}: holds no liver, expected one to store the region 'liver' of")
        grid = box_grid(whole, mask, target.margin_mm)
    image = to_grid(scan, grid)
    scale, quantiles = 1.0, None
    if options.modality == "mr":
        # The window is one of the whole scan, also where only a box is stored.
        quantiles = intensity.body_quantiles((image if grid is whole else to_grid(scan, whole)).voxels)
        scale = _mr_scale(image.voxels, quantiles)
    stored = np.clip(np.rint(image.voxels / scale), -_INT16_RANGE, _INT16_RANGE).astype(np.int16)
    counts, shapes = {}, {}
    mask_on_grid = to_grid(mask, grid, labels=True).voxels
    for view in VIEWS:
        labels = np.ascontiguousarray(to_stack(mask_on_grid, view))
        np.save(folder / f"{view}.npy", np.ascontiguousarray(to_stack(stored, view)))
        np.save(folder / f"{view}_labels.npy", labels)
        tumor = (labels == label_ids.TUMOR).sum((1, 2))
        counts[view] = np.stack([(labels != label_ids.BACKGROUND).sum((1, 2)), tumor], axis=1).tolist()
        shapes[view] = labels.shape
    return {
        "scale": scale,
        "quantiles": None if quantiles is None else quantiles.tolist(),
        "affine": grid.affine.tolist(),
        "shapes": shapes,
        "counts": counts,
    }


def _mr_scale(voxels: np.ndarray, quantiles: np.ndarray) -> float:
    """Returns the intensity of a stored 1, such that a bright artefact takes no precision from the body."""
    low, high = np.interp((0.5, 99.5), intensity.PERCENTILES, quantiles)
    largest = min(float(np.abs(voxels).max()), _BRIGHTEST * max(abs(float(low)), abs(float(high))))
    return largest / _INT16_RANGE if largest else 1.0
