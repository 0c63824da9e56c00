"""The table of an ablation: each variant's Dice, and its difference to the baseline over the same patients.

The unit is the patient: a case's Dice is averaged over seeds first, then over the cases of a patient. Intervals are
bootstrapped over patients, the tests are paired by patient, and p-values are adjusted for the number of variants
(see `liverjax.scoring.statistics`). Seeds are no independent patients, and add none.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import math
import pathlib

import numpy as np

from liverjax import files
from liverjax.errors import InputError
from liverjax.experiments.plan import Run, Study
from liverjax.scoring import statistics, tables


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an ablation found.

    Attributes:
      rows: a row per region and variant, as `compare` says.
      dice: region -> variant -> patient -> Dice, mean over seeds and the patient's cases; NaN where not defined.
      runs: a row per run: variant, fold, seed, whether it is scored, folder of its masks within that of its training.
    """

    rows: list[dict]
    dice: dict[str, dict[str, dict[str, float]]]
    runs: list[dict]

    def tables(self) -> dict[str, list[dict[str, str]]]:
        """Returns the table of each region by title, as rows of text."""
        return {
            f"Dice of the {region}": [_formatted(row) for row in self.rows if row["region"] == region]
            for region in self.dice
        }

    def text(self) -> str:
        """Returns the tables as lines of text, for a terminal."""
        return "\n\n".join(f"{title}\n{tables.aligned(rows)}" for title, rows in self.tables().items())

    def save(self, folder: pathlib.Path) -> None:
        """Writes ``table.csv``, ``table.md`` and ``runs.csv`` into a folder, each whole or not at all."""
        parts = [f"### {title}\n\n{_markdown(rows)}" for title, rows in self.tables().items()]
        texts = {"table.csv": _csv(self.rows), "runs.csv": _csv(self.runs), "table.md": "\n".join(parts)}
        for name, text in texts.items():
            with files.replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def compare(study: Study, *, seed: int = 0) -> Comparison:
    """Returns the table of what has been scored so far.

    Args:
      study: as planned.
      seed: of bootstrap and permutation test.

    Returns:
      Rows with: region, variant; runs, the number that are scored; patients, those with a defined Dice; mean, ci_low,
      ci_high, the mean over patients and its 95 % bootstrap interval; worst and worst_patient; seed_sd, the standard
      deviation over seeds of the mean over cases; and against the baseline, over the patients that both have: pairs,
      difference, difference_low, difference_high, p_wilcoxon, p_permutation, p_holm (the latter, after Holm).

    Raises:
      InputError: no run of the baseline is scored.
    """
    scored = {run: _read_dice(run) for run in study.runs if (run.scores / "cases.csv").exists()}
    if not any(run.variant == study.variants[0] for run in scored):
        raise InputError(
            f"{study.folder}: no run of the baseline {study.variants[0]!r} is scored, expected one or more"
        )
    regions = ["liver"]
    if all("tumor" in run.config.labels for run in study.runs):
        regions.append("tumor")
    dice = {
        region: {variant: _by_patient(study, scored, variant, region) for variant in study.variants}
        for region in regions
    }
    rows = []
    for region in regions:
        baseline = dice[region][study.variants[0]]
        of_region = [
            {
                "region": region,
                "variant": variant,
                "runs": sum(run.variant == variant for run in scored),
                **_scores(own, seed),
                "seed_sd": _seed_sd(scored, variant, region),
                **_difference(own, baseline, seed),
            }
            for variant, own in dice[region].items()
        ]
        of_region[0] |= dict.fromkeys(("p_wilcoxon", "p_permutation"), math.nan)
        adjusted = statistics.holm([row["p_permutation"] for row in of_region])
        rows += [row | {"p_holm": p} for row, p in zip(of_region, adjusted, strict=True)]
    runs = [
        {
            "variant": run.variant,
            "fold": run.fold,
            "seed": run.seed,
            "scored": run in scored,
            "masks": str(run.masks.relative_to(study.workdir)),
        }
        for run in study.runs
    ]
    return Comparison(rows, dice, runs)


def _read_dice(run: Run) -> dict[tuple[str, str], float]:
    """Returns the Dice of each region and case of a scored run."""
    with open(run.scores / "cases.csv", encoding="utf-8", newline="") as file:
        return {(row["region"], row["case"]): float(row["dice"]) for row in csv.DictReader(file)}


def _by_patient(study: Study, scored: dict, variant: str, region: str) -> dict[str, float]:
    by_case = collections.defaultdict(list)
    for run, dice in scored.items():
        if run.variant == variant:
            for (of, case), value in dice.items():
                if of == region:
                    by_case[case].append(value)
    by_patient = collections.defaultdict(list)
    for case, values in by_case.items():
        by_patient[study.patients[case]].append(_mean(values))
    return {patient: _mean(values) for patient, values in by_patient.items()}


def _scores(own: dict[str, float], seed: int) -> dict:
    defined = {patient: value for patient, value in own.items() if not math.isnan(value)}
    worst = min(defined, key=defined.get, default="")
    low, high = statistics.confidence_interval(list(defined.values()), seed=seed)
    return {
        "patients": len(defined),
        "mean": _mean(list(defined.values())),
        "ci_low": low,
        "ci_high": high,
        "worst": defined.get(worst, math.nan),
        "worst_patient": worst,
    }


def _difference(own: dict[str, float], baseline: dict[str, float], seed: int) -> dict:
    both = [patient for patient in own if patient in baseline]
    test = statistics.compare([own[p] for p in both], [baseline[p] for p in both], seed=seed)
    return {
        "pairs": test["n"],
        "difference": test["mean_difference"],
        "difference_low": test["ci_low"],
        "difference_high": test["ci_high"],
        "p_wilcoxon": test["p_wilcoxon"],
        "p_permutation": test["p_permutation"],
    }


def _seed_sd(scored: dict, variant: str, region: str) -> float:
    by_seed = collections.defaultdict(list)
    for run, dice in scored.items():
        if run.variant == variant:
            by_seed[run.seed] += [value for (of, _), value in dice.items() if of == region]
    means = [_mean(values) for values in by_seed.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


def _mean(values: list[float]) -> float:
    """Returns the mean of the defined values; NaN where there are none."""
    return statistics.describe(values)["mean"]


def _formatted(row: dict) -> dict[str, str]:
    difference = {"ci_low": row["difference_low"], "ci_high": row["difference_high"]}
    compared = not math.isnan(row["p_permutation"])
    return {
        "variant": row["variant"],
        "mean": tables.number(row["mean"]),
        "95 % interval": tables.interval(row),
        "worst": f"{tables.number(row['worst'])} ({row['worst_patient']})",
        "sd of seeds": tables.number(row["seed_sd"]),
        "difference": f"{row['difference']:+.3f}" if compared else "baseline",
        "95 % interval ": tables.interval(difference) if compared else "",
        "p": tables.p_value(row["p_permutation"]) if compared else "",
        "(Holm)": tables.p_value(row["p_holm"]) if compared else "",
        "patients": str(row["patients"]),
        "runs": str(row["runs"]),
    }


def _markdown(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    cells = ([cell.replace("|", "/").strip() for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
