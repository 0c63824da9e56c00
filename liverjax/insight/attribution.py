"""What speaks for an answer: maps over one slice of what its pixels contribute to the class of some of them.

The score that is explained is y = the sum of the class's logits over a set of pixels M (Vinogradova et al. 2020,
arXiv:2002.11434). All maps are (H, W) float32 of the slice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from liverjax.errors import ConfigError, did_you_mean
from liverjax.insight.receptive_field import seen_by
from liverjax.insight.taps import apply_with_tap, check_tap
from liverjax.models import UNet

#: What stands for "nothing to see": air; the slice without detail; its mean intensity.
BASELINES = ("air", "blurred", "mean")
#: Slices at once.
BATCH = 16
# Standard deviation in pixels of the blurred baseline.
_BLUR = 8.0


@dataclasses.dataclass(frozen=True)
class Map:
    """A map, and what is known of it.

    Attributes:
      values: (H, W) float32.
      method: how it was made, with its settings, in words.
      signed: whether values below 0 speak against the class.
      error: of integrated gradients, the completeness error: |sum of the map - (y(slice) - y(baseline))| over the
        size of that difference. NaN of other maps.
    """

    values: np.ndarray
    method: str
    signed: bool
    error: float = float("nan")


@functools.partial(jax.jit, static_argnums=0)
def _scores(network: UNet, variables: dict, slices: jax.Array, pixels: jax.Array, label) -> jax.Array:
    logits, _ = apply_with_tap(network, variables, slices)
    return jnp.where(pixels[None], jnp.take(logits, label, axis=-1), 0).sum((1, 2))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(network: UNet, variables: dict, slices: jax.Array, pixels: jax.Array, label) -> jax.Array:
    return jax.grad(lambda x: _scores(network, variables, x, pixels, label).sum())(slices)


def in_batches(compute: Callable[[np.ndarray], jax.Array], slices: np.ndarray) -> np.ndarray:
    """Returns what a function of slices (BATCH, H, W) makes of any number of them: one program serves all."""
    found = []
    for start in range(0, len(slices), BATCH):
        some = slices[start : start + BATCH]
        padding = [(0, BATCH - len(some)), (0, 0), (0, 0)]
        found.append(np.asarray(compute(np.pad(some, padding)))[: len(some)])
    return np.concatenate(found)


def scores(network: UNet, variables: dict, slices: np.ndarray, pixels: np.ndarray, label: int) -> np.ndarray:
    """Returns y (N,) of slices (N, H, W): the sum of the label's logits over ``pixels`` (H, W)."""
    return in_batches(lambda some: _scores(network, variables, some, pixels, label), slices)


def baseline_of(image: np.ndarray, baseline: str) -> np.ndarray:
    """Returns the slice (H, W) that has nothing to see.

    Raises:
      ConfigError: ``baseline`` is none of `BASELINES`.
    """
    if baseline not in BASELINES:
        raise ConfigError(f"baseline is {baseline!r}{did_you_mean(baseline, BASELINES)}")
    if baseline == "blurred":
        return ndimage.gaussian_filter(image.astype(np.float32), _BLUR, mode="nearest")
    return np.full_like(image, -1 if baseline == "air" else image.mean(dtype=np.float64), np.float32)


def grad_cam(
    network: UNet, variables: dict, image: np.ndarray, pixels: np.ndarray, label: int, tap: str = ""
) -> Map:
    """Returns Seg-Grad-CAM: ReLU(sum_k alpha_k A_k), alpha_k the mean of d y / d A_k over the pixels of map k.

    Vinogradova et al. 2020, equation 2. The map is brought to the slice by linear interpolation.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      image: (H, W) slice in [-1, 1].
      pixels: (H, W) bool, the set M.
      label: the class.
      tap: whose maps A_k are; see `UNet.taps`. "": the bottleneck's, which that paper finds to say most.

    Raises:
      ConfigError: there is no such tap.
    """
    tap = tap or f"encoder_{len(network.features) - 1}"
    check_tap(network, tap)
    values = _grad_cam(network, variables, image[None], pixels, label, tap)
    return Map(np.asarray(values), f"Seg-Grad-CAM at {tap}", signed=False)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _grad_cam(network, variables, slices, pixels, label, tap) -> jax.Array:
    shape = jax.eval_shape(lambda: apply_with_tap(network, variables, slices, tap)[1])

    def score(added):
        logits, maps = apply_with_tap(network, variables, slices, tap, added)
        return jnp.where(pixels[None], jnp.take(logits, label, axis=-1), 0).sum(), maps

    gradient, maps = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = gradient.mean((1, 2), keepdims=True)
    found = jnp.maximum((weights * maps).sum(-1), 0)[0]
    return jax.image.resize(found, slices.shape[1:], "linear")


def gradient(
    network: UNet,
    variables: dict,
    image: np.ndarray,
    pixels: np.ndarray,
    label: int,
    *,
    smooth: int = 0,
    noise: float = 0.1,
    seed: int = 0,
) -> Map:
    """Returns |d y / d x|, or with ``smooth`` draws SmoothGrad: its mean over noisy slices.

    Smilkov et al. 2017, arXiv:1706.03825, who take a noise of 10 to 20 % of the range of intensities.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      image: (H, W) slice in [-1, 1].
      pixels: (H, W) bool, the set M.
      label: the class.
      smooth: number of draws; 0: the slice as it is.
      noise: standard deviation, as a share of the range.
      seed: of the draws.
    """
    slices = image[None]
    if smooth:
        random = np.random.default_rng(seed)
        slices = image + 2 * noise * random.standard_normal((smooth, *image.shape), np.float32)
    found = in_batches(lambda some: _gradients(network, variables, some, pixels, label), slices)
    method = f"SmoothGrad, {smooth} draws, noise {noise:.0%}" if smooth else "gradient"
    return Map(np.abs(found).mean(0), method, signed=False)


def integrated_gradients(
    network: UNet,
    variables: dict,
    image: np.ndarray,
    pixels: np.ndarray,
    label: int,
    baseline: str = "air",
    *,
    tolerance: float = 0.01,
    most_steps: int = 512,
) -> Map:
    """Returns integrated gradients: (x - b) times the mean of d y / d x on the way from the baseline b to the slice x.

    Sundararajan et al. 2017, arXiv:1703.01365. The values of the map add up to y(x) - y(b) (completeness). The mean is
    a trapezoid sum, whose steps are halved until the map does so within the tolerance.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      image: (H, W) slice in [-1, 1].
      pixels: (H, W) bool, the set M.
      label: the class.
      baseline: one of `BASELINES`.
      tolerance: the completeness error that is small enough.
      most_steps: where halving ends, even if the error is still larger; it stands in the result.

    Raises:
      ConfigError: an unknown baseline.
    """
    start = baseline_of(image, baseline)
    way = image - start
    first, last = scores(network, variables, np.stack([start, image]), pixels, label).astype(np.float64)

    def total(shares: np.ndarray) -> np.ndarray:
        slices = (start + share * way for share in shares.astype(np.float32))
        found = np.zeros(image.shape, np.float64)
        while some := [slice_ for _, slice_ in zip(range(BATCH), slices, strict=False)]:
            # Batch by batch: all steps at once would be hundreds of slices.
            found += in_batches(
                lambda batch: _gradients(network, variables, batch, pixels, label), np.stack(some)
            ).sum(0, dtype=np.float64)
        return found

    steps = BATCH
    inner = total(np.arange(1, steps) / steps)
    ends = total(np.array([0.0, 1.0])) / 2
    while True:
        values = way * (ends + inner) / steps
        error = abs(values.sum() - (last - first)) / max(abs(last - first), np.finfo(np.float32).tiny)
        if error <= tolerance or steps >= most_steps:
            break
        inner += total((np.arange(steps) + 0.5) / steps)
        steps *= 2
    method = f"integrated gradients, baseline {baseline}, {steps} steps, completeness error {error:.2%}"
    return Map(values.astype(np.float32), method, signed=True, error=float(error))


def occlusion(
    network: UNet,
    variables: dict,
    image: np.ndarray,
    pixels: np.ndarray,
    label: int,
    baseline: str = "air",
    *,
    patch: int = 8,
) -> Map:
    """Returns by how much y falls if a square of the slice is replaced by the baseline (Zeiler and Fergus 2014).

    Needs no gradients. Squares on which y cannot depend, by the theoretical receptive field, are left out: 0.

    Args:
      network: the architecture.
      variables: its variables.
      image: (H, W) slice in [-1, 1].
      pixels: (H, W) bool, the set M.
      label: the class.
      baseline: one of `BASELINES`.
      patch: side of the squares in pixels, which do not overlap.

    Raises:
      ConfigError: an unknown baseline.
    """
    other = baseline_of(image, baseline)
    whole = scores(network, variables, image[None], pixels, label)[0]
    squares = patches(network, pixels, patch)
    values = np.zeros(image.shape, np.float32)
    for start in range(0, len(squares), BATCH):
        some = squares[start : start + BATCH]
        occluded = np.repeat(image[None].astype(np.float32), len(some), 0)
        for slice_, square in zip(occluded, some, strict=True):
            slice_[square] = other[square]
        for square, score in zip(some, scores(network, variables, occluded, pixels, label), strict=True):
            values[square] = whole - score
    return Map(values, f"occlusion, baseline {baseline}, squares of {patch} pixels", signed=True)


def patches(network: UNet, pixels: np.ndarray, patch: int) -> list[tuple[slice, slice]]:
    """Returns the squares of a raster of the slice on which an answer at ``pixels`` (H, W) can depend."""
    bounds = []
    for axis in (0, 1):
        where = np.flatnonzero(pixels.any(1 - axis))
        first, last = seen_by(len(network.features), int(where[0]), int(where[-1]))
        size = pixels.shape[axis]
        starts = range(0, size, patch)
        bounds.append(
            [slice(s, min(s + patch, size)) for s in starts if s <= last and min(s + patch, size) > first]
        )
    return [(rows, columns) for rows in bounds[0] for columns in bounds[1]]
