"""How well a model's probabilities are calibrated, and temperatures and fusion weights that improve them.

Fitted on the validation cases of a run, which chose the checkpoint but did not train: the views' temperatures
(Guo 2017) and their weights per class, both by the smallest negative log-likelihood of the reference labels.
The gain is measured on each validation case with what was fitted to the others.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.optimize

from liverjax import labels as label_ids
from liverjax.datasets.layouts import Case, find_cases, natural_key
from liverjax.errors import InputError
from liverjax.inference.calibration import Calibration, write_calibration
from liverjax.inference.cascade import Cascade
from liverjax.inference.segmenter import Segmenter
from liverjax.pretrained.load import load_segmenter
from liverjax.progress import followed
from liverjax.scans import AS_STORED, Reading
from liverjax.scans.grid import to_grid
from liverjax.scoring.summary import make_folder
from liverjax.volume import Volume

_LOG = logging.getLogger("liverjax")

#: Voxels are drawn from the box around the liver with this margin, in mm: elsewhere all is air, and certain.
MARGIN = 30.0
_VOXELS_PER_CASE = 100_000
_BINS = 15
# Weight of the squared logarithm of the fusion weights: what the data do not determine stays at 1.
_PRIOR = 1e-3
_TINY = 1e-7


@dataclasses.dataclass(frozen=True)
class Voxels:
    """A sample of a case's voxels on the working grid.

    Attributes:
      logs: (members, n, C) float32, logarithm of the softmax of each view's networks, all members of a view in turn.
      labels: (n,) uint8, class of the reference.
    """

    logs: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fit:
    """A calibration, and what it gains on cases that it was not fitted to.

    Attributes:
      calibration: fitted to all cases.
      cases: ids of these.
      held_out: the scores are of cases that were left out of the fit; of a single case they cannot be.
      scores: for "mean", "calibrated mean" and "calibrated weighted", by name: "negative_log_likelihood" (nats) and
        "expected_calibration_error".
      curves: for the same ones what `reliability` returns.
    """

    calibration: Calibration
    cases: list[str]
    held_out: bool
    scores: dict[str, dict[str, float]]
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def calibrate(
    workdir: str | os.PathLike,
    source: str | os.PathLike,
    *,
    ensemble: str | None = None,
    reading: Reading = AS_STORED,
    quiet: bool = False,
) -> Fit:
    """Fits a run's calibration, and writes ``calibration.json`` beside its networks.

    Args:
      workdir: folder of the run.
      source: data set with the run's validation cases and their masks.
      ensemble: another value for ``predict.ensemble``: a calibration is that of all members, or of the best alone.
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: show no progress bar.

    Raises:
      InputError: the data set holds no validation case of the run, the run is a bundle, or its folder cannot be
        written to.
    """
    workdir = pathlib.Path(workdir)
    if workdir.is_file():
        raise InputError(f"{workdir}: is a file, expected the folder of a run (bundle it after calibration)")
    model = load_segmenter(workdir, calibrated=False).with_options(ensemble=ensemble)
    make_folder(workdir)
    cases, samples = [], []
    for case, scan, mask in labelled_scans(model, source, "validation", reading=reading, quiet=quiet):
        cases.append(case.id)
        samples.append(sample(model, scan, mask))
    views = [view for view in model.config.views for _ in range(model.networks.members)]
    fitted = fit(samples, views)
    # Each case with what was fitted to the others; a single case has none, and is scored with its own fit.
    held_out = [fit([s for s in samples if s is not left] or samples, views) for left in samples]
    scores, curves = {}, {}
    for name in ("mean", "calibrated mean", "calibrated weighted"):
        fused = [
            fuse(left.logs, views, c if name != "mean" else Calibration(), weighted="weighted" in name)
            for left, c in zip(samples, held_out, strict=True)
        ]
        probabilities, labels = np.concatenate(fused), np.concatenate([left.labels for left in samples])
        curves[name] = reliability(probabilities, labels)
        scores[name] = {
            "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
            "expected_calibration_error": expected_calibration_error(*curves[name]),
        }
    found = Fit(fitted, cases, len(cases) > 1, scores, curves)
    write_calibration(
        workdir, fitted, model.about["checkpoints"], cases=cases, held_out=found.held_out, scores=scores
    )
    return found


def labelled_scans(
    model: Segmenter | Cascade,
    source: str | os.PathLike,
    subset: str,
    *,
    reading: Reading = AS_STORED,
    quiet: bool = False,
) -> Iterator[tuple[Case, Volume, Volume]]:
    """Yields the cases of a data set that have a mask and are in a subset of the model's split: case, scan, mask.

    Cases of the subset that the data set lacks are reported by a warning.

    Args:
      model: the model.
      source: the data set.
      subset: "train", "validation" or "test".
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: show no progress bar.

    Raises:
      InputError: there are none, or a scan and its mask cannot be read or lie elsewhere.
    """
    ids = model.subset(subset)
    cases = [case for case in find_cases(source, reading=reading) if case.label and case.id in ids]
    if not cases:
        raise InputError(
            f"{source}: holds no {subset} case with a mask, expected some of the model's {len(ids)}"
        )
    if absent := sorted(set(ids) - {case.id for case in cases}, key=natural_key):
        _LOG.warning(
            "%s: %d of the %d %s cases of the model are not here with a mask, and left out: %s",
            source, len(absent), len(ids), subset, ", ".join(absent),
        )  # fmt: skip
    for case in followed(cases, subset, "case", quiet=quiet):
        yield case, *case.read_pair()


def sample(model: Segmenter, scan: Volume, mask: Volume) -> Voxels:
    """Returns voxels of a case in the box around its liver, drawn evenly, at most a fixed number.

    Raises:
      InputError: the mask holds no liver.
    """
    alone, grid = model.view_probabilities(scan)
    labels = to_grid(mask, model.config.preprocess.spacing, labels=True).voxels
    labels = np.minimum(labels, len(model.config.labels) - 1)
    if not labels.any():
        raise InputError(f"{mask.name}: holds no liver, expected one to calibrate on")
    margin = np.ceil(MARGIN / np.linalg.norm(grid.affine[:3, :3], axis=0)).astype(int)
    places = np.nonzero(labels != label_ids.BACKGROUND)
    box = tuple(slice(max(p.min() - m, 0), p.max() + m + 1) for p, m in zip(places, margin, strict=True))
    inside = labels[box].ravel()
    count = min(_VOXELS_PER_CASE, inside.size)
    chosen = np.random.default_rng(0).choice(inside.size, count, replace=False)
    shares = np.stack(
        [own[box].reshape(inside.size, -1)[chosen] for view in model.config.views for own in alone[view]]
    )
    return Voxels(np.log(np.maximum(shares, np.float32(_TINY))), inside[chosen])


def fit(samples: Sequence[Voxels], views: Sequence[str]) -> Calibration:
    """Returns the temperatures and weights of the smallest negative log-likelihood, over all samples together.

    Args:
      samples: of each case.
      views: the view of each member; the members of a view share temperature and weights.
    """
    # In float64: the optimiser takes gradients from differences.
    logs = np.concatenate([s.logs for s in samples], axis=1).astype(np.float64)
    labels = np.concatenate([s.labels for s in samples])

    names = list(dict.fromkeys(views))
    view_of = [names.index(view) for view in views]

    # Of the mean, not of each view: a mean of views that err in different places is less sure than they are.
    def loss_of_mean(log_temperature):
        shares = _softmax(logs / np.exp(log_temperature)[view_of, None, None])
        return negative_log_likelihood(shares.mean(0), labels)

    bounds = [(np.log(0.1), np.log(10))] * len(names)
    found = scipy.optimize.minimize(loss_of_mean, np.zeros(len(names)), method="L-BFGS-B", bounds=bounds)
    temperature = {view: float(np.exp(value)) for view, value in zip(names, found.x, strict=True)}
    shape = (len(names), logs.shape[-1])
    cooled = np.stack([_softmax(own / temperature[view]) for view, own in zip(views, logs, strict=True)])

    def loss(log_weights):
        total = np.einsum("vnc,vc->nc", cooled, np.exp(log_weights.reshape(shape))[view_of])
        likelihood = negative_log_likelihood(total / total.sum(-1, keepdims=True), labels)
        return likelihood + _PRIOR * np.square(log_weights).mean()

    found = scipy.optimize.minimize(
        loss, np.zeros(np.prod(shape)), method="L-BFGS-B", options={"maxiter": 50}
    )
    weights = np.exp(found.x).reshape(shape)
    by_view = {view: tuple(map(float, own)) for view, own in zip(names, weights, strict=True)}
    return Calibration(temperature, by_view, len(views) // len(names))


def fuse(logs: np.ndarray, views: Sequence[str], calibration: Calibration, *, weighted: bool) -> np.ndarray:
    """Returns the fused probabilities (n, C) of (members, n, C) logarithms, as prediction fuses them."""
    total = np.zeros(logs.shape[1:])
    for view, own in zip(views, logs, strict=True):
        share = _softmax(own / calibration.temperature.get(view, 1))
        total += share * (calibration.weights[view] if weighted else 1)
    return total / total.sum(-1, keepdims=True)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of -log p of the reference's class, in nats; (n, C) probabilities, (n,) labels."""
    own = np.take_along_axis(probabilities, labels[:, None].astype(int), 1)
    return float(-np.log(np.maximum(own, _TINY)).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of 15 bins of confidence, the largest probability: mean confidence, accuracy, share of voxels.

    Empty bins are left out.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    index = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(index, minlength=_BINS)
    used = count > 0
    sums = (np.bincount(index, weights, _BINS)[used] for weights in (confidence, right))
    mean, accuracy = (values / count[used] for values in sums)
    return mean, accuracy, count[used] / len(labels)


def expected_calibration_error(confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray) -> float:
    """Returns the mean distance of accuracy and confidence over the bins of `reliability`, by share (Guo 2017)."""
    return float((share * np.abs(accuracy - confidence)).sum())


def _softmax(logs: np.ndarray) -> np.ndarray:
    shares = np.exp(logs - logs.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)
