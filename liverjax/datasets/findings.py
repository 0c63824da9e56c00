"""What a check finds: the kinds of findings, each with its severity and remedy, and the report of them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from liverjax.datasets.names import printable

ERROR, WARNING = "error", "warning"

#: Severity and remedy of each kind of finding. A data set with errors cannot be used.
KINDS = {
    "layout": (ERROR, "arrange the folder as one of the layouts, or name its layout"),
    "dataset_json": (ERROR, "correct dataset.json as the message says"),
    "cases_json": (ERROR, "correct cases.json as the message says"),
    "case_id": (ERROR, "rename the file"),
    "duplicate_id": (ERROR, "rename or remove one of the files"),
    "missing_mask": (ERROR, "add the mask, or move the scan out of the training folder"),
    "missing_scan": (ERROR, "add the scan, or remove the mask"),
    "scan": (ERROR, "copy the scan again from its source, or convert it as the message says"),
    "mask": (ERROR, "copy the mask again from its source, or convert it as the message says"),
    "label_values": (
        ERROR,
        'relabel to 0 background, 1 liver, 2 tumour, or state in cases.json what the values mean, as {"labels": {"3": '
        '"tumor"}}',
    ),
    "shape": (ERROR, "find the scan that the mask was drawn on, or resample the mask to the scan"),
    "affine": (
        ERROR,
        "view both; if they fit voxel on voxel, as LiTS case 53 does, list the case as voxel_on_voxel in cases.json",
    ),
    "constant": (ERROR, "copy the scan again from its source"),
    "memory": (ERROR, "check it on a machine with more memory, or resample the scan"),
    "unexpected": (ERROR, "convert the file with another program, and report this message"),
    "duplicate_scan": (ERROR, "keep one; copies in training and test make scores too good"),
    "no_geometry": (
        WARNING,
        "state the voxel size (--spacing=X,Y,Z, or spacing in cases.json), and verify the orientation in a viewer",
    ),
    "forms_disagree": (WARNING, "verify the geometry in a viewer, then write the file with one form"),
    "notice": (WARNING, "verify that this is intended"),
    "spacing": (WARNING, "compare with the scanner's protocol; correct the header if it is wrong"),
    "class_in_liver": (
        WARNING,
        'state in cases.json what the value means, as {"labels": {"3": "tumor"}} (or "liver", or "background")',
    ),
    "left_out": (WARNING, "give the folder of one data set, or verify that the rest is not needed"),
    "unlisted": (WARNING, "correct dataset.json, or verify that this is intended"),
    "intensities": (WARNING, "do as the message says, or state what kind of scans these are (--modality)"),
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


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem: its severity, kind (of `KINDS`), cases and files, what was found, and the remedy.

    All texts are printable, names of files included.
    """

    severity: str
    kind: str
    cases: tuple[str, ...]
    files: tuple[str, ...]
    message: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings about a data set, errors first; `dataclasses.asdict` makes it JSON.

    Attributes:
      path: of the data set.
      cases: number of scans.
      modality: "ct" or "mr".
      findings: in the order of `KINDS`.
      labels: how the values of masks are read, where that is not plain.
    """

    path: str
    cases: int
    modality: str
    findings: tuple[Finding, ...]
    labels: str = ""

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == ERROR for finding in self.findings)


def finding(kind: str, cases: Iterable[str], files: Iterable[Path], message: str) -> Finding:
    """Returns a finding of one of `KINDS`."""
    severity, remedy = KINDS[kind]
    named = tuple(map(printable, cases)), tuple(map(printable, files))
    return Finding(severity, kind, *named, printable(message), remedy)


@contextlib.contextmanager
def notices_of_reading() -> Iterator[list[tuple[str, str]]]:
    """Collects kind and text of the warnings that reading a file logs, instead of printing them."""
    found: list[tuple[str, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kind = getattr(record, "kind", "notice")
            found.append((kind if kind in KINDS else "notice", record.getMessage()))

    logger, collector = logging.getLogger("liverjax"), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
