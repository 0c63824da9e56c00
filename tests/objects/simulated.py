"""Simulated output of a tumour network on phantoms, for tests alone: true lesions, blurred, and false blobs.

What separates true from false here is what this file builds in: noise and border blobs lie on plain liver, vessels are
bright and long, cysts are darker and rounder than tumours, and the views agree less on what is false. Real networks err
in ways that nobody listed; figures from here show that the code learns what there is to learn, not how well it does on
patients.
"""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
from scipy import ndimage

from liverjax import labels
from liverjax.datasets.phantom import make_phantom

SHAPE, SPACING = (128, 104, 56), (2.5, 2.5, 4.0)
VIEWS = ("axial", "coronal", "sagittal")
#: Seeds of the phantoms on which nothing was chosen, fixed before the first forest was grown, and their masks' SHA-256.
HELD_OUT = json.loads((pathlib.Path(__file__).parent / "held_out.json").read_text())
TRAINING = range(8000, 8040)


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A case: all arrays are (x, y, z).

    Attributes:
      scan: float32 HU.
      liver: bool, with tumours.
      probability: float32, the mean of the views.
      views: float32 each.
      reference: bool, the true tumours.
      affine: (4, 4).
    """

    scan: np.ndarray
    liver: np.ndarray
    probability: np.ndarray
    views: dict[str, np.ndarray]
    reference: np.ndarray
    affine: np.ndarray


def simulate(seed, shape=SHAPE, spacing=SPACING, false_blobs=(12, 30)):
    """Returns the simulated case of a phantom."""
    phantom = make_phantom(seed, shape=shape, spacing=spacing)
    rng = np.random.default_rng([seed, 77])
    mask, scan = phantom.label.voxels, phantom.image.voxels.astype(np.float32)
    liver, reference = mask != labels.BACKGROUND, mask == labels.TUMOR
    inner = ndimage.binary_erosion(liver & ~reference, iterations=2)
    blobs = [*_true_blobs(rng, reference, spacing)]
    for _ in range(rng.integers(*false_blobs)):
        kind = rng.choice(("noise", "border", "vessel", "cyst"), p=(0.4, 0.2, 0.25, 0.15))
        blobs.append(_false_blob(rng, kind, scan, liver, inner, spacing))
    views = {}
    for view in VIEWS:
        total = np.zeros(shape, np.float32)
        for blob, disagreement in blobs:
            np.maximum(total, blob * np.float32(np.clip(1 - disagreement * rng.random(), 0, 1)), out=total)
        grain = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.2)
        views[view] = np.clip(total + 0.04 * grain / grain.std(), 0, 1) * ndimage.binary_dilation(liver)
    fused = sum(views.values()) / np.float32(len(views))
    return Simulated(scan, liver, fused, views, reference, phantom.image.affine)


def digest(reference):
    """Returns the SHA-256 of a mask."""
    return hashlib.sha256(np.packbits(reference).tobytes()).hexdigest()


def _true_blobs(rng, reference, spacing):
    ids, count = ndimage.label(reference)
    for lesion in range(1, count + 1):
        own = ids == lesion
        diameter = (6 / np.pi * own.sum() * np.prod(spacing)) ** (1 / 3)
        # Small lesions are found less surely.
        peak = np.clip(rng.normal(0.5 + 0.012 * diameter, 0.15), 0.15, 0.99)
        blurred = ndimage.gaussian_filter(own.astype(np.float32), rng.uniform(0.6, 1.3))
        yield np.clip(blurred * peak / max(blurred.max(), 1e-6), 0, 1), 0.35


def _false_blob(rng, kind, scan, liver, inner, spacing):
    """Returns the blob and how much the views disagree on it; a cyst is painted into the scan."""
    where = {"border": liver & ~ndimage.binary_erosion(liver, iterations=2)}.get(str(kind), inner)
    bright = ndimage.gaussian_filter(scan, 0.7)
    if kind == "vessel":
        where = inner & (bright > np.percentile(bright[inner], 96))
    places = np.argwhere(where)
    centre = places[rng.integers(len(places))]
    radius = np.exp(rng.uniform(np.log(4), np.log(14)))
    axes = radius * rng.uniform(0.7, 1.4, 3)
    offsets = [(np.arange(n) - c) * s for n, c, s in zip(liver.shape, centre, spacing, strict=True)]
    if kind == "vessel":
        axes[rng.integers(3)] *= 2.5
    if kind == "cyst":
        axes = np.full(3, radius)
    x, y, z = np.ix_(*(o / a for o, a in zip(offsets, axes, strict=True)))
    distance = np.sqrt(x**2 + y**2 + z**2).astype(np.float32)
    peak = rng.uniform(0.35, 0.95)
    shape = np.clip(1.5 - distance, 0, 1) * liver
    if kind == "cyst":
        share = np.clip((1 - distance) * radius / min(spacing) + 0.5, 0, 1) * liver
        scan += share * (np.float32(rng.normal(8, 5)) - scan)
    if kind == "vessel":
        shape = shape * np.clip((bright - np.median(bright[inner])) / 25, 0, 1)
    return (peak * shape).astype(np.float32), {"cyst": 0.35}.get(str(kind), 0.75)
