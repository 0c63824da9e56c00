"""Data sets on disk: from a folder to its cases, for every layout that the field uses.

| layout | scans | masks |
|---|---|---|
| `nnunet` | `imagesTr/<case>_0000.nii.gz`, `imagesTs/` | `labelsTr/<case>.nii.gz`; names in `dataset.json` |
| `msd` | `imagesTr/<case>.nii.gz`, `imagesTs/`, or the list in `dataset.json` | `labelsTr/<case>.nii.gz` |
| `lits` | `volume-N.nii`, also one folder down | `segmentation-N.nii` beside them |
| `chaos` | `CT/<n>/DICOM_anon/`, `MR/<n>/<sequence>/DICOM_anon/` | `Ground/` beside them, as PNG |
| `plain` | `images/<case>.nii.gz` | `labels/<case>.nii.gz` |
| `flat` | `<case>.nii.gz` | none |
| `dicom` | a folder with a DICOM series, or one folder for each case | none |

`.nii` and `.nii.gz` are read alike; hidden files are skipped. What the files `dataset.json` and `cases.json` beside the
data may state, and how case ids are told from channels, is in docs/data.md.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path

from liverjax.datasets import chaos, label_names, names
from liverjax.datasets.case import Case
from liverjax.datasets.dataset_json import (
    case_facts,
    channels,
    dataset_facts,
    listed_pairs,
    listed_tests,
    read_labels,
)
from liverjax.datasets.folders import Folders, kind
from liverjax.datasets.names import check_id, natural_key, printable
from liverjax.errors import InputError, did_you_mean
from liverjax.files import local_path
from liverjax.scans import AS_STORED, Reading, dicom, dicom_files

_LOG = logging.getLogger("liverjax")

_FURTHER = "{} files of further channels are not used"
_Files = list[tuple[str, Path]]


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a data set, before any of them is checked or opened.

    Attributes:
      scans: case id and place of each scan that should have a mask.
      masks: case id and place of each mask.
      test: case id and place of each scan that has none by design.
      labels: how the masks are read.
      patient: gives the patient of a case id.
      modality: gives "ct" or "mr" of a case id, or nothing where the layout does not say.
      layout: name of the layout; empty of a single file.
      notices: kind (as of `findings.KINDS`) and text of what the user should know.
    """

    scans: _Files
    masks: _Files = dataclasses.field(default_factory=list)
    test: _Files = dataclasses.field(default_factory=list)
    labels: label_names.Labels = label_names.OWN
    patient: Callable[[str], str] = str
    modality: Callable[[str], str] = lambda id: ""
    layout: str = ""
    notices: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """All files and folders."""
        return [file for _, file in (*self.scans, *self.masks, *self.test)]


def find_cases(
    path: str | os.PathLike,
    layout: str = "auto",
    labelled: bool = False,
    reading: Reading = AS_STORED,
) -> list[Case]:
    """Returns the cases of a data set, or of a single scan, in natural order of their ids.

    Logs what is left out, and, where masks are asked for, how their values are read if that is not plain.

    Args:
      path: a folder, or one `.nii` or `.nii.gz` file.
      layout: a name of the table above, or "auto": the first that finds a scan.
      labelled: scans and masks for training: each needs the other, and test sets without masks are left out.
        Otherwise all scans are returned, with their masks where there are some.
      reading: phase, series and spacing of all scans; what `cases.json` states of a case goes before it.

    Raises:
      InputError: no scans, an unknown layout, files without partner (all are listed), an id that occurs
        twice, a name that leads out of the folder, or an unreadable folder, `dataset.json` or `cases.json`.
    """
    path = Path(path)
    listing = list_files(path, layout)
    if labelled and path.is_file():
        raise InputError(f"{path}: is a file, expected a folder with scans and masks")
    for what, text in listing.notices:
        _LOG.warning("%s", text, extra={"kind": what})
    missing = [file for file in listing.files if kind(file) not in ("file", "folder")]
    if missing:
        named = ", ".join(printable(os.path.relpath(file, path)) for file in missing)
        raise InputError(
            f"{path}: {named} cannot be opened, expected files that exist, no broken links and no pipes"
        )
    images, masks = _by_id(listing.scans, path), _by_id(listing.masks, path)
    if labelled:
        _require_pairs(images, masks, path)
        if listing.labels.text:
            _LOG.warning("%s: masks are read by %s", path, listing.labels.line)
    everything = _by_id([*listing.scans, *listing.test], path)
    facts = case_facts(path / "cases.json", everything, reading)
    return [
        Case(
            id,
            everything[id],
            masks.get(id),
            **{
                "patient": listing.patient(id),
                "modality": listing.modality(id),
                "label_map": listing.labels.map,
                "reading": reading,
                **facts.get(id, {}),
            },
        )
        for id in sorted(images if labelled else everything, key=natural_key)
    ]


def list_files(root: str | os.PathLike, layout: str = "auto") -> Listing:
    """Returns the scans and masks below a folder, or the one file; whether they fit together or exist is not checked.

    Raises:
      InputError: no such folder, no scans, an unknown layout, an unreadable folder or an unreadable `dataset.json`.
    """
    root, folders = local_path(root, "the data set"), Folders()
    if layout not in ("auto", *_LAYOUTS):
        raise InputError(f"layout is {layout!r}{did_you_mean(layout, ('auto', *_LAYOUTS))}")
    found = kind(root)
    if found == "file":
        return Listing([(_id_in_folder(root, folders), root)])
    if found != "folder":
        what = (
            "no such file or folder" if found == "missing" else f"is a {found}, expected a folder or a file"
        )
        raise InputError(f"{printable(root)}: {what}")
    try:
        for read in _AUTO if layout == "auto" else [_LAYOUTS[layout]]:
            listing = read(root, folders)
            if listing.scans or listing.test:
                passed_over = [("notice", text) for text in folders.passed_over]
                beside = _beside(root, listing, folders) if layout == "auto" else []
                return dataclasses.replace(listing, notices=[*listing.notices, *passed_over, *beside])
    except OSError as error:
        raise InputError(
            f"{printable(error.filename or root)}: cannot be read ({error.strerror or error})"
        ) from None
    tried = "any known" if layout == "auto" else f"the {layout}"
    raise InputError(
        f"{printable(root)}: holds no scans in {tried} layout, expected images/ and labels/, imagesTr/ and labelsTr/, "
        "volume-N.nii and segmentation-N.nii, .nii or .nii.gz files, or DICOM series"
        + "".join(f"; {text}" for text in folders.passed_over[:1])
    )


def mask_files(path: str | os.PathLike) -> tuple[dict[str, Path], label_names.Labels | None]:
    """Returns the masks of a folder, or the one file, by case id; and how they are read, where something says so.

    A `dataset.json` or `cases.json` with labels in the folder says so, or one in the data set whose folder of masks
    it is.

    Raises:
      InputError: there are none, an id occurs twice, or such a file is unreadable.
    """
    path, folders = local_path(path, "the masks"), Folders()
    found = kind(path)
    files = [path] if found == "file" else folders.scans(path)
    if not files:
        what = {"missing": "no such file or folder", "folder": "holds no masks"}.get(found, f"is a {found}")
        raise InputError(f"{printable(path)}: {what}, expected a mask or a folder of masks (.nii or .nii.gz)")
    for text in folders.passed_over:
        _LOG.warning("%s", text)
    masks = _by_id([(names.stem(file), file) for file in files], path)
    home = Path(os.path.abspath(path.parent if found == "file" else path))
    within = home.parent if is_mask_folder(home) else home
    for place in dict.fromkeys((home, within)):
        labels = read_labels(place)
        if labels.where:
            return masks, labels
    return masks, None


def is_mask_folder(folder: Path) -> bool:
    """Whether a folder holds the masks of the data set that it lies in."""
    return folder.name in _MASK_FOLDERS and (folder.parent / _MASK_FOLDERS[folder.name]).is_dir()


# --- the layouts --------------------------------------------------------------------------------------------

#: Folders of masks within a data set, and the folder of scans beside them by which they are recognised.
_MASK_FOLDERS = {"labelsTr": "imagesTr", "labelsTs": "imagesTs", "labels": "images"}


def _raw(root: Path, folders: Folders, named: bool | None = None) -> Listing:
    """nnU-Net's and MSD's layout: they differ in whether names state channels (`names.scan_ids`)."""
    facts, source = dataset_facts(root), root / "dataset.json"
    training, masks = folders.scans(root / "imagesTr"), folders.scans(root / "labelsTr")
    notices = []
    if facts.get("training") and not named:
        pairs = listed_pairs(facts["training"], source)
        scans, masks = [(id, image) for id, image, _ in pairs], [(id, mask) for id, _, mask in pairs]
        ids = {id for id, _ in scans}
        rest = [file for file in training if file not in {image for _, image in scans}]
        further = [file for file in rest if (_channel(file) or ("",))[0] in ids]
        unlisted = [file for file in rest if file not in further]
        notices += _noted("unlisted", f"{source} does not list {{}} files, which are left out", unlisted)
    else:
        scans, further = names.scan_ids(training, set(map(names.mask_id, masks)), channels(facts), named)
        ids = {id for id, _ in scans}
        masks = [(names.mask_id(file, ids), file) for file in masks]
    count = channels(facts) or 1 + max(
        (channel[1] for file in further if (channel := _channel(file))), default=0
    )
    of_test = set(map(names.stem, folders.scans(root / "labelsTs")))
    test, also = names.scan_ids(folders.scans(root / "imagesTs"), of_test, count, named)
    has_channels = any(id != names.stem(file) for id, file in (*scans, *test))
    if not (scans or test) or (named and not has_channels):
        return Listing([])
    for left in (further, also):
        notices += _noted("notice", _FURTHER, left)
    if isinstance(number := facts.get("numTraining"), int) and scans and number != len(scans):
        text = f"{source}: numTraining is {number}, but there are {len(scans)} training cases"
        notices.append(("unlisted", text))
    if test:
        absent = [file for file in listed_tests(facts, root) if file not in {file for _, file in test}]
        notices += _noted("unlisted", f"{source} lists {{}} test scans that are not there", absent)
    layout = "nnunet" if has_channels else "msd"
    return Listing(scans, masks, test, read_labels(root), layout=layout, notices=notices)


def _lits(root: Path, folders: Folders, guessed: bool = False) -> Listing:
    files = [file for folder in (root, *folders.below(root)) for file in folders.scans(folder)]
    scans = [(names.stem(file), file) for file in files if names.is_lits_scan(names.stem(file))]
    masks = [(names.mask_id(file), file) for file in files if names.is_lits_mask(names.stem(file))]
    others = len(folders.scans(root)) > sum(file.parent == root for _, file in scans)
    if not scans or (guessed and others and not masks):  # then these are scans among others
        return Listing([])
    return Listing(scans, masks, labels=read_labels(root), layout="lits")


def _chaos(root: Path, folders: Folders) -> Listing:
    found = chaos.find_series(root)
    return Listing(
        [(id, series) for id, series, masks in found if masks],
        [(id, masks) for id, _, masks in found if masks],
        [(id, series) for id, series, masks in found if not masks],
        patient=chaos.patient,
        modality=chaos.modality,
        layout="chaos",
    )


def _plain(root: Path, folders: Folders, paired: bool = False) -> Listing:
    files, masks = folders.scans(root / "images"), folders.scans(root / "labels")
    if not files or (paired and not masks):
        return Listing([])
    scans, further = names.scan_ids(files, set(map(names.mask_id, masks)), named=False)
    ids = {id for id, _ in scans}
    return Listing(
        scans,
        [(names.mask_id(file, ids), file) for file in masks],
        labels=read_labels(root),
        layout="plain",
        notices=_noted("notice", _FURTHER, further),
    )


def _flat(root: Path, folders: Folders) -> Listing:
    """Scans alone; of nnU-Net's folders of scans, the masks and `dataset.json` beside them tell ids from channels."""
    here = Path(os.path.abspath(root))
    masks, declared = [], None
    if here.name in ("imagesTr", "imagesTs"):
        masks = folders.scans(here.with_name(here.name.replace("images", "labels")))
        declared = channels(dataset_facts(here.parent))
    scans, further = names.scan_ids(folders.scans(root), set(map(names.mask_id, masks)), declared)
    return Listing(scans, layout="flat", notices=_noted("notice", _FURTHER, further))


def _dicom(root: Path) -> Listing:
    """Names a series by its folders, as `PATIENT_STUDY_SERIES`; the data set's own folder only if it holds slices."""
    found = dicom.find_folders(root)
    folders = [folder for folder in found if len(found) == 1 or not dicom_files.is_scout(folder)] or found
    notices = []
    if len(folders) < len(found):
        named = ", ".join(os.path.relpath(folder, root) for folder in found if folder not in folders)
        notices = [("left_out", f"{root}: scouts are not used: {named}")]
    here = Path(os.path.abspath(root))
    start = here.parent if root in folders else here
    parts = [Path(os.path.abspath(folder)).relative_to(start).parts for folder in folders]
    ids = ["_".join(names) for names in parts]
    if len(set(ids)) < len(ids):  # as a_b/c and a/b_c
        ids = ["__".join(names) for names in parts]
    return Listing(list(zip(ids, folders, strict=True)), notices=notices)


_LAYOUTS: dict[str, Callable[[Path, Folders], Listing]] = {
    "nnunet": functools.partial(_raw, named=True),
    "msd": functools.partial(_raw, named=False),
    "lits": _lits,
    "chaos": _chaos,
    "plain": _plain,
    "flat": _flat,
    "dicom": lambda root, folders: dataclasses.replace(_dicom(root), layout="dicom"),
}
#: In the order in which "auto" tries them: LiTS's names in `images/` and `labels/` are `plain`.
_AUTO = (
    _raw, functools.partial(_plain, paired=True), functools.partial(_lits, guessed=True), _chaos, _plain, _flat,
    _LAYOUTS["dicom"],
)  # fmt: skip


# --- files --------------------------------------------------------------------------------------------------


def _id_in_folder(file: Path, folders: Folders) -> str:
    """Returns the id that a scan has among the others of its folder."""
    try:
        scans = _flat(file.parent, folders).scans
    except (InputError, OSError):
        scans = []
    return next((id for id, other in scans if other.name == file.name), names.stem(file))


def _channel(file: Path) -> tuple[str, int] | None:
    return names.channel(names.stem(file))


def _noted(kind: str, text: str, files: list[Path]) -> list[tuple[str, str]]:
    """Returns a notice on some files, with their number and the first of them; none if there are none."""
    return [(kind, f"{text.format(len(files))} (such as {printable(files[0])})")] if files else []


def _beside(root: Path, taken: Listing, folders: Folders) -> list[tuple[str, str]]:
    """Names other data sets of NIfTI files in the same folder, if there are any; results of these cases are none."""
    files = set(taken.files)
    ids = {id for id, _ in (*taken.scans, *taken.test)}
    # A series may be the folder itself.
    within = (file.relative_to(root).parts for file in files if file.is_relative_to(root))
    tops = {parts[0] for parts in within if parts}
    places = [root, *(folder for folder in folders.below(root) if folder.name not in tops)]
    found = []
    for place, read in itertools.product(places, (_raw, _plain, _lits, _flat)):
        try:
            other = read(place, folders)
        except (InputError, OSError):
            continue
        rest = {id for id, file in (*other.scans, *other.test) if file not in files}
        if rest - ids:
            found.append(f"{printable(place.relative_to(root))}/ ({other.layout}, {len(rest)} scans)")
            files |= set(other.files)
    if not found:
        return []
    named = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    text = f"{printable(root)}: read as {taken.layout}, {len(ids)} scans; left out: {named}"
    return [("left_out", f"{text}; give the folder of one data set")]


def _by_id(files: _Files, root: Path) -> dict[str, Path]:
    """Returns the one file of each case id."""
    groups = names.group(files)
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
