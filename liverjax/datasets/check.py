"""Checks of a data set: all findings at once, as data, each with its remedy."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from liverjax import scans
from liverjax.datasets import layouts
from liverjax.datasets.case import Case
from liverjax.datasets.dataset_json import case_facts
from liverjax.errors import InputError
from liverjax.labels import BACKGROUND, TUMOR
from liverjax.scans import nifti
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

ERROR, WARNING = "error", "warning"

#: Severity and remedy of each kind of finding. A data set with errors cannot be used.
KINDS = {
    "layout": (ERROR, "arrange the folder as one of the layouts, or name its layout"),
    "cases_json": (ERROR, "correct cases.json as the message says"),
    "case_id": (ERROR, "rename the file"),
    "duplicate_id": (ERROR, "rename or remove one of the files"),
    "missing_mask": (ERROR, "add the mask, or move the scan out of the training folder"),
    "missing_scan": (ERROR, "add the scan, or remove the mask"),
    "scan": (ERROR, "copy the scan again from its source, or convert it as the message says"),
    "mask": (ERROR, "copy the mask again from its source, or convert it as the message says"),
    "label_values": (ERROR, "relabel to 0 background, 1 liver, 2 tumour, or name the labels in dataset.json"),
    "shape": (ERROR, "find the scan that the mask was drawn on, or resample the mask to the scan"),
    "affine": (
        ERROR,
        "view both; if they fit voxel on voxel, as LiTS case 53 does, list the case as voxel_on_voxel in cases.json",
    ),
    "constant": (ERROR, "copy the scan again from its source"),
    "duplicate_scan": (ERROR, "keep one; copies in training and test make scores too good"),
    "no_geometry": (WARNING, "state the voxel size (spacing), and verify the orientation in a viewer"),
    "forms_disagree": (WARNING, "verify the geometry in a viewer, then write the file with one form"),
    "notice": (WARNING, "verify that this is intended"),
    "spacing": (WARNING, "compare with the scanner's protocol; correct the header if it is wrong"),
    "not_hu": (WARNING, "convert to Hounsfield units (air -1000, water 0), or train on such data alone"),
    "hu_clipped": (WARNING, "keep the intensity window within the range that is left"),
    "empty_mask": (
        WARNING,
        "verify that the case shows no liver; empty masks are scored as documented",
    ),
    "tiny_mask": (WARNING, "verify that the mask is complete; a liver has 1000 to 2500 ml"),
    "mirrored": (WARNING, "view the case: its liver lies on the left; flip the scan, or correct its affine"),
    "ircadb": (
        WARNING,
        "LiTS cases 28 to 47 are 3D-IRCADb: do not evaluate a model on 3D-IRCADb that was trained on them",
    ),
}

#: A spacing is an outlier if it is this many times larger or smaller than the data set's median.
SPACING_FACTOR = 5.0
#: A spacing outside this range, in mm, is an outlier in any data set.
SPACING_RANGE = (0.2, 20.0)
#: A CT whose lowest value is above this shows no air: its HU are clipped.
CLIPPED_ABOVE_HU = -500
#: A liver below this volume, in ml, is reported.
TINY_LIVER_ML = 100.0
#: A liver whose centroid lies more than this, in mm, to the left of the middle of the field of view seems mirrored.
MIRRORED_MM = 20.0

_IRCADB = re.compile(r"(volume-|liver_)(2[89]|3\d|4[0-7])")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem: its severity, kind (of `KINDS`), cases and files, what was found, and the remedy."""

    severity: str
    kind: str
    cases: tuple[str, ...]
    files: tuple[str, ...]
    message: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings about a data set, errors first; `dataclasses.asdict` makes it JSON."""

    path: str
    cases: int
    modality: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == ERROR for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class _Facts:
    """Facts of a scan for the comparison with the others."""

    case: Case
    spacing: np.ndarray
    range: tuple[float, float]
    digest: str


def check_data_set(
    path: str | os.PathLike,
    *,
    layout: str = "auto",
    modality: str = "auto",
    reading: scans.Reading = scans.AS_STORED,
    quiet: bool = True,
) -> Report:
    """Reads every scan and mask of a data set, and returns all findings.

    Args:
      path: folder of the data set.
      layout: as `layouts.find_cases`.
      modality: "ct", "mr", or "auto": CT if half of the scans have values below 0.
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: no progress bar.
    """
    path = Path(path)
    try:
        listing = layouts.list_files(path, layout)
    except InputError as error:
        return Report(str(path), 0, modality, (_finding("layout", (), (path,), str(error)),))
    images, masks = layouts.group([*listing.scans, *listing.test]), layouts.group(listing.masks)
    findings = list(_pairing(images, masks, layouts.group(listing.scans)))
    stated, facts = {}, []
    try:
        stated = case_facts(path / "cases.json", images, reading)
    except InputError as error:
        findings.append(_finding("cases_json", (), (path / "cases.json",), str(error)))
    for id, files in tqdm(images.items(), desc="check", unit="case", disable=quiet):
        mask = masks.get(id, [None])[0]
        case = Case(
            id,
            files[0],
            mask,
            **{"patient": id, "label_map": listing.label_map, "reading": reading, **stated.get(id, {})},
        )
        problems, fact = _check_case(case)
        findings += problems
        facts += [fact] if fact else []
    if modality == "auto":
        negative = [fact.range[0] < 0 for fact in facts]
        modality = "ct" if negative and np.mean(negative) >= 0.5 else "mr"
    findings += [*_spacings(facts), *_duplicates(facts), *_ircadb(facts)]
    if modality == "ct":
        findings += _hounsfield(facts)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Report(str(path), len(images), modality, tuple(findings))


def _finding(kind: str, cases: Iterable[str], files: Iterable[Path], message: str) -> Finding:
    severity, remedy = KINDS[kind]
    return Finding(severity, kind, tuple(cases), tuple(map(str, files)), message, remedy)


# --- one case -----------------------------------------------------------------------------------------------


def _pairing(
    images: dict[str, list[Path]], masks: dict[str, list[Path]], to_train: dict[str, list[Path]]
) -> Iterator[Finding]:
    for groups in (images, masks):
        for id, files in groups.items():
            try:
                layouts.check_id(id, files[0])
            except InputError as error:
                yield _finding("case_id", (id,), files, str(error))
            if len(files) > 1:
                names = " and ".join(map(str, files))
                yield _finding("duplicate_id", (id,), files, f"{names} have one case id, {id!r}")
    if masks:  # else these are scans for prediction
        for id in to_train.keys() - masks:
            yield _finding("missing_mask", (id,), to_train[id], f"{to_train[id][0]} has no mask")
    for id in masks.keys() - images:
        yield _finding("missing_scan", (id,), masks[id], f"{masks[id][0]} has no scan")


def _check_case(case: Case) -> tuple[list[Finding], _Facts | None]:
    findings = []
    scan = facts = None
    with _notices() as notices:
        try:
            scan = case.read_image()
        except InputError as error:
            findings.append(_finding("scan", (case.id,), (case.image,), str(error)))
    findings += [_finding(kind, (case.id,), (case.image,), text) for kind, text in notices]
    if scan is not None:
        low, high = float(scan.voxels.min()), float(scan.voxels.max())
        facts = _Facts(case, to_canonical(scan).spacing, (low, high), _digest(scan))
        if low == high:
            message = f"{case.image}: every voxel is {low:g}"
            findings.append(_finding("constant", (case.id,), (case.image,), message))
    if case.label is not None:
        mask, problems = _read_mask(case, case.label)
        findings += problems
        if mask is not None:
            findings += _check_mask(case, case.label, scan, mask)
    return findings, facts


def _read_mask(case: Case, file: Path) -> tuple[Volume | None, list[Finding]]:
    with _notices():  # the scan has the same ones
        try:
            return case.read_mask(), []
        except InputError as error:
            kind, message = "label_values", str(error)
        try:
            scans.read(file)  # then it is its values that are wrong
        except InputError:
            kind = "mask"
    return None, [_finding(kind, (case.id,), (file,), message)]


def _check_mask(case: Case, file: Path, scan: Volume | None, mask: Volume) -> Iterator[Finding]:
    liver = mask.voxels != BACKGROUND
    fits = False
    if scan is not None:
        try:
            nifti.require_same_geometry(scan, mask)
            fits = True
        except InputError as error:
            kind = "shape" if scan.shape != mask.shape else "affine"
            yield _finding(kind, (case.id,), (case.image, file), str(error))
    if not liver.any():
        yield _finding("empty_mask", (case.id,), (file,), f"{file}: holds no liver and no tumour")
        return
    volume = mask.millilitres(liver)
    if volume < TINY_LIVER_ML:
        tumor = mask.millilitres(mask.voxels == TUMOR)
        message = f"{file}: the liver has {volume:.3g} ml ({tumor:.3g} ml of it tumour)"
        yield _finding("tiny_mask", (case.id,), (file,), message)
    if fits and (right := _offset_to_the_right(liver, mask.affine)) < -MIRRORED_MM:
        message = f"{file}: the liver's centroid lies {-right:.0f} mm to the patient's left of the middle"
        yield _finding("mirrored", (case.id,), (case.image, file), message)


def _offset_to_the_right(mask: np.ndarray, affine: np.ndarray) -> float:
    """Returns how far in mm a mask's centroid lies to the patient's right of the field of view's centre."""
    offset = []
    for axis, size in enumerate(mask.shape):
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        offset.append(profile @ np.arange(size) / profile.sum() - (size - 1) / 2)
    return float(affine[0, :3] @ offset)


def _digest(scan: Volume) -> str:
    """Returns a hash of shape and values, whatever the type they are stored in."""
    digest = hashlib.sha256(repr(scan.shape).encode())
    digest.update(np.ascontiguousarray(scan.voxels.T, dtype=np.float32).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _notices() -> Iterator[list[tuple[str, str]]]:
    """Collects kind and text of the warnings that reading a file logs, instead of printing them."""
    notices: list[tuple[str, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notices.append((getattr(record, "kind", "notice"), record.getMessage()))

    logger, collector = logging.getLogger("liverjax"), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield notices
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


# --- the whole data set -------------------------------------------------------------------------------------


def _spacings(facts: list[_Facts]) -> Iterator[Finding]:
    if not facts:
        return
    usual = np.median([fact.spacing for fact in facts], axis=0)
    for fact in facts:
        ratio = np.maximum(fact.spacing / usual, usual / fact.spacing).max()
        low, high = fact.spacing.min(), fact.spacing.max()
        if ratio > SPACING_FACTOR or low < SPACING_RANGE[0] or high > SPACING_RANGE[1]:
            here, there = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (fact.spacing, usual))
            message = f"{fact.case.image}: voxels of {here} mm, the data set's median is {there} mm"
            yield _finding("spacing", (fact.case.id,), (fact.case.image,), message)


def _duplicates(facts: list[_Facts]) -> Iterator[Finding]:
    by_digest = collections.defaultdict(list)
    for fact in facts:
        by_digest[fact.digest].append(fact.case)
    for cases in by_digest.values():
        if len(cases) > 1:
            files = [case.image for case in cases]
            message = f"{' and '.join(map(str, files))} hold the same voxels"
            yield _finding("duplicate_scan", [case.id for case in cases], files, message)


def _hounsfield(facts: list[_Facts]) -> Iterator[Finding]:
    for fact in facts:
        low, high = fact.range
        if low == high:
            continue  # reported as constant
        if low >= 0 or high - low <= 2:
            kind, what = "not_hu", "not in Hounsfield units"
        elif low > CLIPPED_ABOVE_HU:
            kind, what = "hu_clipped", "clipped, since air is -1000"
        else:
            continue
        message = f"{fact.case.image}: values from {low:g} to {high:g} are {what}"
        yield _finding(kind, (fact.case.id,), (fact.case.image,), message)


def _ircadb(facts: list[_Facts]) -> Iterator[Finding]:
    cases = [fact.case for fact in facts if _IRCADB.fullmatch(fact.case.id)]
    if cases:
        message = f"{len(cases)} cases, {cases[0].id} to {cases[-1].id}, are 3D-IRCADb's"
        yield _finding("ircadb", [case.id for case in cases], [case.image for case in cases], message)
