"""Bodies as functions of points: negative inside, positive outside, near the surface the distance in mm.

Points are three broadcastable float32 arrays. Intersection is a maximum, union a minimum, a body taken away
from another the maximum with its negative; the smooth forms round the edges.
"""

from __future__ import annotations

import numpy as np

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


class Waves:
    """A smooth random complex field: a sum of plane waves with random directions, lengths and phases.

    Its real part is a smooth texture of zero mean and unit variance; the curves along which it is zero are
    long and winding, like bowel. On an affine grid each wave is a product of three vectors, so that the
    whole field is one matrix product.
    """

    def __init__(self, rng: np.random.Generator, lengths: tuple[float, float], count: int = 16):
        """Draws `count` waves with lengths in mm uniform in `lengths`."""
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.vectors = direction * (2 * np.pi / rng.uniform(*lengths, count))[:, None]
        self.phases = rng.uniform(0, 2 * np.pi, count)

    def on_grid(self, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Returns the (x, y, z) complex64 field at the voxel centres of a grid."""
        amplitude = np.sqrt(2 / len(self.phases))
        start = self.vectors @ affine[:3, 3] + self.phases
        steps = self.vectors @ affine[:3, :3]
        i, j, k = (np.exp(1j * steps[:, axis, None] * np.arange(shape[axis])) for axis in range(3))
        left = (amplitude * np.exp(1j * start)[:, None] * i).T
        right = (j[:, :, None] * k[:, None, :]).reshape(len(start), -1)
        return (left.astype(np.complex64) @ right.astype(np.complex64)).reshape(shape)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Maximum of two distances whose edge is rounded over `width` mm: the intersection of two bodies."""
    blend = np.maximum(width - np.abs(a - b), 0)
    return np.maximum(a, b) + blend * blend * np.float32(0.25 / width)


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The union of two bodies, with the crease between them rounded over `width` mm."""
    return -smooth_max(-a, -b, width)


def ellipsoid(p: Points, center, radii) -> np.ndarray:
    """Approximate distance to an ellipsoid with axes along the frame's."""
    scaled = sum(
        ((c - o) * np.float32(1 / r)) ** 2
        for c, o, r in zip(p, np.asarray(center, np.float32), radii, strict=True)
    )
    return (np.sqrt(scaled) - 1) * np.float32(np.prod(radii) ** (1 / 3))


def column(p: Points, center, radii) -> np.ndarray:
    """Approximate distance to an elliptic column along z; `center` and `radii` are (x, y)."""
    u, v = ((c - np.float32(o)) * np.float32(1 / r) for c, o, r in zip(p, center, radii, strict=False))
    return (np.sqrt(u * u + v * v) - 1) * np.float32(np.sqrt(radii[0] * radii[1]))


def capsule(p: Points, start, end, radii: tuple[float, float]) -> np.ndarray:
    """Distance to a tube with round ends from `start` to `end` whose radius runs between `radii`."""
    start = np.asarray(start, np.float32)
    axis = np.asarray(end, np.float32) - start
    offset = [c - o for c, o in zip(p, start, strict=True)]
    along = sum(c * np.float32(a) for c, a in zip(offset, axis / max(axis @ axis, 1e-6), strict=True))
    along = np.clip(along, 0, 1)
    gap = sum((c - along * a) ** 2 for c, a in zip(offset, axis, strict=True))
    return np.sqrt(gap) - (np.float32(radii[0]) + along * np.float32(radii[1] - radii[0]))


def squircle_column(p: Points, radii) -> np.ndarray:
    """Distance along the radius to a rounded-rectangle column (a squircle) about the frame's z axis."""
    x, y = p[0], p[1]
    u, v = (x * np.float32(1 / radii[0])) ** 2, (y * np.float32(1 / radii[1])) ** 2
    gauge = np.sqrt(u + v - np.float32(0.5) * u * v / (u + v + np.float32(1e-6))) + np.float32(1e-6)
    return np.sqrt(x * x + y * y) * (1 - 1 / gauge)


def rotation_matrix(x: float, y: float, z: float) -> np.ndarray:
    """Returns the (3, 3) rotation by `x`, then `y`, then `z` radians about those axes."""
    turns = []
    for axis, angle in enumerate((x, y, z)):
        turn = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    return turns[2] @ turns[1] @ turns[0]


def grid_points(affine: np.ndarray, shape: tuple[int, int, int]) -> Points:
    """Returns the voxel centres of a grid: three (x, y, z) float32 arrays. The affine has at least 3 rows."""
    i, j, k = np.ix_(*(np.arange(n, dtype=np.float32) for n in shape))
    return tuple(
        (row[0] * i + row[3]) + row[1] * j + row[2] * k for row in np.asarray(affine[:3], np.float32)
    )


def box_corners(low, high) -> np.ndarray:
    """Returns the (8, 3) corners of a box."""
    return np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
