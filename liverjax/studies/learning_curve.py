"""How many cases are enough: scores of held-out patients against the number of training patients.

The subsets are nested: of one seed, the patients of a smaller size are among those of a larger one
(`data.splits.split_cases`). All sizes, seeds and folds are trials of a sweep, with its folders, locks and SLURM jobs.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from liverjax import __version__, files
from liverjax.config import to_dict
from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError
from liverjax.experiments.ablation import Ablation
from liverjax.experiments.comparison import read_scores
from liverjax.experiments.plan import Sweep, plan_sweep, training_patients
from liverjax.options import Config
from liverjax.scoring import statistics, tables
from liverjax.scoring.summary import cell
from liverjax.studies.curve_fit import FEWEST_SIZES, REACH, CurveFit, fit_curve
from liverjax.studies.observers_tables import USE, finite

_NAME = "learning_curve"


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a learning curve shows of one region.

    Attributes:
      region: "liver" or "tumor".
      metric: what was scored.
      rows: a row per size: patients that train, patients tested, seeds, mean, and its 95 % interval over patients.
      patients: a row per test patient: score at each size, mean over seeds, and the gain from the smallest to the
        largest.
      fit: of the laws; None if the curve is too short.
      needed: a row per target: score, patients needed, range, and what can be said in words.
      notes: what a reader should know.
    """

    region: str
    metric: str
    rows: list[dict[str, Any]]
    patients: list[dict[str, Any]]
    fit: CurveFit | None
    needed: list[dict[str, Any]]
    notes: list[str]

    def text(self) -> str:
        """Returns the curve as lines of text, for a terminal."""
        shown = [
            {
                self.region: f"{row['size']} patients",
                tables.name(self.metric): tables.number(row["mean"]),
                "95 % interval": tables.interval(row),
                "tested": str(row["patients"]),
                "seeds": str(row["seeds"]),
            }
            for row in self.rows
        ]
        return "\n".join([tables.aligned(shown), *(row["text"] for row in self.needed), *self.notes])


def plan_curve(
    spec: str,
    dataset: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    sizes: Sequence[int],
    seeds: int = 3,
    folds: Sequence[int | str] = (),
    equal: Literal["steps", "epochs"] = "steps",
    metric: str = "dice",
    overrides: Sequence[str] = (),
) -> Sweep:
    """Returns what a learning curve runs, as `experiments.plan_sweep`; nothing is started.

    Args:
      spec: the config.
      dataset: folder of scans and masks.
      workdir: folder for everything.
      sizes: numbers of training patients.
      seeds: number of seeds, from the config's own upwards; each draws other patients.
      folds: the folds of which the test patients are scored.
      equal: each size trains equally many steps, or as many epochs as the largest does in the config's steps.
      metric: a score of at most 1, more being better: dice, iou, or nsd at a tolerance.
      overrides: other values of fields.

    Raises:
      ConfigError: sizes that are none, or more than there are training patients; another metric; a config whose
        trainings end at other steps.
      InputError: as `plan_sweep`.
    """
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            f"sizes are {list(sizes)}, expected numbers of training patients, as --sizes=2,4,8,16"
        )
    if not re.fullmatch(r"dice|iou|nsd_.*", metric):
        raise ConfigError(
            f"metric is {metric!r}, expected dice, iou or nsd_2mm: the laws are those of scores up to 1"
        )
    numbers = sorted(set(sizes), reverse=True)
    cases = find_cases(dataset, labelled=True)

    def vary(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
        for field, value in (("max_minutes", config.max_minutes), ("train.patience", config.train.patience)):
            if value:
                raise ConfigError(
                    f"{field} is {value}, by which the sizes would not train equal {equal}; expected "
                    f"--config.{field}=0"
                )
        there = training_patients(cases, config)
        if numbers[0] > there:
            fitting = sorted({size for size in numbers if size <= there} | {there})
            raise ConfigError(
                f"sizes go up to {numbers[0]}, but of fold {config.split.fold} only {there} patients train; expected "
                f"--sizes={','.join(map(str, fitting))}"
            )
        for size in numbers:
            # Half a patient less, so that rounding up gives the size whatever the division rounds to.
            share = 1.0 if size == there else (size - 0.5) / there
            changes = [f"split.train_share={share!r}"]
            if equal == "epochs":
                changes.append(f"train.steps={max(1, round(config.train.steps * size / numbers[0]))}")
            yield f"{size} patients", tuple(changes)

    about = f"Score against the number of training patients, with equal {equal}."
    varied = Ablation(_NAME, about, pathlib.Path(__file__), vary)
    settings = {"seeds": seeds, "folds": folds, "metric": metric, "overrides": overrides}
    return plan_sweep(varied, spec, dataset, workdir, **settings)


def read_curves(sweep: Sweep, targets: Sequence[float] = (0.9, 0.95), *, seed: int = 0) -> list[Curve]:
    """Returns the curve of each region that was learnt, of what has been scored so far.

    Only test patients that have a score at every size and seed are used, so that all sizes have the same.
    """
    regions = ["liver"] + ["tumor"] * all("tumor" in trial.config.labels for trial in sweep.trials)
    scored = {t: read_scores(t, sweep.metric) for t in sweep.trials if (t.scores / "cases.csv").exists()}
    left = len(sweep.trials) - len(scored)
    return [_curve(sweep, scored, left, region, targets, seed) for region in regions]


def _curve(sweep: Sweep, scored, left: int, region: str, targets: Sequence[float], seed: int) -> Curve:
    values: dict[tuple[int, int], dict[str, list[float]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for trial, scores in scored.items():
        of = values[int(trial.variant.split()[0]), trial.seed]
        for (name, case), value in scores.items():
            if name == region:
                of[sweep.patients[case]].append(value)
    sizes = sorted(int(variant.split()[0]) for variant in sweep.variants)
    seeds = sorted({trial.seed for trial in sweep.trials})
    tested = sorted({sweep.patients[case] for trial in sweep.trials for case in trial.test})
    table = np.full((len(sizes), len(seeds), len(tested)), math.nan)
    for (i, size), (j, number) in itertools.product(enumerate(sizes), enumerate(seeds)):
        for k, patient in enumerate(tested):
            table[i, j, k] = statistics.describe(values[size, number].get(patient, []))["mean"]
    complete: np.ndarray = np.asarray(np.isfinite(table).all(axis=(0, 1)))
    notes = [f"Test patients: {int(complete.sum())}; seeds: {len(seeds)}; sizes: {len(sizes)}."]
    if left:
        notes.append(
            f"NOT COMPLETE: {left} of {len(sweep.trials)} trials are not scored; the same command goes on."
        )
    elif not complete.all():
        lacking = [patient for patient, whole in zip(tested, complete, strict=True) if not whole]
        notes.append(f"left out, without a score at some size and seed: {', '.join(lacking)}.")
    table, tested = table[:, :, complete], [p for p, whole in zip(tested, complete, strict=True) if whole]
    rows = []
    for size, scores in zip(sizes, table, strict=True):
        low, high = (
            statistics.confidence_interval(scores.mean(0), seed=seed) if tested else (math.nan, math.nan)
        )
        mean = float(scores.mean()) if tested else math.nan
        counts = {"patients": len(tested), "seeds": len(seeds)}
        rows.append({"size": size, **counts, "mean": mean, "ci_low": low, "ci_high": high})
    fit = fit_curve(np.array(sizes), table, seed=seed)
    patients = [
        {"patient": patient, **{f"score_{size}": float(s) for size, s in zip(sizes, own, strict=True)}}
        | {"gain": float(own[-1] - own[0])}
        for patient, own in zip(tested, table.mean(1).T, strict=True)
    ]
    patients.sort(key=lambda row: -row["gain"])
    metric = tables.name(sweep.metric)
    return Curve(
        region, sweep.metric, rows, patients, fit, [_needed(fit, target, metric) for target in targets], notes
    )


def _needed(fit: CurveFit | None, target: float, metric: str) -> dict[str, Any]:
    what = f"patients needed for {metric} {target:g}: "
    if fit is None:
        reason = f"cannot be said from this; {FEWEST_SIZES} sizes, 2 seeds and 3 test patients are the least."
        none = {"patients": math.nan, "low": math.nan, "high": math.nan}
        return {"score": target, **none, "text": what + reason}
    found = fit.needed(target)
    if found.said:
        text = f"{found.patients:.0f} (95 % range {math.floor(found.low)} to {math.ceil(found.high)}, {fit.law})."
    else:
        limit = REACH * float(fit.sizes.max())
        text = (
            f"cannot be said from this; {math.floor(found.low)} or more: draws of the curve reach it only beyond "
            f"{limit:.0f} patients ({REACH:g} times the largest size), or never."
        )
    values = {"patients": found.patients, "low": found.low, "high": found.high}
    return {"score": target, **values, "text": what + text}


def report_rows(curve: Curve) -> dict[str, Any]:
    """Returns what `report.learning_curve_report` takes of a region; the law up to twice the largest size."""
    at = np.geomspace(curve.rows[0]["size"], 2 * curve.rows[-1]["size"], 60)
    fit = None if curve.fit is None else (at, curve.fit.predict(at))
    return {
        "rows": curve.rows,
        "patients": curve.patients,
        "fit": fit,
        "needed": curve.needed,
        "notes": curve.notes,
    }


def save(sweep: Sweep, found: Sequence[Curve]) -> pathlib.Path:
    """Writes ``curve.csv``, ``patients.csv``, ``needed.csv`` and ``curve.json`` into the sweep's folder, atomically."""
    folder = sweep.folder
    for name, attribute in (("curve", "rows"), ("patients", "patients"), ("needed", "needed")):
        rows = [{"region": curve.region, **row} for curve in found for row in getattr(curve, attribute)]
        if rows:
            safe = [{k: cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
            files.write_csv(folder / f"{name}.csv", safe, list(rows[0]))
    curves = [
        {
            "region": curve.region,
            "rows": curve.rows,
            "needed": curve.needed,
            "notes": curve.notes,
            "law": curve.fit.law if curve.fit else None,
            "aicc": curve.fit.aicc if curve.fit else None,
            "plateau": curve.fit.plateau if curve.fit else None,
        }
        for curve in found
    ]
    facts = {"use": USE, "liverjax_version": __version__, "metric": sweep.metric, "data": sweep.fingerprint}
    config = {**to_dict(sweep.base), "overrides": list(sweep.overrides)}
    files.write_json(folder / "curve.json", finite({**facts, "config": config, "curves": curves}))
    return folder
