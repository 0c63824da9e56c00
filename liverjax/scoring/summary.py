"""The results of an evaluation: summary, rows of cases and lesions, and their files."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from liverjax import __version__, files, labels
from liverjax.errors import InputError
from liverjax.scoring import lits, lits_compat, overlap, statistics, tables
from liverjax.scoring.case import LESION_COLUMNS, STATES, CaseScores
from liverjax.scoring.metrics import is_tested
from liverjax.scoring.pairing import Pair, without_tumors
from liverjax.volume import Volume

#: Files of an evaluation in its folder; the report is written by the command.
RESULTS = ("summary.json", "cases.csv", "lesions.csv", "report.html")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of a set of predictions.

    Attributes:
      summary: what `summary.json` holds. nnU-Net's blocks: ``metric_per_case``, ``mean`` and
        ``foreground_mean``, keyed by label ids as nnU-Net does. Ours: ``scores``, per region the numbers of
        cases by state, Dice over all cases, volume agreement, and ``per_case`` with the statistics of each
        metric; ``lits`` and ``lits_compat``, the tumour tables, if tumours are scored; ``comparison`` with another
        method; ``notes``, what a reader of the scores has to know; ``pairs``, the files and how they were read.
      cases: the rows of `cases.csv`, one per case and region.
      lesions: the rows of `lesions.csv`, one per lesion.
      pairs: the files that were scored.
    """

    summary: dict
    cases: list[dict]
    lesions: list[dict]
    pairs: list[Pair]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `summary.json`, `cases.csv` and `lesions.csv` into a folder, each atomically.

        JSON has neither NaN nor infinity: both are null in `summary.json`, and the counts beside the means tell them
        apart. The tables have nan and inf. An id that a spreadsheet would take for a formula is written as `cell` says.

        Raises:
          InputError: as `results_folder`.
        """
        folder = results_folder(folder)
        files.write_json(folder / "summary.json", _finite(self.summary))
        for name, rows, columns in (
            ("cases.csv", self.cases, list(self.cases[0])),
            ("lesions.csv", self.lesions, LESION_COLUMNS),
        ):
            files.write_csv(folder / name, ({**row, "case": cell(row["case"])} for row in rows), columns)

    def read(self, case: str) -> tuple[Volume, np.ndarray, np.ndarray]:
        """Reads the files of a case.

        Returns:
          The scan (the first of its phases; 0 everywhere if only masks are known, or if it cannot be read, which is no
          reason to lose the scores), and the (x, y, z) label ids of the prediction (0 everywhere
          if it is missing) and of the reference.
        """
        (pair,) = (pair for pair in self.pairs if pair.reference.id == case)
        mask = pair.reference.read_mask()
        nothing = np.zeros_like(mask.voxels)
        scan = mask.with_voxels(nothing)
        if pair.reference.image != pair.reference.label:
            reading = pair.reference.reading
            phase = 0 if reading.phase is None else reading.phase
            with contextlib.suppress(InputError):
                scan = dataclasses.replace(reading, phase=phase).read(pair.reference.image)
        prediction = pair.read_prediction()
        return scan, prediction.voxels if prediction else nothing, mask.voxels

    def report_rows(self) -> dict:
        """Returns what `report.evaluation_report` takes beside the file and its title."""
        metrics = list(next(iter(self.summary["scores"].values()))["per_case"])
        return {
            "tables": self.tables(),
            "cases": self.cases,
            "lesions": self.lesions,
            "read": self.read,
            "names": {column: tables.heading(column) for column in self.cases[0]},
            "meanings": tables.meanings(metrics),
            "facts": self._facts(),
            "notes": self.summary["notes"],
        }

    def _facts(self) -> dict[str, str]:
        """Returns where the scores come from: folders, number of cases, and the model as the masks' manifest states."""
        references = sorted({str(pair.reference.label.parent) for pair in self.pairs if pair.reference.label})
        folders = sorted({pair.prediction.parent for pair in self.pairs if pair.prediction})
        facts = {}
        for folder in folders:
            # Masks of other tools have none, or one that says nothing of a model.
            with contextlib.suppress(FileNotFoundError, InputError, KeyError, TypeError):
                manifest = files.read_json(folder / "manifest.json")
                version = manifest["versions"]["liverjax"]
                facts["Model"] = f"{manifest['model']}, predicted by liverjax {version}"
        several = len({pair.reference.id for pair in self.pairs})
        return {
            **facts,
            "Predictions": ", ".join(map(str, folders)),
            "References": f"{', '.join(references)} ({several} {'case' if several == 1 else 'cases'})",
        }

    def tables(self) -> dict[str, list[dict[str, str]]]:
        """Returns the tables of the summary by title, as rows of text."""
        return tables.of_summary(self.summary)

    def table(self) -> str:
        """Returns the tables of the summary as lines of text, for a terminal."""
        found = [f"{title}\n{tables.aligned(rows)}" for title, rows in self.tables().items()]
        return "\n\n".join([*found, *self.summary["notes"]])


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes a folder for results and checks that files can be written there, before any work is done.

    Raises:
      InputError: it cannot be made, or not be written to.
    """
    folder = files.local_path(path, "the output")
    try:
        files.make_folder(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: results cannot be written there ({error.strerror or error})") from None
    return folder


def results_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes the folder of an evaluation, as `make_folder`, unless it holds files of the same names of somebody else.

    Raises:
      InputError: it does, or as `make_folder`.
    """
    folder = make_folder(path)
    there = [name for name in RESULTS if (folder / name).exists()]
    if there and not _is_ours(folder / "summary.json"):
        raise InputError(
            f"{folder}: holds {' and '.join(there)} of another program, expected a folder without; choose another one"
        )
    return folder


def scored_files(folder: str | os.PathLike) -> list[tuple[Pair, dict[str, float]]]:
    """Returns what an evaluation scored: each pair with the Dice of its regions, as far as it is defined.

    Args:
      folder: that `Evaluation.save` wrote.

    Raises:
      InputError: it holds no evaluation, or that of a version which recorded no scans.
    """
    path = pathlib.Path(folder) / "summary.json"
    facts = files.read_json(path)
    if not (isinstance(facts, dict) and "liverjax_version" in facts):
        raise InputError(f"{path}: no evaluation of `liverjax evaluate`, expected its folder")
    if "pairs" not in facts:
        raise InputError(
            f"{path}: the version of liverjax that wrote it recorded no scans, expected one that does; run the same "
            "`liverjax evaluate` again"
        )
    keys = {_label_key(ids): name for name, ids in labels.REGIONS.items()}
    found = []
    try:
        for recorded, scored in zip(facts["pairs"], facts["metric_per_case"], strict=True):
            dice = {keys[key]: block["Dice"] for key, block in scored["metrics"].items()}
            found.append((Pair.recorded(recorded), {name: d for name, d in dice.items() if d is not None}))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: its records of the cases are damaged ({error!r}), expected an evaluation"
        ) from None
    return found


def _is_ours(path: pathlib.Path) -> bool:
    try:
        return "liverjax_version" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def cell(id: str) -> str:
    """Returns a case id as the CSV files have it.

    An apostrophe goes before what a spreadsheet would run as a formula (``=``, ``+``, ``-`` or ``@`` at its beginning),
    and before another apostrophe, so that ``removeprefix("'")`` gives every id back.
    """
    return f"'{id}" if id.startswith(("=", "+", "-", "@", "'")) else id


def scored_regions(scores: Sequence[CaseScores], pairs: Sequence[Pair] = ()) -> tuple[list[str], list[str]]:
    """Returns the regions that are worth a score, of all that were scored, and what has to be noted of the others.

    The liver always is; the tumours if a mask of a case in which they are labelled holds one: over masks without any,
    a table of them would be 0 or 1 by convention. Nor are they if the model that predicted, which ``pairs`` name, knows
    none.
    """
    rows = [row for score in scores for row in score.regions if row["region"] == "tumor"]
    if not any(row["voxels_prediction"] or row["voxels_reference"] for row in rows):
        why = "are labelled in no case" if _all_unlabelled(rows) else "are in no mask"
        return ["liver"], [f"tumours {why}, and not scored (--regions=liver,tumor scores them)"]
    if not any(row["voxels_prediction"] for row in rows):
        if without_tumors(pairs):
            return ["liver"], [
                "the model that predicted knows no tumours: they are not scored (--regions=liver,tumor scores them)"
            ]
        return list(labels.REGIONS), [
            "no prediction holds a tumour; if the model does not know them, --regions=liver leaves them out"
        ]
    return list(labels.REGIONS), []


def _all_unlabelled(rows: Sequence[dict]) -> bool:
    return all(row["state"] == "not labelled" for row in rows)


def collect(
    pairs: list[Pair],
    scores: list[CaseScores],
    metrics: Sequence[str],
    regions: Sequence[str] = tuple(labels.REGIONS),
    notes: Sequence[str] = (),
) -> Evaluation:
    """Returns the evaluation of a set from the scores of its cases, of these regions."""
    rows = [row for score in scores for row in score.regions if row["region"] in regions]
    by_label = {_label_key(labels.REGIONS[name]): _rows_of(rows, name) for name in regions}
    means = {key: _mean([_nnunet_metrics(row) for row in of_region]) for key, of_region in by_label.items()}
    summary = {
        "metric_per_case": [
            {
                "case": pair.reference.id,
                "prediction_file": str(pair.prediction) if pair.prediction else None,
                "reference_file": str(pair.reference.label),
                "metrics": {key: _nnunet_metrics(of_region[i]) for key, of_region in by_label.items()},
            }
            for i, pair in enumerate(pairs)
        ],
        "mean": means,
        "foreground_mean": _mean(list(means.values())),
        "scores": {name: _region_scores(_rows_of(rows, name), metrics) for name in regions},
        "notes": list(notes),
        "pairs": [pair.record() for pair in pairs],
        "liverjax_version": __version__,
    }
    if "tumor" not in regions:
        return Evaluation(summary, rows, [], pairs)
    summary["lits"] = lits.table([score.lits for score in scores if score.lits])
    summary["lits_compat"] = lits_compat.table([score.lits_compat for score in scores if score.lits])
    return Evaluation(summary, rows, [row for score in scores for row in score.lesions], pairs)


def comparison(
    other: str,
    rows: list[dict],
    other_rows: list[dict],
    metrics: Sequence[str],
    primary: str,
    regions: Sequence[str] = tuple(labels.REGIONS),
) -> dict:
    """Returns the paired tests of each region and metric, of these predictions against the other ones.

    Metrics of one mask are nearly one test under many names, so one of them is named beforehand: the p-values of the
    primary metric are adjusted for the number of regions (``p_*_holm``); the other metrics have none. Volumes are not
    tested.
    """
    tested = [name for name in metrics if is_tested(name)]
    tests = {
        (region, name): statistics.compare(
            *([row[name] for row in _rows_of(method, region)] for method in (rows, other_rows))
        )
        for region in regions
        for name in tested
    }
    for p_value in ("p_wilcoxon", "p_permutation"):
        adjusted = statistics.holm([tests[region, primary][p_value] for region in regions])
        for region, value in zip(regions, adjusted, strict=True):
            tests[region, primary][f"{p_value}_holm"] = value
    return {
        "other": other,
        "primary": primary,
        **{region: {name: tests[region, name] for name in tested} for region in regions},
    }


def _region_scores(rows: list[dict], metrics: Sequence[str]) -> dict:
    states = collections.Counter(row["state"] for row in rows)
    overlaps = [_overlap(row) for row in rows if row["state"] != "not labelled"]
    volumes = [
        [row[f"{side}_ml"] for row in rows] for side in ("prediction", "reference") if f"{side}_ml" in metrics
    ]
    return {
        "cases": len(rows),
        **{state.replace(" ", "_"): states[state] for state in STATES},
        "dice_per_case": overlap.dice_per_case(overlaps),
        "dice_per_case_lits": overlap.dice_per_case_lits(overlaps),
        "dice_global": overlap.dice_global(overlaps),
        "volume_agreement": statistics.agreement(*volumes) if len(volumes) == 2 else None,
        "per_case": {name: _statistics([row[name] for row in rows]) for name in metrics},
    }


def _statistics(values: list[float]) -> dict[str, float]:
    low, high = statistics.confidence_interval(values)
    return {**statistics.describe(values), "ci_low": low, "ci_high": high}


def _rows_of(rows: list[dict], region: str) -> list[dict]:
    return [row for row in rows if row["region"] == region]


def _overlap(row: dict) -> overlap.Overlap:
    return overlap.Overlap(row["voxels_both"], row["voxels_prediction"], row["voxels_reference"])


def _label_key(ids: tuple[int, ...]) -> str:
    """Returns the key that nnU-Net gives a label or region in its `summary.json`: "2" or "(1, 2)"."""
    return str(ids[0]) if len(ids) == 1 else str(ids)


def _nnunet_metrics(row: dict) -> dict[str, float]:
    """Returns the block of one case and region in nnU-Net's `summary.json`."""
    counted = _overlap(row)
    return {
        "Dice": counted.dice,
        "IoU": counted.iou,
        "TP": counted.intersection,
        "FP": counted.prediction - counted.intersection,
        "FN": counted.reference - counted.intersection,
        "TN": row["voxels_scan"] - counted.union,
        "n_pred": counted.prediction,
        "n_ref": counted.reference,
    }


def _mean(blocks: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.describe([block[key] for block in blocks])["mean"] for key in blocks[0]}


def _finite(value):
    """Returns ``value`` with None in the place of every number that is not finite, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
