"""Surface areas of labelled objects by Crofton's formula: from how often straight lines cross their borders."""

from __future__ import annotations

import functools
import itertools

import numpy as np

#: The 13 directions to a voxel's 26 neighbours, each with one of its two signs.
DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0))
_POINTS = 20_000


def surface_areas(
    ids: np.ndarray, flat: np.ndarray, group: np.ndarray, count: int, spacing: np.ndarray
) -> np.ndarray:
    """Returns the surface of each object in mm2.

    S = 2 sum_d w_d n_d V / |d|: n_d is how often the lattice's lines along the direction d cross the object's border,
    V / |d| the area that each of these lines stands for (V: volume of a voxel, |d|: the step in mm), and w_d the share
    of the directions of space that are nearest to d. Counting faces of voxels instead would give a ball one and a half
    times its surface, at any resolution.

    Args:
      ids: (X, Y, Z), 0 outside of objects, else their number from 1.
      flat: (m,) indices of all voxels of objects in ``ids.ravel()``.
      group: (m,) object of each of them, from 0.
      count: number of objects.
      spacing: (3,) voxel size in mm.
    """
    padded = np.pad(ids, 1)
    place = np.ravel_multi_index([axis + 1 for axis in np.unravel_index(flat, ids.shape)], padded.shape)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    cells, lengths = _directions(tuple(float(size) for size in spacing))
    values = padded.ravel()
    areas = np.zeros(count)
    for step, share, length in zip(DIRECTIONS, cells, lengths, strict=True):
        jump = int(strides @ step)
        crossed = (values[place + jump] != group + 1).astype(np.int8) + (values[place - jump] != group + 1)
        areas += 2 * share * np.prod(spacing) / length * np.bincount(group, crossed, minlength=count)
    return areas


@functools.lru_cache
def _directions(spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of the directions of space that is nearest to each of `DIRECTIONS`, and the lengths in mm."""
    steps = np.array(DIRECTIONS) * spacing
    lengths = np.linalg.norm(steps, axis=1)
    # Points spread evenly over half a sphere (a Fibonacci lattice).
    i = np.arange(_POINTS) + 0.5
    z, turn = i / _POINTS, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    points = np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)
    nearest = np.abs(points @ (steps / lengths[:, None]).T).argmax(axis=1)
    return np.bincount(nearest, minlength=len(steps)) / _POINTS, lengths
