"""How far a network sees: the theoretical receptive field, and the effective one (Luo et al. 2016, arXiv:1701.04128).

The effective field of a unit is the mean of |d y / d x| over real slices and positions, y the unit's value and x the
slice. Its side is the square root of the number of pixels at which the mean exceeds 1 - 0.9545 of its value at the
unit's own place: what lies within two standard deviations, if it were a Gaussian.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from liverjax.insight.seen import Seen
from liverjax.insight.taps import apply_with_tap, check_tap
from liverjax.models import UNet

#: Share of the centre's value above which a pixel counts to the effective field.
THRESHOLD = 1 - 0.9545
_BATCH = 8

#: First and last pixel along an axis.
Interval = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Field:
    """The effective receptive field of the units of one kind.

    Attributes:
      mean: (2R + 1, 2R + 1) float64, mean of |d y / d x| by the offset of the pixel from the unit, rows first; R is
        the farthest that the network can see. An offset counts the samples whose slice has such a pixel.
      samples: number of slices and positions.
      theoretical: smallest and largest width in pixels that the architecture allows.
      spacing: mm between rows and between columns.
      reaching: share of the samples that depend on the slice at all; a unit that a ReLU silences does not.
    """

    mean: np.ndarray
    samples: int
    theoretical: tuple[int, int]
    spacing: tuple[float, float]
    reaching: float

    @property
    def above(self) -> np.ndarray:
        """(2R + 1, 2R + 1) bool, the offsets of the effective field."""
        radius = len(self.mean) // 2
        return self.mean > THRESHOLD * self.mean[radius, radius]

    @property
    def side(self) -> float:
        """The side in pixels of a square of the effective field's area."""
        return float(np.sqrt(np.count_nonzero(self.above)))

    @property
    def side_mm(self) -> float:
        """The side in mm of a square of the effective field's area."""
        return self.side * float(np.sqrt(self.spacing[0] * self.spacing[1]))


def seen_by(levels: int, first: int, last: int, tap: str = "") -> Interval:
    """Returns the pixels of the slice along one axis on which the output, or a tap, at some pixels can depend.

    Args:
      levels: of the U-net.
      first: first pixel of the output; of a tap, in its own pixels.
      last: last pixel.
      tap: one of `UNet.taps`; "": the output.

    Returns:
      First and last pixel, which may lie beyond the slice.
    """
    side, _, number = (tap or "decoder_0").partition("_")
    level = int(number)
    return (_encoder if side == "encoder" or level == levels - 1 else _decoder)(levels, level, first, last)


def _encoder(levels: int, level: int, first: int, last: int) -> Interval:
    first, last = first - 2, last + 2  # two 3x3 convolutions
    if level == 0:
        return first - 1, last + 1  # the stem
    return _encoder(levels, level - 1, 2 * first, 2 * last + 1)  # the pooling


def _decoder(levels: int, level: int, first: int, last: int) -> Interval:
    first, last = first - 2, last + 2
    below = _encoder if level + 1 == levels - 1 else _decoder
    skipped, deep = (
        _encoder(levels, level, first, last),
        below(levels, level + 1, first // 2, last // 2),
    )
    return min(skipped[0], deep[0]), max(skipped[1], deep[1])


def theoretical(levels: int, tap: str = "") -> tuple[int, int]:
    """Returns the smallest and the largest width in pixels of the field; it depends on the phase of the poolings.

    94 and 102 for the output of a network of four levels.
    """
    phases = (0,) if tap.startswith("encoder") else range(2 ** (levels - 1))
    widths = [1 + last - first for first, last in (seen_by(levels, p, p, tap) for p in phases)]
    return min(widths), max(widths)


def radius(levels: int) -> int:
    """Returns the farthest pixel from its own place on which an output can depend."""
    sides = [(phase, *seen_by(levels, phase, phase)) for phase in range(2 ** (levels - 1))]
    return max(max(place - first, last - place) for place, first, last in sides)


def effective_field(
    network: UNet,
    variables: dict,
    scans: Sequence[Seen],
    view: str,
    label: int = 1,
    tap: str = "",
    *,
    samples: int = 64,
    seed: int = 0,
) -> Field:
    """Measures the effective receptive field on real slices.

    Positions are drawn among the pixels of the label in the predicted masks, and where no mask has one, among all that
    are not air. Of a tap, each sample looks at one feature map, drawn too.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      scans: of `look`.
      view: the view of the slices.
      label: the class whose logit is the unit.
      tap: the unit is one of this tap's in place of a logit; see `UNet.taps`.
      samples: number of slices and positions.
      seed: of the draws.

    Raises:
      ConfigError: there is no such tap.
    """
    stride = check_tap(network, tap) if tap else 1
    levels = len(network.features)
    reach = radius(levels)
    random = np.random.default_rng(seed)
    drawn = _drawn(scans, view, label, samples, random)
    width = 1 if not tap else network.features[int(tap.partition("_")[2])]
    done = reaching = 0
    sums, counts = np.zeros((2, 2 * reach + 1, 2 * reach + 1))
    while batch := [place for _, place in zip(range(min(_BATCH, samples - done)), drawn, strict=False)]:
        channels = random.integers(width, size=len(batch)) if tap else np.full(len(batch), label)
        slices = _padded_batch([slice_ for slice_, _, _ in batch])
        places = np.array([(row // stride, column // stride) for _, row, column in batch])
        gradients = _gradients(network, variables, slices, places, channels, tap)
        for (slice_, _, _), place, gradient in zip(batch, places, np.asarray(gradients), strict=False):
            row, column = place * stride + stride // 2
            offsets = _around(np.abs(gradient), row, column, reach)
            sums += offsets
            counts += _around(np.ones(slice_.shape), row, column, reach)
            reaching += bool(offsets.any())
        done += len(batch)
    mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return Field(mean, done, theoretical(levels, tap), scans[0].spacing_of(view), reaching / max(done, 1))


def _drawn(
    scans: Sequence[Seen], view: str, label: int, samples: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yields slices with a row and a column of each, the scans in turn."""
    having = [seen for seen in scans if (seen.labels == label).any()] or list(scans)
    stacks = []
    for seen in having:
        labels = seen.stack(view, seen.labels)
        chosen = np.argwhere(labels == label if (labels == label).any() else seen.stack(view) > -1)
        stacks.append((seen.stack(view), chosen if len(chosen) else np.argwhere(labels >= 0)))
    for sample in range(samples):
        slices, chosen = stacks[sample % len(stacks)]
        index, row, column = chosen[random.integers(len(chosen))]
        yield slices[index], int(row), int(column)


def _padded_batch(slices: Sequence[np.ndarray]) -> np.ndarray:
    """Returns slices (N, H, W) of one size; to those of fewer rows and columns, air is added."""
    rows, columns = np.max([slice_.shape for slice_ in slices], axis=0)
    batch = np.full((_BATCH, rows, columns), -1, np.float32)
    for slice_, place in zip(slices, batch, strict=False):
        place[: slice_.shape[0], : slice_.shape[1]] = slice_
    return batch


def _around(values: np.ndarray, row: int, column: int, reach: int) -> np.ndarray:
    padded = np.pad(values, reach)
    return padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]


def _gradients(network, variables, slices, places, channels, tap) -> jax.Array:
    missing = len(slices) - len(places)
    places = np.pad(places, ((0, missing), (0, 0)), mode="edge")
    channels = np.pad(channels, (0, missing), mode="edge")
    return _unit_gradients(network, variables, slices, places, channels, tap)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _unit_gradients(network, variables, slices, places, channels, tap) -> jax.Array:
    """Returns (N, H, W), the gradient of one unit of each slice by the slice."""

    def units(slices):
        logits, maps = apply_with_tap(network, variables, slices, tap)
        values = maps if tap else logits
        return values[jnp.arange(len(slices)), places[:, 0], places[:, 1], channels].sum()

    return jax.grad(units)(slices)
