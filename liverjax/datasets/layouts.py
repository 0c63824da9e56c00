"""Data sets on disk: from a folder to its cases, for every layout that the field uses.

| layout | scans | masks |
|---|---|---|
| `nnunet` | `imagesTr/<case>_0000.nii.gz`, `imagesTs/` | `labelsTr/<case>.nii.gz`; names in `dataset.json` |
| `msd` | `imagesTr/<case>.nii.gz`, `imagesTs/` | `labelsTr/<case>.nii.gz`; names in `dataset.json` |
| `lits` | `volume-N.nii`, also one folder down | `segmentation-N.nii` beside them |
| `chaos` | `CT/<n>/DICOM_anon/`, `MR/<n>/<sequence>/DICOM_anon/` | `Ground/` beside them, as PNG |
| `plain` | `images/<case>.nii.gz` | `labels/<case>.nii.gz` |
| `flat` | `<case>.nii.gz` | none |
| `dicom` | a folder with a DICOM series, or one folder for each case | none |

`.nii` and `.nii.gz` are read alike; hidden files are skipped. A file `cases.json` beside the data may state
what file names cannot: `{"patients": {"<case>": "<patient>"}}` for several scans of a patient,
`{"liver_only": ["<case>"]}` for masks that do not distinguish tumours from the liver,
`{"voxel_on_voxel": ["<case>"]}` for masks that fit their scan although their header says otherwise, and
`{"phase": {"<case>": 2}}`, `{"series": {"<case>": "largest"}}`, `{"spacing": {"<case>": [0.8, 0.8, 5]}}` for what
`scans.Reading` takes.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from liverjax.datasets import chaos
from liverjax.datasets.case import Case
from liverjax.datasets.dataset_json import OWN_LABELS, case_facts, label_map, read_json
from liverjax.errors import InputError, did_you_mean
from liverjax.scans import AS_STORED, Reading, dicom

_LOG = logging.getLogger("liverjax")

_FURTHER_CHANNEL = re.compile(r"_(?!0000)\d{4}$")
_LITS_SCAN, _LITS_MASK = "volume-", "segmentation-"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a data set, before any of them is checked or opened.

    Attributes:
      scans: case id and place of each scan that should have a mask.
      masks: case id and place of each mask.
      test: case id and place of each scan that has none by design.
      label_map: as in `Case`.
      patient: gives the patient of a case id.
    """

    scans: list[tuple[str, Path]]
    masks: list[tuple[str, Path]] = dataclasses.field(default_factory=list)
    test: list[tuple[str, Path]] = dataclasses.field(default_factory=list)
    label_map: tuple[tuple[int, int], ...] = OWN_LABELS
    patient: Callable[[str], str] = str


def find_cases(
    path: str | os.PathLike,
    layout: str = "auto",
    labelled: bool = False,
    reading: Reading = AS_STORED,
) -> list[Case]:
    """Returns the cases of a data set, or of a single scan, in natural order of their ids.

    Args:
      path: a folder, or one `.nii` or `.nii.gz` file.
      layout: a name of the table above, or "auto": the first that finds a scan.
      labelled: scans and masks for training: each needs the other, and test sets without masks are left out.
        Otherwise all scans are returned, with their masks where there are some.
      reading: phase, series and spacing of all scans; what `cases.json` states of a case goes before it.

    Raises:
      InputError: no scans, an unknown layout, files without partner (all are listed), an id that occurs
        twice, a name that leads out of the folder, or an unreadable `dataset.json` or `cases.json`.
    """
    path = Path(path)
    if path.is_file():
        if labelled:
            raise InputError(f"{path}: is a file, expected a folder with scans and masks")
        listing = Listing([(case_id(path), path)])
    else:
        listing = list_files(path, layout)
    missing = [file for _, file in (*listing.scans, *listing.masks, *listing.test) if not file.exists()]
    if missing:
        named = ", ".join(os.path.relpath(file, path) for file in missing)
        raise InputError(f"{path}: {named} cannot be opened, expected files that exist and no broken links")
    images, masks = _by_id(listing.scans, path), _by_id(listing.masks, path)
    if labelled:
        _require_pairs(images, masks, path)
    everything = _by_id([*listing.scans, *listing.test], path)
    facts = case_facts(path / "cases.json", everything, reading)
    return [
        Case(
            id,
            everything[id],
            masks.get(id),
            **{
                "patient": listing.patient(id),
                "label_map": listing.label_map,
                "reading": reading,
                **facts.get(id, {}),
            },
        )
        for id in sorted(images if labelled else everything, key=natural_key)
    ]


def list_files(root: str | os.PathLike, layout: str = "auto") -> Listing:
    """Returns the scans and masks below a folder; whether they fit together or exist is not checked.

    Raises:
      InputError: no such folder, no scans, an unknown layout, or an unreadable `dataset.json`.
    """
    root = Path(root)
    if layout not in ("auto", *_LAYOUTS):
        raise InputError(f"layout is {layout!r}{did_you_mean(layout, ('auto', *_LAYOUTS))}")
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder")
    for name in _LAYOUTS if layout == "auto" else [layout]:
        listing = _LAYOUTS[name](root)
        if listing.scans or listing.test:
            return listing
    tried = "any known" if layout == "auto" else f"the {layout}"
    raise InputError(
        f"{root}: holds no scans in {tried} layout, expected images/ and labels/, imagesTr/ and labelsTr/, "
        "volume-N.nii and segmentation-N.nii, .nii or .nii.gz files, or DICOM series"
    )


def case_id(path: str | os.PathLike) -> str:
    """Returns the id of the case that a scan or mask file belongs to.

    It is the file's name without `.nii` or `.nii.gz`, and without nnU-Net's channel `_0000`. LiTS's
    `segmentation-N` belongs to case `volume-N`.
    """
    stem = _stem(path).removesuffix("_0000")
    return _LITS_SCAN + stem.removeprefix(_LITS_MASK) if re.fullmatch(_LITS_MASK + r"\d+", stem) else stem


def natural_key(text: str) -> tuple:
    """Returns a key that sorts `case_9` before `case_10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)], text


# --- the layouts --------------------------------------------------------------------------------------------


def _nnunet(root: Path) -> Listing:
    training, test = _files(root / "imagesTr"), _files(root / "imagesTs")
    if not any(_stem(path).endswith("_0000") for _, path in (*training, *test)):
        return Listing([])
    return Listing(training, _files(root / "labelsTr"), test, label_map(root / "dataset.json"))


def _msd(root: Path) -> Listing:
    facts = root / "dataset.json"
    listed = read_json(facts).get("training") if facts.is_file() else None
    if listed is None:
        training, masks = _files(root / "imagesTr"), _files(root / "labelsTr")
    else:
        training, masks = (_listed_files(listed, kind, facts) for kind in ("image", "label"))
    test = _files(root / "imagesTs")
    return Listing(training, masks, test, label_map(facts)) if training or test else Listing([])


def _lits(root: Path) -> Listing:
    files = [file for folder in (root, *_folders(root)) for file in _files(folder)]
    images, masks = (
        [file for file in files if re.fullmatch(prefix + r"\d+", _stem(file[1]))]
        for prefix in (_LITS_SCAN, _LITS_MASK)
    )
    return Listing(images, masks)


def _chaos(root: Path) -> Listing:
    found = chaos.find_series(root)
    return Listing(
        [(id, series) for id, series, masks in found if masks],
        [(id, masks) for id, _, masks in found if masks],
        [(id, series) for id, series, masks in found if not masks],
        patient=chaos.patient,
    )


def _plain(root: Path) -> Listing:
    return Listing(_files(root / "images"), _files(root / "labels"))


def _flat(root: Path) -> Listing:
    return Listing(_files(root))


def _dicom(root: Path) -> Listing:
    """Names a series by its folders, as `PATIENT_STUDY_SERIES`; the data set's own folder only if it holds slices."""
    folders = dicom.find_folders(root)
    here = Path(os.path.abspath(root))
    start = here.parent if root in folders else here
    parts = [Path(os.path.abspath(folder)).relative_to(start).parts for folder in folders]
    ids = ["_".join(names) for names in parts]
    if len(set(ids)) < len(ids):  # as a_b/c and a/b_c
        ids = ["__".join(names) for names in parts]
    return Listing(list(zip(ids, folders, strict=True)))


#: In the order in which "auto" tries them.
_LAYOUTS: dict[str, Callable[[Path], Listing]] = {
    "nnunet": _nnunet, "msd": _msd, "lits": _lits, "chaos": _chaos, "plain": _plain, "flat": _flat,
    "dicom": _dicom,
}  # fmt: skip


# --- files --------------------------------------------------------------------------------------------------


def _stem(path: str | os.PathLike) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Returns id and path of the NIfTI files in a folder, if there is one; of several channels the first."""
    if not folder.is_dir():
        return []
    entries = [
        entry for entry in sorted(folder.iterdir()) if entry.name[0] != "." and _stem(entry) != entry.name
    ]
    stems = {_stem(entry) for entry in entries}
    further = [e for e in entries if _FURTHER_CHANNEL.sub("_0000", _stem(e)) in stems - {_stem(e)}]
    if further:
        _LOG.warning(
            "%s: %d files of further channels are not used (such as %s)",
            folder,
            len(further),
            further[0].name,
        )
    return [(case_id(entry), entry) for entry in entries if entry not in further]


def _listed_files(training: Any, kind: str, source: Path) -> list[tuple[str, Path]]:
    """Returns the scans or masks that the `training` list of a `dataset.json` names, relative to it."""
    try:
        names = [PurePosixPath(entry[kind]) for entry in training]
    except (TypeError, KeyError):
        raise InputError(f"{source}: 'training' is not a list of {{'image': file, 'label': file}}") from None
    outside = [str(name) for name in names if name.is_absolute() or ".." in name.parts]
    if outside:
        raise InputError(f"{source}: {', '.join(outside)} leads out of the folder, expected files within it")
    files = [source.parent / name for name in names if not name.name.startswith(".")]
    return [(case_id(file), file) for file in files]


def group(files: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Returns the files of each case id, in natural order of the ids; a sound data set has one of each."""
    groups = collections.defaultdict(list)
    for id, file in sorted(files, key=lambda entry: natural_key(entry[0])):
        groups[id].append(file)
    return dict(groups)


def check_id(id: str, path: Path) -> None:
    """Refuses an id that is no plain file name, since outputs are named by it."""
    if not id or id.startswith(".") or set(id) & set("/\\") or not id.isprintable():
        raise InputError(f"{path}: case id {id!r}, expected a plain file name")


def _by_id(files: Iterable[tuple[str, Path]], root: Path) -> dict[str, Path]:
    """Returns the one file of each case id."""
    groups = group(files)
    for id, paths in groups.items():
        check_id(id, paths[0])
    twice = [
        " and ".join(os.path.relpath(p, root) for p in paths) for paths in groups.values() if len(paths) > 1
    ]
    if twice:
        raise InputError(f"{root}: the same case id for {'; '.join(twice)}; expected one file a case")
    return {id: paths[0] for id, paths in groups.items()}


def _require_pairs(scans: dict[str, Path], masks: dict[str, Path], root: Path) -> None:
    if not masks:
        raise InputError(
            f"{root}: holds {len(scans)} scans and no masks, expected masks in labels/ or labelsTr/, or as "
            "segmentation-N"
        )
    problems = []
    for what, ids in (("no mask for", scans.keys() - masks), ("no scan for", masks.keys() - scans)):
        if ids:
            problems.append(f"{what} {', '.join(sorted(ids, key=natural_key))}")
    if problems:
        raise InputError(f"{root}: {'; '.join(problems)}; expected a scan and a mask of each case")
