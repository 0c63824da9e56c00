"""The table of an ablation: each variant's scores, and their difference to the baseline over the same patients.

The unit is the patient: a case's score is averaged over seeds first, then over the cases of a patient. Intervals are
bootstrapped over patients, the tests are paired by patient, and p-values are adjusted for the number of variants
(see `liverjax.scoring.statistics`). Seeds are no independent patients, and add none.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from liverjax import files
from liverjax.errors import InputError
from liverjax.experiments.plan import Sweep, Trial
from liverjax.scoring import statistics, tables

#: Metrics of which less is worse. Of all others (distances, errors) the value further from 0 is.
_MORE_IS_BETTER = re.compile("dice|iou|miccai|nsd_.*")

#: Region and case -> score of one trial.
Scores = Mapping[tuple[str, str], float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an ablation found.

    Attributes:
      metric: what the metric is called, with its unit.
      rows: a row per region and variant, as `compare` says.
      scores: region -> variant -> patient -> score, mean over seeds and the patient's cases; NaN where not defined.
      trials: a row per trial: variant, fold, seed, whether it is scored, folder of its masks in the work folder.
    """

    metric: str
    rows: list[dict[str, Any]]
    scores: dict[str, dict[str, dict[str, float]]]
    trials: list[dict[str, Any]]

    def tables(self) -> dict[str, list[dict[str, str]]]:
        """Returns the table of each region by title, as rows of text."""
        found = {}
        for region in self.scores:
            baseline, *others = (row for row in self.rows if row["region"] == region)
            rows = [_formatted(baseline, baseline=True), *map(_formatted, others)]
            found[f"{self.metric} of the {region}"] = rows
        return found

    def text(self) -> str:
        """Returns the tables as lines of text, for a terminal."""
        return "\n\n".join(f"{title}\n{tables.aligned(rows)}" for title, rows in self.tables().items())

    def save(self, folder: pathlib.Path) -> None:
        """Writes ``table.csv``, ``table.md`` and ``trials.csv`` into a folder, each atomically."""
        sections = [f"### {title}\n\n{_markdown(rows)}" for title, rows in self.tables().items()]
        files.write_csv(folder / "table.csv", self.rows, list(self.rows[0]))
        files.write_csv(folder / "trials.csv", self.trials, list(self.trials[0]))
        with files.replacing(folder / "table.md") as temporary:
            temporary.write_text("\n".join(sections), encoding="utf-8")


def compare(sweep: Sweep, *, seed: int = 0) -> Comparison:
    """Returns the table of what has been scored so far.

    Args:
      sweep: as planned.
      seed: of bootstrap and permutation test.

    Returns:
      Rows with: region, variant; trials, the number that are scored; patients, those with a defined score; mean,
      ci_low, ci_high, the mean over patients and its 95 % bootstrap interval; worst and worst_patient; seed_sd, the
      standard deviation over seeds of the mean over cases; and against the baseline, over the patients that both have:
      pairs, difference, difference_low, difference_high, p_wilcoxon, p_permutation, p_holm (the latter, after Holm).

    Raises:
      InputError: no trial of the baseline is scored.
    """
    scored = {
        trial: read_scores(trial, sweep.metric)
        for trial in sweep.trials
        if (trial.scores / "cases.csv").exists()
    }
    if not any(trial.variant == sweep.variants[0] for trial in scored):
        raise InputError(
            f"{sweep.folder}: no trial of the baseline {sweep.variants[0]!r} is scored, expected one or more"
        )
    regions = ["liver"]
    if all("tumor" in trial.config.labels for trial in sweep.trials):
        regions.append("tumor")
    scores = {
        region: {variant: _by_patient(sweep, scored, variant, region) for variant in sweep.variants}
        for region in regions
    }
    rows = []
    for region in regions:
        baseline = scores[region][sweep.variants[0]]
        of_region = [
            {
                "region": region,
                "variant": variant,
                "trials": sum(trial.variant == variant for trial in scored),
                **_summary(own, sweep.metric, seed),
                "seed_sd": _seed_sd(scored, variant, region),
                **_difference(own, baseline, seed),
            }
            for variant, own in scores[region].items()
        ]
        of_region[0] |= dict.fromkeys(("p_wilcoxon", "p_permutation"), math.nan)
        adjusted = statistics.holm([row["p_permutation"] for row in of_region])
        rows += [row | {"p_holm": p} for row, p in zip(of_region, adjusted, strict=True)]
    trials = [
        {
            "variant": trial.variant,
            "fold": trial.fold,
            "seed": trial.seed,
            "scored": trial in scored,
            "masks": str(trial.masks.relative_to(sweep.workdir)),
        }
        for trial in sweep.trials
    ]
    return Comparison(tables.name(sweep.metric), rows, scores, trials)


def read_scores(trial: Trial, metric: str) -> Scores:
    """Returns the scores of a trial by region and case."""
    with open(trial.scores / "cases.csv", encoding="utf-8", newline="") as file:
        # An apostrophe before an id is none of it; see `scoring.summary.cell`.
        return {
            (row["region"], row["case"].removeprefix("'")): float(row[metric]) for row in csv.DictReader(file)
        }


def _by_patient(sweep: Sweep, scored: Mapping[Trial, Scores], variant: str, region: str) -> dict[str, float]:
    by_case = collections.defaultdict(list)
    for trial, scores in scored.items():
        if trial.variant == variant:
            for (of, case), value in scores.items():
                if of == region:
                    by_case[case].append(value)
    by_patient = collections.defaultdict(list)
    for case, values in by_case.items():
        by_patient[sweep.patients[case]].append(_mean(values))
    return {patient: _mean(values) for patient, values in by_patient.items()}


def _summary(own: Mapping[str, float], metric: str, seed: int) -> dict[str, Any]:
    defined = {patient: value for patient, value in own.items() if not math.isnan(value)}
    sign = -1 if _MORE_IS_BETTER.fullmatch(metric) else 1
    worst = max(defined, key=lambda patient: sign * abs(defined[patient]), default="")
    low, high = statistics.confidence_interval(list(defined.values()), seed=seed)
    return {
        "patients": len(defined),
        "mean": _mean(list(defined.values())),
        "ci_low": low,
        "ci_high": high,
        "worst": defined.get(worst, math.nan),
        "worst_patient": worst,
    }


def _difference(own: Mapping[str, float], baseline: Mapping[str, float], seed: int) -> dict[str, Any]:
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


def _seed_sd(scored: Mapping[Trial, Scores], variant: str, region: str) -> float:
    by_seed = collections.defaultdict(list)
    for trial, scores in scored.items():
        if trial.variant == variant:
            by_seed[trial.seed] += [value for (of, _), value in scores.items() if of == region]
    return statistics.describe([_mean(values) for values in by_seed.values()])["sd"]


def _mean(values: Sequence[float]) -> float:
    """Returns the mean of the defined values; NaN where there are none."""
    return statistics.describe(values)["mean"]


def _formatted(row: dict[str, Any], baseline: bool = False) -> dict[str, str]:
    interval = {"ci_low": row["difference_low"], "ci_high": row["difference_high"]}
    difference = "-" if math.isnan(row["difference"]) else f"{row['difference']:+.3f}"
    return {
        "variant": row["variant"],
        "mean": tables.number(row["mean"]),
        "95 % interval": tables.interval(row),
        "worst": f"{tables.number(row['worst'])} ({row['worst_patient']})",
        "sd of seeds": tables.number(row["seed_sd"]),
        "difference": "baseline" if baseline else difference,
        "95 % interval ": "" if baseline else tables.interval(interval),
        "p": "" if baseline else tables.p_value(row["p_permutation"]),
        "(Holm)": "" if baseline else tables.p_value(row["p_holm"]),
        "patients": str(row["patients"]),
        "trials": str(row["trials"]),
    }


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    cells = ([cell.replace("|", "/").strip() for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
