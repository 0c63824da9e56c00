"""Synthetic tumours: small lesions placed in livers that have none, to train on what is rare.

The idea is that of Hu 2023 (arXiv 2303.14869): ellipsoids distorted by noise, textures of scaled noise, a rim and a
displacement of what surrounds them, away from vessels. They are placed in volumes when a store is prepared, so that the
three views of a case show the same lesions. All lengths are in mm, all intensities in those of the scan.
"""

from __future__ import annotations

import dataclasses
import hashlib

import edt
import numpy as np
from scipy import ndimage

from liverjax.labels import BACKGROUND, LIVER, TUMOR

#: Deviations of the liver's intensity by which a vessel differs from what surrounds it; the two lengths of smoothing.
_VESSEL_DEVIATIONS = 2.0
_FINE_MM, _COARSE_MM = 1.5, 8.0
#: Lesions in a liver, at most.
_MOST = 5
#: Contrast to the liver: of a CT in HU, of MR as a share of the liver's intensity; and how often it is darker.
_CONTRAST = {"ct": (20.0, 60.0), "mr": (0.25, 0.6)}
_DARKER = {"ct": 0.9, "mr": 0.5}


@dataclasses.dataclass(frozen=True)
class _Liver:
    """What is known of a liver: its voxels, its vessels, and the distances in mm from its border and its vessels."""

    mask: np.ndarray
    intensity: float
    depth: np.ndarray
    clear: np.ndarray


def generator(seed: int, case: str, copy: int) -> np.random.Generator:
    """Returns the random numbers of one copy of a case: a function of the three alone."""
    digest = int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "little")
    return np.random.default_rng((seed, digest, copy))


def add_tumors(
    image: np.ndarray,
    labels: np.ndarray,
    spacing: np.ndarray,
    random: np.random.Generator,
    *,
    modality: str,
    diameters_mm: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a scan and its labels with one to five lesions more.

    Each has a diameter drawn on a logarithmic scale, lies in the liver by 0.6 of its radius at least, and as far from
    vessels. Where no place is left, there are fewer, or none.

    Args:
      image: (X, Y, Z) float32.
      labels: (X, Y, Z) uint8 with liver.
      spacing: (3,) voxel size in mm.
      random: see `generator`.
      modality: "ct" or "mr".
      diameters_mm: smallest and largest diameter.
    """
    image, labels = image.copy(), labels.copy()
    known = _study(image, labels != BACKGROUND, spacing)
    for _ in range(int(random.integers(1, _MOST + 1))):
        radius = float(np.exp(random.uniform(*np.log(diameters_mm)))) / 2
        free = (known.depth >= 0.6 * radius) & (known.clear >= 0.6 * radius)
        free &= (
            edt.edt(np.ascontiguousarray(labels != TUMOR), anisotropy=tuple(spacing.tolist())) > 1.5 * radius
        )
        places = np.flatnonzero(free)
        if places.size:
            centre = np.array(np.unravel_index(places[random.integers(places.size)], free.shape))
            _place(image, labels, known, centre, radius, spacing, random, modality)
    return image, labels


def vessels(image: np.ndarray, liver: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Returns the voxels of a liver that differ from what surrounds them, as vessels do: (X, Y, Z) bool.

    The mean of the liver near a voxel, weighted by a Gaussian of 1.5 mm, is compared with that by one of 8 mm; a vessel
    is where they differ by two deviations or more, 1.4826 times the median difference being one. Vessels are bright in
    a CT of the portal-venous phase and dark in a hepatobiliary MR, so that either counts.
    """
    if not liver.any():
        return liver
    near, far = (_mean_within(image, liver, length / spacing) for length in (_FINE_MM, _COARSE_MM))
    apart = np.abs(near - far)
    deviation = 1.4826 * float(np.median(apart[liver]))
    return liver & (apart > _VESSEL_DEVIATIONS * max(deviation, 1e-6))


def _mean_within(image: np.ndarray, mask: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Returns at each voxel the mean of a mask's voxels, weighted by a Gaussian of ``deviation`` voxels."""
    share = ndimage.gaussian_filter(mask.astype(np.float32), deviation)
    return ndimage.gaussian_filter(np.where(mask, image, 0), deviation) / np.maximum(share, 1e-3)


def _study(image: np.ndarray, liver: np.ndarray, spacing: np.ndarray) -> _Liver:
    size = tuple(spacing.tolist())
    found = vessels(image, liver, spacing)
    return _Liver(
        liver,
        float(np.median(image[liver])) if liver.any() else 0.0,
        edt.edt(np.ascontiguousarray(liver), anisotropy=size),
        edt.edt(np.ascontiguousarray(~found), anisotropy=size),
    )


def _place(
    image: np.ndarray,
    labels: np.ndarray,
    known: _Liver,
    centre: np.ndarray,
    radius: float,
    spacing: np.ndarray,
    random: np.random.Generator,
    modality: str,
) -> None:
    """Writes one lesion into image and labels."""
    reach = np.ceil(3 * radius / spacing).astype(int) + 2
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, image.shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    shape = tuple((high - low).tolist())
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    offset = (index + (low - centre)[:, None, None, None]) * spacing[:, None, None, None]
    # In the frame of an ellipsoid of the lesion's volume, of which the surface is distorted: 1 on the surface.
    axes = np.exp(random.normal(0, 0.15, 3))
    axes *= radius / np.cbrt(axes.prod())
    turned = np.einsum("ab,bxyz->axyz", _rotation(random), offset) / axes[:, None, None, None]
    bumps = _smooth_noise(shape, random, max(radius / 2, 1.0) / spacing)
    scaled = np.sqrt((turned**2).sum(0)) / (1 + 0.2 * np.clip(bumps, -2, 2))
    # What surrounds it is pushed outwards: each voxel shows what lay nearer to the centre, the less the farther.
    push = random.uniform(0, 0.3) * np.exp(-np.maximum(scaled - 1, 0) / 0.5)
    source = index - push * (index + (low - centre)[:, None, None, None])
    moved = ndimage.map_coordinates(image[box], source, order=1, mode="nearest")
    # Outside the liver nothing moves.
    moved = np.where(known.mask[box], moved, image[box])
    sign = -1 if random.random() < _DARKER[modality] else 1
    contrast = sign * random.uniform(*_CONTRAST[modality]) * (1 if modality == "ct" else abs(known.intensity))
    # Over one voxel the border is a mixture of both, as in a scan.
    distance = (scaled - 1) * radius
    inside = 1 / (1 + np.exp(np.clip(4 * distance / spacing.mean(), -30, 30)))
    texture = _smooth_noise(shape, random, random.uniform(0.7, 2.0) / spacing)
    change = contrast * (1 + random.uniform(0.1, 0.3) * texture)
    change = inside * change
    if (
        random.random() < 0.4
    ):  # A rim that takes up contrast agent, narrow enough to leave the lesion's contrast.
        width = random.uniform(0.1, 0.2) * radius
        change = change - random.uniform(0.3, 0.8) * contrast * np.exp(-((distance / width) ** 2))
    image[box] = np.where(known.mask[box], moved + change, image[box])
    labels[box][(distance < 0) & (labels[box] == LIVER)] = TUMOR


def _smooth_noise(shape: tuple[int, ...], random: np.random.Generator, deviation: np.ndarray) -> np.ndarray:
    """Returns Gaussian noise, smoothed by ``deviation`` voxels along each axis and scaled to a deviation of 1."""
    noise = ndimage.gaussian_filter(random.normal(size=shape), deviation, mode="wrap")
    return noise / max(float(noise.std()), 1e-6)


def _rotation(random: np.random.Generator) -> np.ndarray:
    """Returns a random rotation (3, 3), uniform over all: the orthogonal part of a matrix of normal numbers."""
    matrix, upper = np.linalg.qr(random.normal(size=(3, 3)))
    return matrix * np.sign(np.diag(upper))
