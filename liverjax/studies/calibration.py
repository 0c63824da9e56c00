"""How far a model's probabilities are true, and temperatures and fusion weights that make them truer.

Fitted on the validation cases of a run, which chose the checkpoint but did not train: the views' temperatures
(Guo 2017) and their weights per class, both by the smallest negative log-likelihood of the reference labels.
What is gained is measured on the validation cases in turn, each left out of the fit.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.optimize
from tqdm import tqdm

from liverjax.errors import InputError
from liverjax.files import replacing
from liverjax.inference.calibration import Calibration, write_calibration
from liverjax.pretrained.load import load_model
from liverjax.studies.labelled import Voxels, labelled_cases, sample

_BINS = 15
# Weight of the squared logarithm of the fusion weights: what the data do not tell stays at 1.
_PRIOR = 1e-3
_TINY = 1e-7


def calibrate(
    workdir: str | os.PathLike, source: str | os.PathLike, *, ensemble: str | None = None, quiet: bool = False
) -> dict:
    """Fits a run's calibration, and writes ``calibration.json`` and ``calibration.png`` beside its networks.

    Args:
      workdir: folder of the run.
      source: data set with the run's validation cases and their masks.
      ensemble: another value for ``predict.ensemble``: a calibration is that of all members, or of the best alone.
      quiet: show no progress bar.

    Returns:
      The facts in ``calibration.json``: temperatures, weights, and likelihood and calibration error.

    Raises:
      InputError: the data set holds no validation case of the run, or the run is a bundle.
    """
    workdir = pathlib.Path(workdir)
    if workdir.is_file():
        raise InputError(f"{workdir}: is a file, expected the folder of a run (bundle it after calibration)")
    model = load_model(workdir).with_options(ensemble=ensemble)
    cases = labelled_cases(model, source, "validation")
    samples = [sample(model, case) for case in tqdm(cases, desc="calibrate", unit="case", disable=quiet)]
    views = [view for view in model.config.views for _ in range(model.networks.members)]
    fitted = fit(samples, views)
    # Each case by what the others teach; of a single case there is no other, and the fit itself is all there is.
    held_out = [fit([s for s in samples if s is not left] or samples, views) for left in samples]
    tables = {"mean": {}, "calibrated mean": {}, "calibrated weighted": {}}
    curves = {}
    for name in tables:
        fused = [
            fuse(left.logs, views, c if name != "mean" else Calibration(), weighted="weighted" in name)
            for left, c in zip(samples, held_out, strict=True)
        ]
        probabilities, labels = np.concatenate(fused), np.concatenate([left.labels for left in samples])
        curves[name] = reliability(probabilities, labels)
        tables[name] = {
            "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
            "expected_calibration_error": expected_calibration_error(*curves[name]),
        }
    facts = {"cases": [case.id for case in cases], "held_out": len(cases) > 1, "scores": tables}
    path = write_calibration(workdir, fitted, **facts)
    _draw(curves, path.with_suffix(".png"))
    return {"temperature": fitted.temperature, "weights": fitted.weights, **facts}


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
    total = 0
    for view, own in zip(views, logs, strict=True):
        share = _softmax(own / calibration.temperature.get(view, 1))
        total = total + share * (calibration.weights[view] if weighted else 1)
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


def _draw(curves: dict[str, tuple], path: pathlib.Path) -> None:
    """Draws accuracy against confidence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for name, (confidence, accuracy, share) in curves.items():
        error = expected_calibration_error(confidence, accuracy, share)
        axes.plot(confidence, accuracy, "o-", markersize=4, linewidth=1.2, label=f"{name}: ECE {error:.4f}")
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0.3, 1), ylim=(0.3, 1))
    axes.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
