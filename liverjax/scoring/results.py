"""What an evaluation found: its files, and its table for the terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import pathlib
import tempfile

from liverjax import files
from liverjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of a set of predictions.

    Attributes:
      summary: what `summary.json` holds: nnU-Net's blocks (``metric_per_case``, ``mean``, ``foreground_mean``, keyed
        by label ids as nnU-Net does) and ``scores``: region, metric, then the fields of `statistics.describe`.
      cases: the rows of `cases.csv`, one per case and region.
    """

    summary: dict
    cases: list[dict]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `summary.json` and `cases.csv` into a folder, each whole or not at all.

        What is not defined or infinite is null in `summary.json`, for JSON has neither; the counts beside
        the means tell which. In `cases.csv` it is nan or inf.

        Raises:
          InputError: the folder cannot be written to.
        """
        folder = make_folder(folder)
        files.write_json(folder / "summary.json", _finite(self.summary))
        with files.replacing(folder / "cases.csv") as temporary:
            temporary.write_text(_csv(self.cases), encoding="utf-8")

    def table(self) -> str:
        """Returns the scores as lines of text: a row per metric, for each region mean ± sd and median."""
        scores = self.summary["scores"]
        lines = ["".join([f"{'':22}", *(f"{region:>24}{'median':>10}" for region in scores)])]
        for metric in next(iter(scores.values()))["per_case"]:
            row = [f"{metric:22}"]
            for region in scores.values():
                described = region["per_case"][metric]
                spread = f"{_number(described['mean'])} ± {_number(described['sd'])}"
                row.append(f"{spread:>24}{_number(described['median']):>10}")
            lines.append("".join(row))
        for name in (name for name in next(iter(scores.values())) if name != "per_case"):
            lines.append(
                "".join(
                    [f"{name:22}", *(f"{_number(region[name]):>24}{'':10}" for region in scores.values())]
                )
            )
        return "\n".join(line.rstrip() for line in lines)


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes a folder for results and checks that files can be written there, before any work is done.

    Raises:
      InputError: it cannot be made, or not be written to.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: results cannot be written there ({error.strerror or error})") from None
    return folder


def _finite(value):
    """Returns ``value`` with None in the place of every number that is not finite, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
