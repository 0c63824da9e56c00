"""Lesions for tests, and the definition of their diameters in a few slow lines."""

import itertools

import numpy as np


def random_lesion(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a ragged connected lesion (x, y, z) bool, and an affine: any orientation, shear, voxels of any size."""
    from liverjax.objects.components import largest

    rng = np.random.default_rng(seed)
    shape = rng.integers(3, 24, 3)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    squares = sum(axis**2 for axis in grid)
    mask = np.zeros(shape, bool)
    mask[tuple(shape // 2)] = True
    mask = largest(
        mask | (squares < rng.uniform(0.2, 1.2) + rng.normal(0, rng.choice([0.05, 0.5]), shape)), 6
    )
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes = rotation @ np.diag(rng.uniform(0.4, 6, 3)) @ (np.eye(3) + np.triu(rng.normal(0, 0.2, (3, 3)), 1))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes[:, rng.permutation(3)], rng.normal(0, 100, 3)
    return mask, affine


def outline_points(mask: np.ndarray, axis: int) -> list[np.ndarray]:
    """Returns for each slice across an axis the (n, 3) points halfway between neighbours inside and outside."""
    padded = np.pad(mask, 1)
    found = []
    for other in {0, 1, 2} - {axis}:
        changes = np.argwhere(np.diff(padded.astype(int), axis=other)).astype(float) - 1
        changes[:, other] += 0.5
        found.append(changes)
    points = np.concatenate(found)
    return [points[points[:, axis] == index] for index in range(mask.shape[axis])]


def longest_by_brute_force(mask: np.ndarray, affine: np.ndarray, axis: int) -> float:
    """Returns the largest distance in mm of all pairs of outline points in one slice, in space."""
    best = 0.0
    for points in outline_points(mask, axis):
        world = points @ affine[:3, :3].T
        for point in world:
            best = max(best, np.linalg.norm(world - point, axis=1).max(initial=0))
    return best


def widest_by_scanning(region: np.ndarray, ends: np.ndarray, to_mm: np.ndarray, steps: int) -> float:
    """Returns the longest line at a right angle to that between ``ends`` (2, 2) over closely spaced places.

    The outline is walked cell by cell, without the look-up of the library: of each four neighbouring pixels, the
    midpoints between unequal ones are joined; at a saddle, those around each pixel inside.
    """
    padded = np.pad(region, 1)
    edges = []
    for i, j in itertools.product(range(padded.shape[0] - 1), range(padded.shape[1] - 1)):
        ring = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
        middles = [
            ((np.add(p, q) / 2 - 1), p if padded[p] else q)
            for p, q in zip(ring, ring[1:] + ring[:1], strict=True)
            if padded[p] != padded[q]
        ]
        if len(middles) == 2:
            edges.append((middles[0][0], middles[1][0]))
        elif len(middles) == 4:
            for inside in (p for p in ring if padded[p]):
                edges.append(tuple(middle for middle, owner in middles if owner == inside))
    edges = np.array(edges) @ to_mm.T
    along = (ends[1] - ends[0]) @ to_mm.T
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    place, height = edges @ along, edges @ across
    best = 0.0
    for t in np.linspace(place.min(), place.max(), steps):
        (crossed,) = np.nonzero((place.min(1) <= t) & (place.max(1) >= t) & (np.ptp(place, axis=1) > 1e-9))
        if crossed.size:
            share = (t - place[crossed, 0]) / (place[crossed, 1] - place[crossed, 0])
            at = height[crossed, 0] + share * (height[crossed, 1] - height[crossed, 0])
            best = max(best, np.ptp(at))
    return best
