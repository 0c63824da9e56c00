"""Checks of a data set: all findings at once, as data, each with its remedy."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from liverjax import scans
from liverjax.datasets import dataset_json, layouts, names
from liverjax.datasets.case import Case
from liverjax.datasets.case_check import Facts, check_case
from liverjax.datasets.findings import KINDS, Finding, Report, finding
from liverjax.datasets.label_names import Labels
from liverjax.errors import InputError
from liverjax.progress import followed

#: A spacing is an outlier if it is this many times larger or smaller than the data set's median.
SPACING_FACTOR = 5.0
#: A spacing outside this range, in mm, is an outlier in any data set.
SPACING_RANGE = (0.2, 20.0)
#: A CT whose lowest value is above this shows no air: its HU are clipped.
CLIPPED_ABOVE_HU = -500
#: A class lies within the liver if more than this share of its surface touches it.
IN_LIVER = 0.5

_IRCADB = re.compile(r"(volume-|liver_)(2[89]|3\d|4[0-7])")


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
      path: folder of the data set, or one scan.
      layout: as `layouts.find_cases`.
      modality: "ct", "mr", or "auto": what `dataset.json` says; else CT if half of the scans have Hounsfield units.
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: no progress bar.
    """
    path = Path(path)
    shown = names.printable(path)
    try:
        listing = layouts.list_files(path, layout)
        stated = None if modality == "auto" else modality
        stated = stated or dataset_json.modality(dataset_json.dataset_facts(path))
    except InputError as error:
        files = {"dataset_json": path / "dataset.json", "cases_json": path / "cases.json", "layout": path}
        kind = next(
            kind
            for kind, file in files.items()
            if str(error).startswith(names.printable(file)) or file == path
        )
        return Report(shown, 0, modality, (finding(kind, (), (files[kind],), str(error)),))
    images, masks = names.group([*listing.scans, *listing.test]), names.group(listing.masks)
    findings = [finding(kind, (), (path,), text) for kind, text in listing.notices]
    findings += _pairing(images, masks, names.group(listing.scans))
    facts_of_cases, facts = {}, []
    try:
        facts_of_cases = dataset_json.case_facts(path / "cases.json", images, reading)
    except InputError as error:
        findings.append(finding("cases_json", (), (path / "cases.json",), str(error)))
    for id, files in followed(list(images.items()), "check", "case", quiet=quiet):
        common = {"patient": id, "label_map": listing.labels.map, "reading": reading}
        common["modality"] = stated or listing.modality(id)
        case = Case(id, files[0], masks.get(id, [None])[0], **{**common, **facts_of_cases.get(id, {})})
        problems, fact = check_case(case, dict(listing.labels.unknown))
        findings += problems
        facts += [fact] if fact else []
    by_layout = collections.Counter(filter(None, map(listing.modality, images)))
    found = stated or " and ".join(sorted(by_layout)) or _modality(facts)
    if not stated and len(by_layout) > 1:
        counts = " and ".join(f"{count} {name.upper()}" for name, count in sorted(by_layout.items()))
        findings.append(finding("modalities", (), (path,), f"{shown}: holds {counts} scans"))
    findings += [*_spacings(facts), *_duplicates(facts), *_ircadb(facts)]
    findings += [*_intensities(facts, found), *_classes_in_liver(facts, listing.labels)]
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    labels = names.printable(listing.labels.line) if masks else ""
    return Report(shown, len(images), found, tuple(findings), labels)


def _modality(facts: list[Facts]) -> str:
    """Returns what most scans are by their values."""
    in_hu = [not fact.doubts["ct"] for fact in facts if fact.range[0] < fact.range[1]]
    return "ct" if in_hu and np.mean(in_hu) >= 0.5 else "mr"


def _pairing(
    images: dict[str, list[Path]], masks: dict[str, list[Path]], to_train: dict[str, list[Path]]
) -> Iterator[Finding]:
    for groups in (images, masks):
        for id, files in groups.items():
            try:
                names.check_id(id, files[0])
            except InputError as error:
                yield finding("case_id", (id,), files, str(error))
            if len(files) > 1:
                named = " and ".join(map(str, files))
                yield finding("duplicate_id", (id,), files, f"{named} have one case id, {id!r}")
    if masks:  # else these are scans for prediction
        for id in to_train.keys() - masks:
            yield finding("missing_mask", (id,), to_train[id], f"{to_train[id][0]} has no mask")
    for id in masks.keys() - images:
        yield finding("missing_scan", (id,), masks[id], f"{masks[id][0]} has no scan")


# --- the whole data set -------------------------------------------------------------------------------------


def _spacings(facts: list[Facts]) -> Iterator[Finding]:
    if not facts:
        return
    usual = np.median([fact.spacing for fact in facts], axis=0)
    for fact in facts:
        ratio = np.maximum(fact.spacing / usual, usual / fact.spacing).max()
        low, high = fact.spacing.min(), fact.spacing.max()
        if ratio > SPACING_FACTOR or low < SPACING_RANGE[0] or high > SPACING_RANGE[1]:
            here, there = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (fact.spacing, usual))
            message = f"{fact.case.image}: voxels of {here} mm, the data set's median is {there} mm"
            yield finding("spacing", (fact.case.id,), (fact.case.image,), message)


def _duplicates(facts: list[Facts]) -> Iterator[Finding]:
    by_digest = collections.defaultdict(list)
    for fact in facts:
        by_digest[fact.digest].append(fact.case)
    for cases in by_digest.values():
        if len(cases) > 1:
            files = [case.image for case in cases]
            message = f"{' and '.join(map(str, files))} hold the same voxels"
            yield finding("duplicate_scan", [case.id for case in cases], files, message)


def _intensities(facts: list[Facts], usual: str) -> Iterator[Finding]:
    for fact in facts:
        low, high = fact.range
        if low == high:
            continue  # reported as constant
        modality = fact.case.modality or usual
        doubts = fact.doubts[modality]
        for doubt in doubts:
            yield finding("intensities", (fact.case.id,), (fact.case.image,), f"{fact.case.image}: {doubt}")
        if modality == "ct" and not doubts and low > CLIPPED_ABOVE_HU:
            message = f"{fact.case.image}: values from {low:g} to {high:g} are clipped, since air is -1000"
            yield finding("hu_clipped", (fact.case.id,), (fact.case.image,), message)
    cases = [fact.case for fact in facts if fact.has_offset and not fact.case.modality]
    if usual == "mr" and cases:
        message = (
            f"{len(cases)} scans, such as {cases[0].image}, have air near 0 and tissue some 1000 above it, as CT has "
            "with 1024 added, and are taken as MR: state --modality=mr if they are; if they are CT, subtract 1024"
        )
        yield finding("intensities", [case.id for case in cases], [case.image for case in cases], message)


def _classes_in_liver(facts: list[Facts], labels: Labels) -> Iterator[Finding]:
    for value, name in labels.unknown:
        having = [fact for fact in facts if value in fact.touching]
        turned, faces = np.sum([fact.touching[value] for fact in having], axis=0) if having else (0, 1)
        if turned > IN_LIVER * faces:
            message = (
                f"value {value}, which dataset.json calls {name!r}, is taken as background, but {turned / faces:.0%} "
                f"of its surface touches the liver, in {len(having)} cases"
            )
            cases = [fact.case for fact in having]
            files = [case.label for case in cases if case.label]
            yield finding("class_in_liver", [case.id for case in cases], files, message)


def _ircadb(facts: list[Facts]) -> Iterator[Finding]:
    cases = [fact.case for fact in facts if _IRCADB.fullmatch(fact.case.id)]
    if cases:
        message = f"{len(cases)} cases, {cases[0].id} to {cases[-1].id}, are 3D-IRCADb's"
        yield finding("ircadb", [case.id for case in cases], [case.image for case in cases], message)
