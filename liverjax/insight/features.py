"""What the feature maps hold: the first kernels, the slices that excite a map, and slices as points in a space.

The vector of a slice is the mean of the bottleneck's feature maps over the slice. How far it lies from those of the
training slices is a score of how unlike them the slice is, without any reference.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from liverjax.insight.attribution import in_batches
from liverjax.insight.seen import Seen
from liverjax.insight.taps import apply_with_tap, check_tap
from liverjax.labels import BACKGROUND
from liverjax.models import UNet

#: Principal axes that a distance counts, as far as there are so many.
_AXES = 16
#: Nearest training slices whose mean distance counts.
_NEAREST = 5


def first_kernels(variables: dict) -> np.ndarray:
    """Returns the kernels (F, 3, 3) of the first convolution, which see the slice itself."""
    return np.moveaxis(np.asarray(variables["params"]["stem"]["conv"]["kernel"])[:, :, 0], -1, 0)


def feature_maps(network: UNet, variables: dict, image: np.ndarray, tap: str) -> np.ndarray:
    """Returns the feature maps (C, h, w) of a slice (H, W) at a tap.

    Raises:
      ConfigError: there is no such tap.
    """
    check_tap(network, tap)
    return np.moveaxis(np.asarray(_maps(network, variables, image[None], tap))[0], -1, 0)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _maps(network: UNet, variables: dict, slices: jax.Array, tap: str) -> jax.Array:
    return apply_with_tap(network, variables, slices, tap)[1]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _means(network: UNet, variables: dict, slices: jax.Array, tap: str) -> jax.Array:
    return apply_with_tap(network, variables, slices, tap)[1].mean((1, 2))


def bottleneck(network: UNet, variables: dict, slices: np.ndarray, tap: str = "") -> np.ndarray:
    """Returns the vector (N, C) of each slice (N, H, W): the means of its feature maps.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      slices: in [-1, 1].
      tap: whose maps; "": the bottleneck's.

    Raises:
      ConfigError: there is no such tap.
    """
    tap = tap or f"encoder_{len(network.features) - 1}"
    check_tap(network, tap)
    return in_batches(lambda some: _means(network, variables, some, tap), slices)


def exciting(means: np.ndarray, channel: int, count: int = 5) -> list[int]:
    """Returns the slices that excite a feature map most, by its mean over the slice: (N, C) -> indices."""
    return np.argsort(-means[:, channel], kind="stable")[:count].tolist()


def liver_slices(seen: Seen, view: str) -> np.ndarray:
    """Returns the indices of the slices with predicted liver; of all, if there are none."""
    has = (seen.stack(view, seen.labels) != BACKGROUND).any((1, 2))
    return np.flatnonzero(has) if has.any() else np.arange(len(has))


def principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean (C,), the principal axes (K, C) and the standard deviations (K,) along them, largest first.

    Axes along which the vectors (N, C) do not vary are left out.
    """
    vectors = np.asarray(vectors, np.float64)
    mean = vectors.mean(0)
    _, sizes, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    deviations = sizes / np.sqrt(max(len(vectors) - 1, 1))
    kept = deviations > 1e-6 * max(float(deviations.max(initial=0)), 1e-12)
    # A direction and its opposite are the same axis: the largest part of each is positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return mean, (axes * signs[:, None])[kept], deviations[kept]


@dataclasses.dataclass(frozen=True)
class Novelty:
    """How far slices lie from those of training.

    The space is that of the first 16 principal axes of the training vectors, each in units of its standard deviation;
    the distance is the mean of those to the five nearest training slices.

    Attributes:
      mean: (C,) of the training vectors.
      axes: (K, C) principal axes over their standard deviations.
      training: (N, K) the training slices in this space.
    """

    mean: np.ndarray
    axes: np.ndarray
    training: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Novelty:
        """Returns the space of training vectors (N, C)."""
        mean, axes, deviations = principal_axes(vectors)
        axes = axes[:_AXES] / deviations[:_AXES, None]
        return cls(mean, axes, (vectors - mean) @ axes.T)

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the distance (N,) of vectors (N, C), in standard deviations of the training vectors."""
        places = (vectors - self.mean) @ self.axes.T
        products = places @ self.training.T
        squares = (places**2).sum(1)[:, None] + (self.training**2).sum(1)[None] - 2 * products
        nearest = np.sort(squares, axis=1)[:, :_NEAREST]
        return np.sqrt(np.maximum(nearest, 0)).mean(1)
