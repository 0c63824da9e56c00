"""The training store: each case on the working grid, one slice-major array per view.

    STORE/index.json                     what identifies the store, and the list of cases
    STORE/cases/<id>/case.json           geometry, quantiles, checksums, label counts per slice, doubts
    STORE/cases/<id>/<view>.npy          int16 (slice, row, column), unwindowed
    STORE/cases/<id>/<view>_labels.npy   uint8 (slice, row, column)
    STORE/cases/<id>/<view>_distance.npy uint8, of boxes: mm from the liver, 0 within
    STORE/cases/<id>/<view>_lesions.npy  uint16, of boxes: id of the lesion, 0 for none

A store is identified by modality, spacing and region (`store_identity`). Intensities are stored before windowing, and
windows are computed when it is opened, so that another window, other percentiles or another gamma need no new store. A
slice of any view is one contiguous read: of a single volume in C order, a sagittal slice would read the whole file when
cold.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict

from liverjax.config import resolve
from liverjax.data import remote_store
from liverjax.data.case_arrays import ARRAYS, BOX_ARRAYS, array_names, write_arrays
from liverjax.data.doubts import predicted_livers, report_doubts, report_unlabelled
from liverjax.data.stored_case import REMEDY, StoredCase, open_case, read_facts, require
from liverjax.datasets import dataset_json
from liverjax.datasets.case import Case
from liverjax.datasets.layouts import check_id, find_cases
from liverjax.errors import ConfigError, InputError
from liverjax.files import address_of, local_path, locked, naming, sha256, write_json
from liverjax.options import Config, Preprocess, Target
from liverjax.progress import followed
from liverjax.scans import AS_STORED, Reading
from liverjax.views import VIEWS

_LOG = logging.getLogger("liverjax")

_FORMAT = 2
#: Folder of a store for what is being written; what is left there belongs to a call that was killed.
_PARTIAL = ".prepare-partial"
_LOCK = ".prepare.lock"
#: What file managers leave in any folder.
_STRAY = (".DS_Store", "Thumbs.db")
#: Stored voxel of what lies outside a slice: below every window, so air.
OUTSIDE = -(2**15)


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened store: its folder, what identifies it (`store_identity`), its cases in natural order."""

    folder: pathlib.Path
    identity: dict[str, object]
    cases: tuple[StoredCase, ...]


def store_identity(preprocess: Preprocess, target: Target) -> dict[str, object]:
    """Returns the fields of a config that a store depends on, as field -> value of JSON. The others are free."""
    identity = {
        "preprocess.modality": preprocess.modality,
        "preprocess.spacing": list(preprocess.spacing),
        "target.region": target.region,
        "target.margin_mm": target.margin_mm if target.region != "scan" else 0.0,
    }
    if not target.synthetic:
        return identity
    return {
        **identity,
        "target.synthetic": target.synthetic,
        "target.synthetic_mm": list(target.synthetic_mm),
        "target.synthetic_seed": target.synthetic_seed,
    }


def open_store(folder: str | os.PathLike, preprocess: Preprocess, target: Target) -> Store:
    """Returns the store in a folder.

    Args:
      folder: as `prepare` wrote it; or the address of a copy, such as ``s3://bucket/store``, whose arrays are copied
        into the cache when they are opened (`liverjax.data.remote_store`).
      preprocess: gives the window of each case.
      target: its region is compared with the store's.

    Raises:
      InputError: the folder holds no store, or one that this version does not understand.
      ConfigError: the store is of another modality, spacing or region.
    """
    address = address_of(folder)
    folder = remote_store.copy_facts(address) if address else pathlib.Path(folder)
    path = folder / "index.json"
    if not path.exists():
        raise InputError(f"{path} does not exist; `liverjax prepare` makes a store")
    index = read_facts(path)
    if index.get("format") != _FORMAT:
        raise InputError(f"{path}: store of format {index.get('format')!r}, expected {_FORMAT}; {REMEDY}")
    identity = require(path, index, "identity", "an object", lambda value: isinstance(value, dict))
    changed = _differences(identity, store_identity(preprocess, target))
    if changed:
        raise ConfigError(
            f"store {address or folder} was prepared with other values of the config: {changed}"
        )
    names = require(path, index, "cases", "a list of different case ids", _are_ids)
    cases = tuple(open_case(folder / "cases" / name, identity, preprocess) for name in names)
    if address:
        region = str(identity["target.region"])
        cases = tuple(remote_store.with_remote_arrays(case, address, region) for case in cases)
        remote_store.warn_of_a_small_cache(cases, address)
    return Store(folder, identity, cases)


def _are_ids(names: Any) -> bool:
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        return False
    try:
        for name in names:
            check_id(name, pathlib.Path())
    except InputError:
        return False
    return len(set(names)) == len(names)


def _differences(stored: dict, wanted: dict) -> str:
    """Returns the fields in which two identities differ, as text; "" if they are the same."""

    def shown(value: object) -> str:
        return str(tuple(value) if isinstance(value, list) else value)

    return ", ".join(
        f"{field} {shown(stored.get(field))}, now {shown(value)}"
        for field, value in {**dict.fromkeys(stored), **wanted}.items()
        if stored.get(field) != value
    )


# --- preparing ----------------------------------------------------------------------------------------------


def prepare(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    config: Config | ConfigDict,
    *,
    layout: str = "auto",
    reading: Reading = AS_STORED,
    livers: str | os.PathLike | None = None,
    quiet: bool = False,
) -> Store:
    """Writes the cases of a folder of scans and masks into a store, and returns it.

    A case that is there already, whole and of the same files, is kept; so the same call continues what was interrupted,
    and repairs what is missing or damaged: it reads all arrays and compares their checksums. What speaks against a
    scan or a mask (`StoredCase.doubts`), and cases with the same voxels, are logged as warnings.

    Args:
      source: folder of scans and masks in one of the layouts of `liverjax.datasets.layouts`.
      folder: the store; made where missing. What else it holds stays.
      config: its ``preprocess`` and ``target`` say what is stored. With ``target.region`` "reference", that is the box
        around the liver of the mask; with "predicted", around that of a mask in ``livers``. With ``target.synthetic``,
        each scan without tumours has so many copies with synthetic ones (`liverjax.data.synthetic`).
      layout: name of the layout, or "auto".
      reading: phase, series and spacing of all scans, where their files leave them open.
      livers: folder of masks that a liver model predicted of the same scans, called by their cases as
        `liverjax predict` writes them.
      quiet: show no progress bar.

    Raises:
      ConfigError: ``livers`` is given and ``target.region`` is not "predicted", or the other way round.
      InputError: a scan or mask cannot be used, or the folder holds a store of another modality, spacing or region, or
        what is no store at a place where the store needs its own.
      LockedError: another process prepares this store.
      OSError: the disk is full or read-only; the file is named, and the same call continues later.
    """
    source, folder = local_path(source, "the data set"), local_path(folder, "the store")
    config = resolve(config)
    cases = find_cases(source, layout, labelled=True, reading=reading)
    predicted = predicted_livers(livers, cases, config.target)
    _refuse_another_place(folder, source, cases)
    by_layout = {case.modality for case in cases if case.modality}
    if len(by_layout) > 1 and config.preprocess.modality != "any":
        raise InputError(
            f"{source}: holds scans of CT and MR, expected one of them; give the folder of one, or choose a config for "
            "any modality (any_liver)"
        )
    in_file = dataset_json.modality(dataset_json.dataset_facts(source))
    cases = [dataclasses.replace(case, modality=case.modality or in_file or "") for case in cases]
    stated = in_file or "".join(by_layout)
    if stated and config.preprocess.modality not in (stated, "any"):
        _LOG.warning(
            "%s says that the scans are %s, but the config (preprocess.modality) is for %s; choose a config for %s",
            source / "dataset.json" if in_file else f"the layout of {source}",
            stated.upper(),
            config.preprocess.modality.upper(),
            stated.upper(),
        )
    identity = store_identity(config.preprocess, config.target)
    with locked(folder / _LOCK), _partial_folder(folder) as partial:
        _refuse_another_store(folder, identity)
        stopping = threading.Event()
        work = functools.partial(
            _prepare_case,
            folder=folder,
            partial=partial,
            options=config.preprocess,
            target=config.target,
            stopping=stopping,
            predicted=predicted,
        )
        prepared, copies = [], []
        with concurrent.futures.ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            futures = [pool.submit(work, case) for case in cases]
            try:
                for future in followed(futures, "prepare", "case", quiet=quiet):
                    prepared.append(future.result())
                # Whether a scan is free of tumours is known once its mask was read.
                healthy = [case for case, facts in zip(cases, prepared, strict=True) if _is_healthy(facts)]
                futures = [
                    pool.submit(work, case, copy=copy)
                    for case in healthy
                    for copy in range(1, config.target.synthetic + 1)
                ]
                for future in followed(futures, "synthetic", "case", quiet=quiet or not futures):
                    copies.append(future.result()["id"])
            except BaseException:
                stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
        index = {"format": _FORMAT, "identity": identity, "cases": [*(case.id for case in cases), *copies]}
        with naming(folder / "index.json", partial / "index.json"):
            write_json(partial / "index.json", index)
            os.replace(partial / "index.json", folder / "index.json")
    report_doubts(prepared)
    report_unlabelled(cases, config)
    return open_store(folder, config.preprocess, config.target)


@contextlib.contextmanager
def _partial_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives the empty folder for what is being written, without what calls that were killed left there."""
    partial = folder / _PARTIAL
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_another_place(folder: pathlib.Path, source: pathlib.Path, cases: Iterable[Case]) -> None:
    """Refuses a folder in which the store would replace or change what is not its own."""
    place, choose = folder.resolve(), "choose another folder for the store"
    if place == source.resolve():
        raise InputError(f"{folder}: is the data set itself, expected a folder of its own; {choose}")
    for case in cases:
        for path in (case.image, case.label):
            if path and path.is_dir() and place.is_relative_to(path.resolve()):
                raise InputError(f"{folder}: lies within {path}, a folder of the data set; {choose}")
        own = folder / "cases" / case.id
        if own.is_symlink() or own.is_file():
            raise InputError(f"{own}: is no folder of a store; remove it, or {choose}")
        for path in sorted(own.iterdir()) if own.is_dir() else ():
            if path.name not in ("case.json", *ARRAYS, *BOX_ARRAYS, *_STRAY) or path.is_dir():
                raise InputError(f"{path}: is no file of a store; remove it, or {choose}")
    index = folder / "index.json"
    if index.is_dir():
        raise InputError(f"{index}: is a folder, expected a file of a store; remove it, or {choose}")
    if index.exists() and not (folder / _LOCK).exists() and not any(folder.glob("cases/*/case.json")):
        raise InputError(f"{index}: is of no store; remove it, or {choose}")


def _refuse_another_store(folder: pathlib.Path, identity: dict[str, object]) -> None:
    """Refuses to overwrite a store of another identity. One that is damaged or of another format is made again."""
    try:
        index = read_facts(folder / "index.json")
    except InputError:
        return
    stored = index.get("identity")
    known = store_identity(Preprocess(), Target(region="reference", synthetic=1))
    base = store_identity(Preprocess(), Target())
    if (
        index.get("format") == _FORMAT
        and isinstance(stored, dict)
        and base.keys() <= stored.keys() <= known.keys()
    ):
        changed = _differences(stored, identity)
        if changed:
            raise InputError(f"{folder} holds a store of other values: {changed}; choose another folder")


def _prepare_case(
    case: Case,
    *,
    folder: pathlib.Path,
    partial: pathlib.Path,
    options: Preprocess,
    target: Target,
    stopping: threading.Event,
    predicted: dict[str, pathlib.Path],
    copy: int = 0,
) -> dict:
    """Writes a case into the store, unless it is there already and whole, and returns what its case.json holds.

    A ``copy`` from 1 has synthetic tumours, and its number in its id.
    """
    id = f"{case.id}_synthetic{copy}" if copy else case.id
    place = folder / "cases" / id
    stated = {
        "format": _FORMAT,
        "identity": store_identity(options, target),
        "fingerprint": [sha256(path) for path in (case.image, case.label, predicted.get(case.id)) if path],
        "reading": [case.reading.phase, case.reading.series, list(case.reading.spacing or ())],
        "id": id,
        **({"synthetic": copy} if copy else {}),
        "patient": case.patient,
        "liver_only": case.liver_only,
        "voxel_on_voxel": case.voxel_on_voxel,
        "label_map": [list(pair) for pair in case.label_map],
    }
    if kept := _whole_case(place, stated, options):
        return kept
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=partial) as temporary:
        new, old = pathlib.Path(temporary) / "new", pathlib.Path(temporary) / "old"
        new.mkdir()
        facts = {
            **stated,
            **write_arrays(case, new, place, options, target, stopping, predicted.get(case.id), copy),
        }
        with naming(place / "case.json", new / "case.json"):
            write_json(new / "case.json", facts)
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, old)
        os.replace(new, place)
    return facts


def _is_healthy(facts: dict) -> bool:
    """Returns whether a case's mask would show tumours, and shows none."""
    return not facts["liver_only"] and not any(tumor for _, tumor in facts["counts"]["axial"])


def _whole_case(place: pathlib.Path, stated: dict[str, object], options: Preprocess) -> dict | None:
    """Returns the facts of a case's folder if they include the stated ones and its arrays are as they were written."""
    try:
        facts = read_facts(place / "case.json")
        if {name: facts.get(name) for name in stated} != stated or "doubts" not in facts:
            return None
        stored = open_case(place, facts["identity"], options)
        region = facts["identity"]["target.region"]
        for view in VIEWS:
            stored.image(view)
            stored.labels(view)
            if region != "scan":
                stored.distance(view)
                stored.lesions(view)
        whole = facts.get("sha256") == {name: sha256(place / name) for name in array_names(region)}
    except (InputError, OSError):
        return None
    return facts if whole else None
