"""Scores of a whole set of cases: from two folders of masks to tables."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tqdm

from liverjax import __version__, labels
from liverjax.errors import InputError, LiverjaxError, did_you_mean
from liverjax.scans import nifti
from liverjax.scoring import overlap, pairing, results, statistics, surface

#: What may keep a case's region from being scored as usual; the empty string where nothing does.
STATES = ("both empty", "reference empty", "prediction empty", "prediction missing", "not labelled")


class Region:
    """One region's prediction and reference, and what its metrics share, computed once and only if asked for.

    Attributes:
      overlap: voxel counts.
      voxel_ml: volume of a voxel in millilitres.
    """

    def __init__(self, prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray):
        self.overlap = overlap.count(prediction, reference)
        self.voxel_ml = float(np.prod(spacing)) / 1000

    @property
    def status(self) -> str:
        """What of the region is empty, in words; nothing if both masks have voxels."""
        empty = (self.overlap.prediction == 0, self.overlap.reference == 0)
        words = {(1, 1): "both empty", (1, 0): "prediction empty", (0, 1): "reference empty", (0, 0): ""}
        return words[empty]


#: Every per-case metric by name. Units: Dice and IoU are shares, VOE and RVD percent, volumes millilitres.
METRICS: dict[str, Callable[[Region], float]] = {
    "dice": lambda region: region.overlap.dice,
    "iou": lambda region: region.overlap.iou,
    "voe": lambda region: region.overlap.voe,
    "rvd": lambda region: region.overlap.rvd,
    "prediction_ml": lambda region: region.overlap.prediction * region.voxel_ml,
    "reference_ml": lambda region: region.overlap.reference * region.voxel_ml,
}


def evaluate(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
    processes: int = 1,
    quiet: bool = False,
) -> results.Evaluation:
    """Scores predicted masks against reference masks, in the scans' own geometry.

    Regions are those of `liverjax.labels.REGIONS`: the liver with its tumours, and the tumours. Where both masks of
    a region are empty nothing is defined: NaN, left out of means, and counted.

    Args:
      predictions: a mask file, or a folder of them, named as the cases.
      references: a mask file, a folder of them, or a data set in any known layout.
      output: folder for `summary.json` and `cases.csv`; None writes nothing.
      metrics: names out of `METRICS`.
      cases: ids of the cases to score; by default all.
      allow_missing: score a case without a prediction as if the prediction were empty, else refuse.
      processes: number of cases that are scored at the same time, each in a process of its own.
      quiet: show no progress bar.

    Raises:
      InputError: a metric of another name; masks that are missing, damaged, not of one geometry or hold other
        labels (all cases in one message); an output folder that cannot be written to.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise InputError(f"metric {metric!r} does not exist{did_you_mean(metric, METRICS)}")
    pairs = pairing.pair(predictions, references, cases, allow_missing)
    folder = results.make_folder(output) if output is not None else None
    scored = _map(_score, [(pair, tuple(metrics)) for pair in pairs], processes, quiet)
    evaluation = _summarise(pairs, [row for rows in scored for row in rows], metrics)
    if folder is not None:
        evaluation.save(folder)
    return evaluation


def _score(pair: pairing.Pair, metrics: Sequence[str]) -> list[dict]:
    """Returns the rows of one case, one per region."""
    case = pair.reference
    reference = case.read_mask()
    if pair.prediction is None:
        predicted = np.zeros_like(reference.voxels)
    else:
        prediction = nifti.read_mask(pair.prediction)
        nifti.require_same_geometry(prediction, reference)
        predicted = prediction.voxels
    box = surface.bounding_box(np.maximum(predicted, reference.voxels))
    predicted, referenced = predicted[box], reference.voxels[box]
    rows = []
    for name, ids in labels.REGIONS.items():
        region = Region(_mask(predicted, ids), _mask(referenced, ids), reference.spacing)
        status = region.status if pair.prediction else "prediction missing"
        if case.liver_only and labels.LIVER not in ids:
            region, status = Region(*np.zeros((2, 0, 0, 0), bool), reference.spacing), "not labelled"
        rows.append(
            {
                "case": case.id,
                "region": name,
                "status": status,
                **{metric: METRICS[metric](region) for metric in metrics},
                "voxels_both": region.overlap.intersection,
                "voxels_prediction": region.overlap.prediction,
                "voxels_reference": region.overlap.reference,
                "voxels_scan": reference.voxels.size,
            }
        )
    return rows


def _mask(voxels: np.ndarray, ids: Iterable[int]) -> np.ndarray:
    return np.logical_or.reduce([voxels == id for id in ids])


def _map(function: Callable, arguments: Sequence[tuple], processes: int, quiet: bool) -> list:
    """Returns ``function(*argument)`` of each, in order; the input errors of all of them are raised as one."""
    found, errors = [], []
    with contextlib.ExitStack() as stack:
        if processes > 1:
            # Not forked: the caller may have threads, JAX's above all, and a forked lock stays locked.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(processes, context))
            calls = [pool.submit(function, *argument).result for argument in arguments]
        else:
            calls = [functools.partial(function, *argument) for argument in arguments]
        for call in tqdm.tqdm(calls, desc="evaluate", unit="case", disable=quiet or None):
            try:
                found.append(call())
            except InputError as error:
                errors.append(str(error))
            except concurrent.futures.process.BrokenProcessPool:
                raise LiverjaxError(
                    f"one of the {processes} scoring processes died, perhaps for want of memory; expected fewer "
                    "(--processes)"
                ) from None
    if errors:
        raise InputError("; ".join(errors))
    return found


def _summarise(pairs: list[pairing.Pair], rows: list[dict], metrics: Sequence[str]) -> results.Evaluation:
    scores, by_label = {}, {}
    for name, ids in labels.REGIONS.items():
        of_region = [row for row in rows if row["region"] == name]
        overlaps = [_overlap(row) for row in of_region if row["status"] != "not labelled"]
        states = collections.Counter(row["status"] for row in of_region)
        scores[name] = {
            "cases": len(of_region),
            **{state.replace(" ", "_"): states[state] for state in STATES},
            "dice_per_case": overlap.dice_per_case(overlaps),
            "dice_per_case_lits": overlap.dice_per_case_lits(overlaps),
            "dice_global": overlap.dice_global(overlaps),
            "per_case": {
                metric: statistics.describe([row[metric] for row in of_region]) for metric in metrics
            },
        }
        by_label[_label_key(ids)] = [_nnunet_metrics(row) for row in of_region]

    means = {key: _mean(blocks) for key, blocks in by_label.items()}
    summary = {
        "metric_per_case": [
            {
                "case": pair.reference.id,
                "prediction_file": str(pair.prediction) if pair.prediction else None,
                "reference_file": str(pair.reference.label),
                "metrics": {key: blocks[index] for key, blocks in by_label.items()},
            }
            for index, pair in enumerate(pairs)
        ],
        "mean": means,
        "foreground_mean": _mean(list(means.values())),
        "scores": scores,
        "liverjax_version": __version__,
    }
    return results.Evaluation(summary, rows)


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
