"""Features of tumour candidates: one table, `FEATURES`, says what each is; the documentation shows the same table.

Intensities are measured in units of the liver: its median is 0, and 1 is its robust standard deviation (1.4826 times
the median absolute deviation), both over the voxels of the liver outside all candidates. A shell of a candidate is the
liver's voxels outside all candidates that are nearer to it than to any other, up to a distance in mm between voxel
centres. All numbers are finite: what an empty shell leaves open is the liver's value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import edt
import numpy as np
from scipy import ndimage

from liverjax.errors import InputError
from liverjax.objects.candidates import Candidates
from liverjax.objects.intercepts import surface_areas

#: Outer radii in mm of the two shells.
NEAR_MM, FAR_MM = 3.0, 8.0
#: Number of the definitions below: filters of another one are refused.
VERSION = 1


class Feature(NamedTuple):
    """One row of the table: its name, its unit ("1" for a pure number), and its formula in words."""

    name: str
    unit: str
    formula: str


#: What is measured without the maps of the single views.
FUSED = tuple(
    Feature(*row)
    for row in (
        ("intensity_mean", "scan's unit", "mean intensity inside, as stored (HU in CT)"),
        ("intensity_sd", "scan's unit", "standard deviation of the intensity inside"),
        ("z_mean", "liver sd", "mean inside"),
        ("z_median", "liver sd", "median inside"),
        ("z_sd", "liver sd", "standard deviation inside"),
        ("z_p10", "liver sd", "10th percentile inside"),
        ("z_p90", "liver sd", "90th percentile inside"),
        ("z_near", "liver sd", "mean of the near shell, up to 3 mm"),
        ("z_far", "liver sd", "mean of the far shell, 3 to 8 mm"),
        ("z_near_sd", "liver sd", "standard deviation of the near shell"),
        ("contrast_near", "liver sd", "z_mean - z_near"),
        ("contrast_far", "liver sd", "z_mean - z_far"),
        ("contrast_to_noise", "1", "contrast_far / sqrt(z_sd^2 + 1)"),
        ("core_to_rim", "liver sd", "mean of the voxels at least half as deep as the deepest, minus that of the rest"),
        ("volume_ml", "ml", "number of voxels times their volume"),
        ("sphericity", "1", "surface of the sphere of the same volume / surface, by intercepts in 13 directions"),
        ("surface_to_volume", "1/mm", "surface / volume"),
        ("elongation", "1", "sqrt(l2 / l1); l1 >= l2 >= l3 are the eigenvalues of the voxels' covariance in mm2"),
        ("flatness", "1", "sqrt(l3 / l1)"),
        ("major_axis_mm", "mm", "2 sqrt(5 l1), the longest axis of the ellipsoid of the same covariance"),
        ("minor_axis_mm", "mm", "2 sqrt(5 l3), its shortest axis"),
        ("extent_right_mm", "mm", "extent from right to left"),
        ("extent_anterior_mm", "mm", "extent from posterior to anterior"),
        ("extent_superior_mm", "mm", "extent from inferior to superior"),
        ("box_fill", "1", "volume / volume of the box of the three extents"),
        ("inner_radius_mm", "mm", "greatest distance from a voxel inside to one outside"),
        ("slices", "1", "number of axial slices"),
        ("depth_mean", "mm", "mean distance to the liver's border, negative outside the liver"),
        ("depth_min", "mm", "smallest of these distances"),
        ("depth_max", "mm", "greatest of these distances"),
        ("outside_share", "1", "share of the voxels outside the liver"),
        ("position_right", "1", "centre in the liver's box, 0 at its left, 1 at its right"),
        ("position_anterior", "1", "likewise, 0 posterior, 1 anterior"),
        ("position_superior", "1", "likewise, 0 inferior, 1 superior"),
        ("p_mean", "1", "mean probability inside"),
        ("p_max", "1", "greatest probability"),
        ("p_sd", "1", "standard deviation of the probability"),
        ("p_p90", "1", "90th percentile of the probability"),
        ("p_half_share", "1", "share of the voxels with a probability of at least 0.5"),
        ("p_drop", "1", "p_mean minus the mean probability of the near shell"),
    )
)  # fmt: skip
#: What the maps of the single views add.
OF_VIEWS = tuple(
    Feature(*row)
    for row in (
        ("view_sd", "1", "mean over the voxels of the standard deviation over the views"),
        ("view_lowest", "1", "smallest of the views' mean probabilities"),
        ("view_range", "1", "greatest minus smallest of the views' mean probabilities"),
        ("view_all_share", "1", "share of the voxels with at least 0.5 in every view"),
    )
)
FEATURES = FUSED + OF_VIEWS


def feature_names(views: bool) -> tuple[str, ...]:
    """Returns the names of the features in order, those of the single views included or not."""
    return tuple(feature.name for feature in (FEATURES if views else FUSED))


def table() -> str:
    """Returns the table of the features in Markdown."""
    rows = [f"| `{feature.name}` | {feature.unit} | {feature.formula} |" for feature in FEATURES]
    return "\n".join(["| feature | unit | formula |", "|---|---|---|", *rows])


def measure(
    candidates: Candidates,
    scan: np.ndarray,
    probability: np.ndarray,
    views: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Measures all candidates of a scan.

    Args:
      candidates: of `objects.candidates.find_candidates`.
      scan: (x, y, z) intensities.
      probability: (x, y, z) of tumour, from which the candidates are.
      views: the tumour probability of each view by its name, (x, y, z); None or empty leaves their features out.

    Returns:
      (n, k) float64: a row per candidate, a column per name of ``feature_names(bool(views))``.

    Raises:
      InputError: a shape differs from that of the liver mask, or a value is not finite where features need it.
    """
    names = feature_names(bool(views))
    if not candidates.count:
        return np.zeros((0, len(names)))
    crop = candidates.frame.crop
    inside = _Grouped(candidates.ids)
    near, far = _shells(candidates)
    chance = crop(np.asarray(probability)).astype(np.float64)
    radius = inside.pick(_inner_distance(candidates))
    found = _intensities(candidates, crop(np.asarray(scan)).astype(np.float64), inside, (near, far), radius)
    found |= _shapes(candidates, inside, radius)
    found |= _places(candidates, inside)
    found |= _chances(chance, inside, near)
    if views:
        found |= _agreement([crop(np.asarray(one)).astype(np.float64) for one in views.values()], inside)
    columns = np.stack([found[name] for name in names], axis=1)
    if not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        raise InputError(
            f"feature {names[column]} of candidate {row + 1} is {columns[row, column]}, expected a finite number; the "
            "scan or a probability map holds values that are not finite"
        )
    return columns


class _Grouped:
    """The voxels of labelled groups, sorted by group, for statistics of all groups at once."""

    def __init__(self, ids: np.ndarray, count: int | None = None):
        flat = np.flatnonzero(ids)
        group = ids.ravel()[flat] - 1
        order = np.argsort(group, kind="stable")
        self.shape = ids.shape
        self.flat, self.group = flat[order], group[order]
        self.sizes = np.bincount(group, minlength=count or 0)
        self.starts = np.cumsum(self.sizes) - self.sizes

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Returns the values of all groups' voxels, in this order."""
        return values.ravel()[self.flat]

    def mean(self, picked: np.ndarray, empty: float = 0.0) -> np.ndarray:
        sums = np.bincount(self.group, picked, minlength=len(self.sizes))
        return np.where(self.sizes > 0, sums / np.maximum(self.sizes, 1), empty)

    def sd(self, picked: np.ndarray, empty: float = 0.0) -> np.ndarray:
        centred = picked - self.mean(picked)[self.group]
        return np.sqrt(self.mean(centred**2, empty**2))

    def quantiles(self, picked: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
        """Returns linearly interpolated quantiles, as `numpy.quantile`; no group may be empty."""
        ordered = picked[np.lexsort((picked, self.group))]
        found = []
        for share in shares:
            place = share * (self.sizes - 1)
            low = np.floor(place).astype(int)
            high = np.minimum(low + 1, self.sizes - 1)
            a, b = ordered[self.starts + low], ordered[self.starts + high]
            found.append(a + (place - low) * (b - a))
        return found

    def extreme(self, picked: np.ndarray, ufunc: np.ufunc) -> np.ndarray:
        return ufunc.reduceat(picked, self.starts)

    def indices(self) -> np.ndarray:
        """Returns (3, m) voxel indices."""
        return np.stack(np.unravel_index(self.flat, self.shape))


def _shells(candidates: Candidates) -> tuple[_Grouped, _Grouped]:
    ids = candidates.ids
    free = ids == 0
    sampling = tuple(candidates.frame.spacing.tolist())
    found = ndimage.distance_transform_edt(free, sampling=sampling, return_indices=True)
    assert found is not None  # It is None only where results go into given arrays.
    distance, nearest = found
    near, far = (
        free & candidates.liver & (low < distance) & (distance <= high)
        for low, high in ((0.0, NEAR_MM), (NEAR_MM, FAR_MM))
    )
    grouped = []
    for shell in (near, far):
        owners = np.zeros_like(ids)
        owners[shell] = ids[tuple(axis[shell] for axis in nearest)]
        grouped.append(_Grouped(owners, candidates.count))
    return grouped[0], grouped[1]


def _intensities(
    candidates: Candidates,
    scan: np.ndarray,
    inside: _Grouped,
    shells: tuple[_Grouped, _Grouped],
    radius: np.ndarray,
) -> dict[str, np.ndarray]:
    near, far = shells
    own = candidates.liver & (candidates.ids == 0)
    tissue = scan[own if own.any() else candidates.liver]
    middle = float(np.median(tissue))
    scale = 1.4826 * float(np.median(np.abs(tissue - middle)))
    # A liver of one value, as a phantom without noise has, leaves intensities as they are.
    z = (scan - middle) / (scale if scale > 0 else 1.0)
    raw, picked = inside.pick(scan), inside.pick(z)
    z_mean, z_sd = inside.mean(picked), inside.sd(picked)
    z_near, z_far = near.mean(near.pick(z)), far.mean(far.pick(z))
    p10, median, p90 = inside.quantiles(picked, (0.1, 0.5, 0.9))
    core = radius >= 0.5 * inside.extreme(radius, np.maximum)[inside.group]
    cores = np.bincount(inside.group, core)
    core_mean = np.bincount(inside.group, picked * core) / cores
    rims = inside.sizes - cores
    rim_mean = np.bincount(inside.group, picked * ~core) / np.maximum(rims, 1)
    return {
        "intensity_mean": inside.mean(raw),
        "intensity_sd": inside.sd(raw),
        "z_mean": z_mean,
        "z_median": median,
        "z_sd": z_sd,
        "z_p10": p10,
        "z_p90": p90,
        "z_near": z_near,
        "z_far": z_far,
        "z_near_sd": near.sd(near.pick(z), empty=1.0),
        "contrast_near": z_mean - z_near,
        "contrast_far": z_mean - z_far,
        "contrast_to_noise": (z_mean - z_far) / np.sqrt(z_sd**2 + 1),
        "core_to_rim": np.where(rims > 0, core_mean - rim_mean, 0.0),
    }


def _inner_distance(candidates: Candidates) -> np.ndarray:
    """Returns the distance in mm of each candidate voxel to the nearest voxel centre outside its candidate."""
    # Within the box of the liver and its margin a candidate can reach the box only at the edge of the scan, where it
    # is cut; padding ends it there.
    ids = np.pad(candidates.ids, 1)
    spacing = tuple(candidates.frame.spacing.tolist())
    return edt.edt(ids.astype(np.uint32), anisotropy=spacing)[1:-1, 1:-1, 1:-1].astype(np.float64)


def _shapes(candidates: Candidates, inside: _Grouped, radius: np.ndarray) -> dict[str, np.ndarray]:
    spacing = candidates.frame.spacing
    index = inside.indices()
    mm = index * spacing[:, None]
    # About each candidate's own centre: far from the origin sums of squares would lose digits.
    mm = mm - np.stack([inside.mean(axis) for axis in mm])[:, inside.group]
    covariance = np.empty((candidates.count, 3, 3))
    for i in range(3):
        for j in range(3):
            # The spread within a voxel counts too: so a box of voxels has that of a solid box, and none is flat.
            within = spacing[i] ** 2 / 12 if i == j else 0.0
            covariance[:, i, j] = inside.mean(mm[i] * mm[j]) + within
    l3, l2, l1 = np.linalg.eigvalsh(covariance).T
    l3, l2 = np.maximum(l3, 0), np.maximum(l2, 0)
    voxels = [inside.extreme(axis, np.maximum) - inside.extreme(axis, np.minimum) + 1 for axis in index]
    extent = [count * size for count, size in zip(voxels, spacing, strict=True)]
    volume = inside.sizes * spacing.prod()
    surface = surface_areas(candidates.ids, inside.flat, inside.group, candidates.count, spacing)
    return {
        "volume_ml": volume / 1000,
        "sphericity": math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        "surface_to_volume": surface / volume,
        "elongation": np.sqrt(l2 / l1),
        "flatness": np.sqrt(l3 / l1),
        "major_axis_mm": 2 * np.sqrt(5 * l1),
        "minor_axis_mm": 2 * np.sqrt(5 * l3),
        "extent_right_mm": extent[0],
        "extent_anterior_mm": extent[1],
        "extent_superior_mm": extent[2],
        "box_fill": volume / (extent[0] * extent[1] * extent[2]),
        "inner_radius_mm": inside.extreme(radius, np.maximum),
        "slices": voxels[2].astype(float),
    }


def _places(candidates: Candidates, inside: _Grouped) -> dict[str, np.ndarray]:
    depth = inside.pick(candidates.depth).astype(np.float64)
    places = {
        "depth_mean": inside.mean(depth),
        "depth_min": inside.extreme(depth, np.minimum),
        "depth_max": inside.extreme(depth, np.maximum),
        "outside_share": inside.mean((~inside.pick(candidates.liver)).astype(float)),
    }
    index = inside.indices()
    for axis, name in enumerate(("right", "anterior", "superior")):
        occupied = np.flatnonzero(candidates.liver.any(tuple({0, 1, 2} - {axis})))
        low, size = occupied[0], occupied[-1] - occupied[0] + 1
        share = (inside.mean(index[axis].astype(float)) - low + 0.5) / size
        # Canonical axes lead to the patient's right, front and head: nibabel's RAS.
        places[f"position_{name}"] = share
    return places


def _chances(chance: np.ndarray, inside: _Grouped, near: _Grouped) -> dict[str, np.ndarray]:
    picked = inside.pick(chance)
    mean = inside.mean(picked)
    return {
        "p_mean": mean,
        "p_max": inside.extreme(picked, np.maximum),
        "p_sd": inside.sd(picked),
        "p_p90": inside.quantiles(picked, (0.9,))[0],
        "p_half_share": inside.mean((picked >= 0.5).astype(float)),
        "p_drop": mean - near.mean(near.pick(chance)),
    }


def _agreement(views: list[np.ndarray], inside: _Grouped) -> dict[str, np.ndarray]:
    picked = np.stack([inside.pick(view) for view in views])
    means = np.stack([inside.mean(view) for view in picked])
    with np.errstate(invalid="ignore"):  # Infinite values are reported with the feature's name.
        spread = picked.std(axis=0)
    return {
        "view_sd": inside.mean(spread),
        "view_lowest": means.min(axis=0),
        "view_range": np.ptp(means, axis=0),
        "view_all_share": inside.mean((picked >= 0.5).all(axis=0).astype(float)),
    }
