"""How the answers of all networks become one: the rule of the fusion, as one hashable value."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from liverjax.inference.network import Networks, apply_within
from liverjax.models import UNet
from liverjax.options import Predict
from liverjax.prediction import Uncertainty
from liverjax.views import VIEWS

Array = jax.Array | np.ndarray

#: Weight of the softmax as a tie-break between classes with equal votes.
_TIE_BREAK = 0.01


class ViewSettings(NamedTuple):
    """What differs between views.

    Attributes:
      extent: (3,) int32, how many slices, rows and columns of the padded volume count; rows and columns are multiples
        of what the network's poolings divide by.
      temperature: () float32, what the logits are divided by.
      weights: (C,) float32, weight of each class; used by the fusion "weighted".
    """

    extent: Array
    temperature: Array
    weights: Array


class Fused(NamedTuple):
    """The answers of all networks as one.

    Attributes:
      probabilities: (X, Y, Z, C) float32 from which labels are decided, summing to 1 over the classes: the mean of the
        softmax maps, their weighted mean, or with "majority" the shares of the votes.
      other_mean: (X, Y, Z, C) float32, the plain mean of the softmax maps; None if ``probabilities`` are that.
      member_entropy: (X, Y, Z) float32, the mean of the entropies of the softmax maps in nats; None if not asked for.
    """

    probabilities: np.ndarray
    other_mean: np.ndarray | None
    member_entropy: np.ndarray | None

    def uncertainty(self) -> Uncertainty:
        """Returns the maps of uncertainty, of a fusion with ``member_entropy``; under every rule of the plain mean."""
        if self.member_entropy is None:
            raise ValueError("fused without member_entropy")
        mean = self.probabilities if self.other_mean is None else self.other_mean
        entropy = _entropy(mean)
        largest = np.float32(np.log(mean.shape[-1]))
        # The entropy of a mean is at least the mean entropy; rounding alone can put it below.
        disagreement = np.maximum(entropy - self.member_entropy, 0)
        return Uncertainty(entropy / largest, disagreement / largest)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy in nats over the last axis, class by class: few arrays of a volume's size at once."""
    total = np.zeros(probabilities.shape[:-1], np.float32)
    for share in np.moveaxis(probabilities, -1, 0):
        total -= share * np.log(np.maximum(share, np.finfo(np.float32).tiny))
    return np.maximum(total, 0)


@dataclasses.dataclass(frozen=True)
class FusionPlan:
    """What is computed, and how it is summed; hashable, so that one program is compiled for each plan.

    Every network of a view passes over all slices of it several times: once for each way to mirror them and each
    sample of dropout. A pass gives one softmax map of the volume. Fused are those of all passes of all views.

    Attributes:
      network: the architecture of all networks.
      members: number of networks of each view.
      fusion: "mean", "weighted" or "majority", see `options.Predict`.
      flips: also pass over the slices mirrored along rows, columns and both.
      samples: number of draws of the decoder's dropout; one draw holds for all slices. 0: no dropout.
      member_entropy: also return the mean entropy of the softmax maps.
      batch_size: number of slices at once; divides ``bucket``.
      bucket: shapes are padded to multiples of this.
      accumulator: where the maps are summed: "device", "host", or "auto".
    """

    network: UNet
    members: int = 1
    fusion: str = "mean"
    flips: bool = False
    samples: int = 0
    member_entropy: bool = False
    batch_size: int = 8
    bucket: int = 16
    accumulator: str = "auto"

    def __post_init__(self):
        if self.bucket % self.batch_size:
            raise ValueError(f"batch_size {self.batch_size} does not divide bucket {self.bucket}")

    @classmethod
    def of(
        cls,
        network: UNet,
        options: Predict,
        *,
        members: int = 1,
        samples: int = 0,
        member_entropy: bool = False,
    ) -> FusionPlan:
        """Returns the plan that a config's options make for a network; the other arguments are attributes."""
        return cls(
            network,
            members,
            options.fusion,
            options.flips,
            samples,
            member_entropy,
            options.batch_size,
            options.bucket,
            options.accumulator,
        )

    @property
    def multiple(self) -> int:
        """What rows and columns have to be multiples of: what the poolings divide by."""
        return 2 ** (len(self.network.features) - 1)

    @property
    def channels(self) -> int:
        """Channels of the sum: scores of the classes, their plain sum if the scores are another, the entropy."""
        return self.network.classes * (1 if self.fusion == "mean" else 2) + self.member_entropy

    @property
    def mirrors(self) -> int:
        """In how many ways each slice is mirrored: not, along the rows, along the columns, along both."""
        return 4 if self.flips else 1

    @property
    def passes(self) -> int:
        """Number of passes over each view."""
        return self.mirrors * self.members * max(self.samples, 1)

    @property
    def tie_break(self) -> float:
        """Weight of the softmax beside a vote: that of all passes together is less than one vote."""
        return min(_TIE_BREAK, 0.5 / (len(VIEWS) * self.passes))

    def member_and_sample(self, pass_index: jax.Array | int) -> tuple[jax.Array | int, jax.Array | int]:
        """Returns the index of the member and that of the sample of its dropout in a pass."""
        index = pass_index // self.mirrors
        return index % self.members, index // self.members

    def mirror(self, stack: Array, extent: Array, pass_index: jax.Array | int) -> jax.Array:
        """Returns (N, H, W, ...) mirrored within the extent (2,) as in a pass; applied twice, it is as it was."""
        stack = jnp.asarray(stack)
        if self.flips:
            for axis in (1, 2):
                mirrored = jnp.roll(jnp.flip(stack, axis), extent[axis - 1], axis)
                stack = jnp.where(pass_index % 4 & axis > 0, mirrored, stack)
        return stack

    def softmax(
        self,
        networks: Networks,
        settings: ViewSettings,
        slices: Array,
        view: str,
        pass_index: jax.Array | int,
    ) -> jax.Array:
        """Returns the calibrated softmax (N, H, W, C) of slices (N, H, W) of a view in a pass."""
        member, sample = self.member_and_sample(pass_index)
        dropout = jax.random.fold_in(jax.random.key(VIEWS.index(view)), sample) if self.samples else None
        extent = jnp.asarray(settings.extent)[1:]
        mirrored = self.mirror(slices, extent, pass_index)
        logits = apply_within(self.network, networks.member(view, member), mirrored, extent, dropout)
        return jax.nn.softmax(self.mirror(logits, extent, pass_index) / settings.temperature)

    def scores(self, softmax: Array, weights: Array) -> jax.Array:
        """Returns what a softmax map (N, H, W, C) adds to the sum: (N, H, W, channels)."""
        softmax = jnp.asarray(softmax)
        if self.fusion == "weighted":
            parts = [softmax * weights[None, None, None], softmax]
        elif self.fusion == "majority":
            vote = jax.nn.one_hot(softmax.argmax(-1), self.network.classes)
            parts = [vote + self.tie_break * softmax, softmax]
        else:
            parts = [softmax]
        if self.member_entropy:
            parts.append(jax.scipy.special.entr(softmax).sum(-1, keepdims=True))
        return jnp.concatenate(parts, axis=-1)

    def fused(self, total, views: int) -> Fused:
        """Returns the fusion whose sum over all passes of so many views is ``total`` (X, Y, Z, channels)."""
        classes, maps = self.network.classes, views * self.passes
        scores = total[..., :classes]
        if self.fusion == "weighted":
            size = scores.sum(-1, keepdims=True) + np.finfo(np.float32).tiny
        else:
            size = maps * (1 + self.tie_break * (self.fusion == "majority"))
        other_mean = None if self.fusion == "mean" else total[..., classes : 2 * classes] / maps
        return Fused(scores / size, other_mean, total[..., -1] / maps if self.member_entropy else None)
