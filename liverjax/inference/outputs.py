"""Where masks go: their names, what they must not overwrite, leftovers of runs that were killed, and the manifest."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from liverjax.checkpoint import manifest
from liverjax.datasets.case import Case
from liverjax.errors import InputError
from liverjax.files import local_path, make_folder, read_json, write_json
from liverjax.inference.cascade import Cascade
from liverjax.inference.lesion_table import write_lesions
from liverjax.inference.segmenter import Segmenter
from liverjax.inference.volumes import write_volumes
from liverjax.labels import TUMOR
from liverjax.scans import write

_LOG = logging.getLogger("liverjax")

#: Stages of a prediction, of which the seconds are noted.
STAGES = ("read", "resample", "network", "back", "write")
_MASK = re.compile(r"(\.nii(\.gz)?|(\.seg|\.rtstruct)?\.dcm)$", re.IGNORECASE)
# Names that mean an image in a format that is not written; a folder may have any other ending.
_OTHER_FORMATS = re.compile(
    r"\.(nii\.\w+|hdr|img|mha|mhd|nrrd|nhdr|dicom|mgh|mgz|mnc|gipl|vtk|vti|stl|npy|npz|png|jpe?g|tiff?|gz|zip)$",
    re.IGNORECASE,
)
# Where the references of a scan lie that was named by its file, so that nothing else is known of its data set.
_REFERENCES = {"images": ("labels",), "imagesTr": ("labelsTr",), "imagesTs": ("labelsTs", "labelsTr")}
_LITS_SCAN = re.compile(r"volume-(\d+)\.nii(\.gz)?", re.IGNORECASE)
# Folders of `predict.Extras`, beside the masks.
_EXTRAS = ("probabilities", "uncertainty")
# What `files.replacing` calls a file that is being written. No file takes a day.
_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}(\..*)?")
_LEFT_AFTER_S = 24 * 3600
_MANIFEST_FACTS = ("format", "versions", "machine", "model", "config", "members", "calibration", "seconds")

# Of some models, or of newer manifests.
_MORE_FACTS = ("tumor_model", "lesion_probability", "without_liver")


def is_mask_file(output: str | os.PathLike) -> bool:
    """Returns whether an output is the mask file of a single case; otherwise it is a folder.

    Raises:
      InputError: it names an image of another format.
    """
    output = local_path(output, "the output")
    if output.is_dir():
        return False
    if _OTHER_FORMATS.search(output.name) and not _MASK.search(output.name):
        raise InputError(
            f"{output}: a mask is written as NIfTI or DICOM, expected an --output that ends in .nii or .nii.gz "
            "(.dcm with --format=dicom-seg or rtstruct), or a folder"
        )
    return bool(_MASK.search(output.name))


def check_output(output: str | os.PathLike, cases: Sequence[Case], format: str) -> None:
    """Refuses an output that cannot be written in a format, before a model is loaded.

    Raises:
      InputError: as `is_mask_file`, `scans.write.check_format` and `scans.write.check_scans`.
    """
    if is_mask_file(output):
        write.check_format(pathlib.Path(output), format)
    write.check_scans([case.image for case in cases], format)


def stem(path: pathlib.Path) -> str:
    """Returns the name of a mask without its ending."""
    return _MASK.sub("", path.name)


def mask_paths(
    cases: Sequence[Case], output: str | os.PathLike, found: Sequence[Case] = (), format: str = "nifti"
) -> list[pathlib.Path]:
    """Returns where the masks go: the file ``output`` for a single case, else ``output/<id>`` with the format's ending.

    Args:
      cases: those that are predicted.
      output: the file or folder.
      found: further cases of their data set, whose files are left alone as well.
      format: one of `scans.write.FORMATS`.

    Raises:
      InputError: ``output`` names one file for several cases, or a file of another format; or a mask would take the
        place of a scan or a reference, or lie among the references.
    """
    output = pathlib.Path(output)
    if not is_mask_file(output):
        paths = [output / f"{case.id}{write.ENDINGS[format]}" for case in cases]
    elif len(cases) > 1:
        raise InputError(f"{output} names one file for {len(cases)} cases, expected a folder")
    else:
        paths = [output]
    _leave_alone([*cases, *found], paths)
    return paths


def _leave_alone(cases: Sequence[Case], paths: Sequence[pathlib.Path]) -> None:
    """Refuses masks that would take the place of a scan or a reference, also by a link, or lie among references."""
    kept: dict[Any, tuple[str, pathlib.Path]] = {}
    folders: dict[Any, pathlib.Path] = {}
    for case in cases:
        references, among = _references(case)
        for what, file in (("scan", case.image), *(("reference", file) for file in references)):
            kept[_identity(file)] = what, file
        folders |= {_identity(folder): folder for folder in among}
    for path in paths:
        # A file that does not exist has no identity, and neither has a reference that was only guessed.
        if (known := _identity(path)) and known in kept:
            what, file = kept[known]
            raise InputError(
                f"{path}: the mask would take the place of the {what} {file}; choose another --output"
            )
    for folder in dict.fromkeys(path.parent for path in paths):
        if (known := _identity(folder)) and known in folders:
            raise InputError(
                f"{folder}: masks would lie among the references in {folders[known]}; choose another --output"
            )


def _references(case: Case) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns the reference masks of a case, known or guessed from the scan's name, and the folders of references."""
    folder = case.image.parent
    if case.label is not None:
        return [case.label], [case.label if case.label.is_dir() else case.label.parent]
    guessed = []
    if match := _LITS_SCAN.fullmatch(case.image.name):
        guessed = [folder / f"segmentation-{match[1]}{ending}" for ending in (".nii", ".nii.gz")]
    return guessed, [folder.parent / name for name in _REFERENCES.get(folder.name, ())]


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns what two names of one file have in common, or None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def make_ready(paths: Iterable[pathlib.Path]) -> None:
    """Makes the folders of masks, removes what killed runs have left there, and finds out whether they can be written.

    Raises:
      InputError: they cannot, for instance because the disk is full.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            make_folder(folder)
            with tempfile.TemporaryFile(dir=folder, prefix=".partial-") as file:
                file.write(bytes(4096))
                file.flush()
        except OSError as error:
            raise InputError(
                f"{folder}: masks cannot be written there ({error.strerror or error}); choose another --output"
            ) from None
        for place in (folder, *(folder / name for name in _EXTRAS)):
            _remove_leftovers(place)


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes unfinished files of processes that were killed: those of a day ago, so that none is still written."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _PARTIAL.fullmatch(entry.name):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) and time.time() - facts.st_mtime > _LEFT_AFTER_S:
                    os.unlink(entry.path)


def write_manifest(
    output: str | os.PathLike,
    shard: str,
    model: Segmenter | Cascade,
    records: Sequence[dict],
    source: str | os.PathLike,
    tumor_source: str | os.PathLike | None = None,
) -> str:
    """Writes ``manifest.json`` into the output folder: what was predicted, from what, with what and how fast.

    And ``labels.json``, the names of the label ids, ``volumes.csv`` (`volumes.write_volumes`), and of a cascade
    ``lesions.csv`` (`lesion_table.write_lesions`); beside the mask of a single case the tables are
    ``<name>_volumes.csv`` and ``<name>_lesions.csv``.
    "cases" are those of this run. What an earlier manifest says of masks that are still as they were stays, in the list
    "earlier" of its runs: of cases that this run did not have, and of masks that it skipped, or failed to write anew.

    Args:
      output: as for `predict_cases`; beside the mask of a single case no manifest is written.
      shard: as for `predict.shard`; each has a manifest of its own.
      model: that predicted.
      records: of `predict.Outcome.record`; if there are none, no manifest is written.
      source: the folder or file that the model, or that of the liver, was loaded from.
      tumor_source: likewise of the tumour model, if it is another.

    Returns:
      A line on the time that each stage took.
    """
    tumors = len(model.labels) > TUMOR
    # As numbers alone: there can be thousands.
    cases = [{**record, "lesions": _counted(record.get("lesions", []))} for record in records]
    if not isinstance(model, Cascade):
        cases = [{name: value for name, value in record.items() if name != "lesions"} for record in records]
    without_liver = sum(r["status"] == "done" and not r["millilitres"]["liver"] for r in records)
    total = {name: round(sum(r["seconds"].get(name, 0) for r in records), 3) for name in STAGES}
    if records and not is_mask_file(output):
        name = "manifest.json" if shard == "1/1" else f"manifest_{shard.replace('/', '_of_')}.json"
        path = pathlib.Path(output) / name
        make_folder(path.parent)
        with _alone_in(path.parent):
            manifest.write_manifest(
                path,
                model=str(source),
                **({"tumor_model": str(tumor_source)} if tumor_source else {}),
                **model.facts(),
                seconds=total,
                without_liver=without_liver,
                cases=cases,
                earlier=_earlier(path, records),
            )
            write_volumes(path.parent / "volumes.csv", records, tumors)
            write_json(path.parent / "labels.json", write.label_names(len(model.labels)))
            if isinstance(model, Cascade):
                write_lesions(path.parent / "lesions.csv", records)
    elif records:
        mask = pathlib.Path(output)
        write_volumes(mask.with_name(f"{stem(mask)}_volumes.csv"), records, tumors)
        if isinstance(model, Cascade):
            write_lesions(mask.with_name(f"{stem(mask)}_lesions.csv"), records)
    line = "seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in total.items())
    return line + (f"; no liver found in {without_liver} of {len(records)} scans" if without_liver else "")


def _counted(lesions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    kept = sum(one["kept"] for one in lesions)
    return {"kept": kept, "dropped": len(lesions) - kept}


def _earlier(path: pathlib.Path, records: Sequence[dict]) -> list[dict]:
    """Returns the runs of a manifest, each with what it says of masks that are not those of ``records``."""
    if not path.is_file():
        return []
    now = {record["id"]: record["status"] for record in records}
    try:
        facts = read_json(path)
        more = {name: facts[name] for name in _MORE_FACTS if name in facts}
        runs = [
            {**{name: facts[name] for name in (*_MANIFEST_FACTS, "cases")}, **more},
            *facts.get("earlier", []),
        ]
        for run in runs:
            run["cases"] = [record for record in run["cases"] if _stays(record, now)]
    except (InputError, LookupError, TypeError, AttributeError) as error:
        _LOG.warning("%s: no manifest of predictions (%r), and written anew", path, error)
        return []
    return [run for run in runs if run["cases"]]


def _stays(record: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    status = now.get(record["id"])
    return status is None or (record["status"] == "done" and status != "done")


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is in this block for the folder; no lock file is left."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Where a file system has no locks, the last of several that end at once wins.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
