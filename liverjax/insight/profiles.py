"""What holds of a model over many scans, put together for its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from liverjax.datasets.case import Case
from liverjax.errors import ConfigError, InputError
from liverjax.inference.segmenter import Segmenter
from liverjax.insight import features as maps_of
from liverjax.insight.changes import robustness
from liverjax.insight.receptive_field import Field, effective_field
from liverjax.insight.seen import Seen, look
from liverjax.insight.taps import check_tap, untrained
from liverjax.labels import BACKGROUND
from liverjax.scans.grid import to_grid
from liverjax.scoring import overlap
from liverjax.scoring.statistics import auroc, clustered_interval
from liverjax.volume import Volume

__all__ = ["features", "fields", "robustness"]

#: Dice of a scan below which it failed.
FAILED = 0.8
# Slices that excite a feature map most.
_SHOWN = 8
FIELD_METHOD = (
    "Effective field (Luo 2016): the mean of |dy/dx| over real slices and positions within the predicted class; its "
    "side is the root of the number of pixels above 1 - 0.9545 of the value at the unit's own place."
)
ROBUSTNESS_METHOD = (
    "The changes are made to what the networks see: the scan in its window, on the working grid. The first strength of "
    "each changes nothing. Dice after clean-up, on the working grid."
)
FEATURES_METHOD = (
    "The vector of a slice is the mean of the feature maps over it. The distance is the mean of those to the five "
    "nearest training slices, over 16 principal axes in units of their standard deviations; of a scan, the mean over "
    "its slices with predicted liver, or over all if it has none. Expected Dice: what the model expects of its mask."
)


def fields(
    model: Segmenter, scans: Iterable[tuple[str, Volume]], *, samples: int = 32, seed: int = 0
) -> list[tuple[str, str, Field]]:
    """Returns effective fields: what is measured, the view, and the field.

    Of each view, the logits of all classes, trained; the logit of the liver before training, with the short skips and
    without; with the trained weights but the short skips cut; and the blocks of the encoder, trained.
    """
    seen = [look(model, scan) for _, scan in scans]
    found = []
    for view in model.config.views:
        network, variables = model.trained(view)
        bare = network.clone(short_skips="none")
        cases = [
            (f"{name}, trained", network, variables, label, "")
            for label, name in enumerate(model.config.labels)
        ]
        cases += [
            ("liver, untrained", network, untrained(network, seed), 1, ""),
            ("liver, untrained, no short skips", bare, untrained(bare, seed), 1, ""),
        ]
        if network.short_skips != "none":
            cases.append(("liver, trained, short skips cut", bare, variables, 1, ""))
        cases += [(f"{tap}, trained", network, variables, 1, tap) for tap in network.taps if "encoder" in tap]
        for name, architecture, weights, label, tap in cases:
            field = effective_field(architecture, weights, seen, view, label, tap, samples=samples, seed=seed)
            found.append((name, view, field))
    return found


def field_rows(found: Iterable[tuple[str, str, Field]]) -> list[dict]:
    """Returns a row for each field."""
    return [
        {
            "unit": name,
            "view": view,
            "side [px]": field.side,
            "side [mm]": field.side_mm,
            "theoretical [px]": " or ".join(map(str, dict.fromkeys(field.theoretical))),
            "samples": field.samples,
            "share that sees": field.reaching,
        }
        for name, view, field in found
    ]


@dataclasses.dataclass(frozen=True)
class Features:
    """Pictures and numbers of `features`: tiles by name, points of slices, and scores of scans by group."""

    kernels: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    maps_caption: str
    exciting: dict[str, np.ndarray]
    exciting_caption: str
    points: np.ndarray
    groups: list[str]
    dice: np.ndarray
    points_caption: str
    scores: dict[str, list[float]]
    scores_dice: dict[str, list[float]]
    novelty_caption: str
    rows: list[dict]
    ranking: list[str]


def features(
    model: Segmenter, groups: Mapping[str, Sequence[Case]], tap: str = "", channel: int = 0
) -> Features:
    """Predicts all cases, and looks at their slices in the model's first view.

    Args:
      model: a run, which knows what trained it.
      groups: cases by the name of their data set.
      tap: whose feature maps; "": the bottleneck's.
      channel: the feature map whose most exciting slices are shown.

    Raises:
      ConfigError: there is no such tap or feature map.
      InputError: no case trained the model, or all did.
    """
    view = model.config.views[0]
    network, variables = model.trained(view)
    tap = tap or f"encoder_{len(network.features) - 1}"
    check_tap(network, tap)
    width = network.features[int(tap.partition("_")[2])]
    if channel >= width:
        raise ConfigError(
            f"channel is {channel}, but {tap} has {width} feature maps, expected 0 to {width - 1}"
        )
    training = set(model.subset("train"))
    slices: list[str] = []  # the group of each
    # Value of the channel, name, picture; few, as slices are large.
    best: list[tuple[float, str, np.ndarray]] = []
    vectors, dice, rows, own = [], [], [], []
    for name, cases in groups.items():
        for case in cases:
            scan, mask = case.read_pair() if case.label else (case.read_image(), None)
            seen = look(model, scan)
            value = _dice(seen, mask)
            trained = case.id in training
            group = f"{name}{', training' if trained else ''}"
            chosen = maps_of.liver_slices(seen, view)
            stack = seen.stack(view)[chosen]
            vectors.append(maps_of.bottleneck(network, variables, stack, tap))
            for place in maps_of.exciting(vectors[-1], channel, _SHOWN):
                name_of = f"{case.id} {chosen[place]}"
                best.append((float(vectors[-1][place, channel]), name_of, stack[place].copy()))
            best = sorted(best, key=lambda one: -one[0])[:_SHOWN]
            slices += [group] * len(chosen)
            dice += [value] * len(chosen)
            rows.append(
                {
                    "data set": name,
                    "case": case.id,
                    "trained": trained,
                    "dice": value,
                    "expected dice": seen.expected_dice,
                }
            )
            own.append(len(chosen))
    of_case = np.repeat(np.arange(len(rows)), own)
    points = np.concatenate(vectors) if vectors else np.zeros((0, width))
    is_training = np.array([row["trained"] for row in rows], bool)[of_case] if rows else np.zeros(0, bool)
    if not is_training.any() or is_training.all():
        which = "no case that trained" if not is_training.any() else "only cases that trained"
        raise InputError(
            f"{', '.join(groups)}: {which} the model, expected some that did and some that did not"
        )
    novelty = maps_of.Novelty.of(points[is_training])
    for place, row in enumerate(rows):
        row["distance"] = None if row["trained"] else float(novelty.distance(points[of_case == place]).mean())
    mean, axes, _ = maps_of.principal_axes(points[is_training])
    flat = (points - mean) @ axes[:2].T
    judged = [row for row in rows if not row["trained"]]
    names = dict.fromkeys(row["data set"] for row in judged)
    maps = maps_of.feature_maps(network, variables, best[0][2], tap)
    return Features(
        {str(k): kernel for k, kernel in enumerate(maps_of.first_kernels(variables)[:64])},
        {str(k): one for k, one in enumerate(maps[:64])},
        f"{view}, slice {best[0][1]}: maps of {tap}, each from its least to its most",
        {name: picture for _, name, picture in best},
        f"{view} slices whose mean of feature map {channel} of {tap} is largest",
        np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))),
        slices,
        np.array(dice),
        f"{view} slices in the plane of the first two principal axes of the training slices, {tap}",
        {name: [row["distance"] for row in judged if row["data set"] == name] for name in names},
        {name: [row["dice"] for row in judged if row["data set"] == name] for name in names},
        f"Scans that did not train the model; dashed: Dice {FAILED}",
        rows,
        ranking(judged),
    )


def _dice(seen: Seen, mask: Volume | None) -> float:
    """Returns the Dice of the liver on the working grid; NaN without a reference."""
    if mask is None:
        return float("nan")
    reference = to_grid(mask, seen.grid, labels=True).voxels != BACKGROUND
    return overlap.count(seen.labels != BACKGROUND, reference).dice


def ranking(rows: Sequence[Mapping]) -> list[str]:
    """Returns, in words, how well distance and expected Dice find the scans that failed: AUROC, 95 % interval."""
    known = [row for row in rows if not np.isnan(row["dice"])]
    failed = np.array([row["dice"] < FAILED for row in known], bool)
    if failed.all() or not failed.any():
        return [
            f"{int(failed.sum())} of {len(known)} scans have a Dice below {FAILED}: no ranking can be judged."
        ]
    ids = np.array([f"{row['data set']} {row['case']}" for row in known])
    scores = np.array([[row["distance"], -row["expected dice"]] for row in known])

    def both(chosen: np.ndarray) -> np.ndarray:
        return np.array([auroc(column, failed[chosen]) for column in scores[chosen].T])

    value = both(np.arange(len(known)))
    low, high = clustered_interval(both, ids)
    return [
        f"AUROC of the {name} for a Dice below {FAILED} ({failed.sum()} of {len(known)} scans): "
        f"{value[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})."
        for i, name in enumerate(("distance to the training slices", "expected Dice, low first"))
    ]
