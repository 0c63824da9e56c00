"""OrthoMean: three 2D networks look at the slices of a volume along its axes, the mean of their softmax wins.

The triplanar idea is Prasoon 2013; the mean of the maps is that of Chlebus, Meine and colleagues.

Volumes are padded to a few shapes, so that few programs are compiled. How far has no influence on the result:
the network sees air up to the next multiple of what its poolings divide, and beyond it what it sees beyond any
array's end (see `network.apply_within`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from liverjax.inference.calibration import UNCALIBRATED, Calibration
from liverjax.inference.memory import accumulates_on_host
from liverjax.inference.network import Networks, apply_within
from liverjax.models import UNet
from liverjax.options import Predict
from liverjax.views import VIEWS, from_stack, slice_axis, to_stack

#: What a volume is padded with: air, the low end of the window.
_AIR = -1.0
# By how much of a vote a member's softmax tells between classes with equally many votes, at most.
_TIE_BREAK = 0.01


#: A function of a view, its slices (N, H, W) of any size and the index of the member that returns the calibrated
#: softmax (N, H, W, C).
Backend = Callable[[str, np.ndarray, int], np.ndarray]


class Fused(NamedTuple):
    """What all members say together: a member is one network of a view, with its slices mirrored or not and
    one draw of dropout if any.

    Attributes:
      probabilities: (X, Y, Z, C) float32, summing to 1 over the classes.
      member_entropy: (X, Y, Z) float32, mean over the members of the entropy of their softmax in nats; or None.
    """

    probabilities: np.ndarray
    member_entropy: np.ndarray | None


def orthomean(
    networks: Networks,
    voxels: np.ndarray,
    network: UNet,
    options: Predict,
    *,
    calibration: Calibration = UNCALIBRATED,
    spread: bool = False,
    samples: int = 0,
    device: jax.Device | None = None,
    backend: Backend | None = None,
) -> Fused:
    """Fuses the class probabilities that the members give a volume, by default to their mean.

    One jitted program does all views; it is compiled once for each padded shape. If the device is too small for
    the sum, one program does a slab of slices, and the host adds them up.

    Args:
      networks: of all views that are fused, on ``device``.
      voxels: (X, Y, Z) float32 in [-1, 1], canonical axes.
      network: the architecture of all views.
      options: padding, number of slices at once, fusion rule, mirrored slices, place of the accumulator.
      calibration: temperatures and weights.
      spread: also return the members' own entropy.
      samples: number of draws of the decoder's dropout per network; one draw holds for all slices. 0: no dropout.
      device: where to compute; by default where jax does.
      backend: computes the networks in jax's place; of ``networks`` only the views and the number of members count
        then, and there are no samples.
    """
    multiple = 2 ** (len(network.features) - 1)
    bucket = options.bucket if backend is None else multiple
    padded = np.pad(voxels, [(0, -size % bucket) for size in voxels.shape], constant_values=_AIR)
    views = {
        view: {
            "networks": networks.select([view]),
            "extent": _extent(voxels.shape, view, multiple),
            "temperature": np.float32(calibration.temperature.get(view, 1)),
            "weights": np.asarray(calibration.weights.get(view, (1,) * network.classes), np.float32),
        }
        for view in networks.views
    }
    rule = _Rule(network, options.fusion, spread, samples, networks.members, options.flips)
    if backend is not None:

        def add(settings, slab, view, turn):
            member, _ = rule.member_and_sample(turn)
            mirrored = functools.partial(rule.mirrored, extent=settings["extent"][1:], turn=turn)
            seen = mirrored(backend(view, mirrored(slab), member))
            return _share(seen, settings["weights"], rule=rule)

        fused = _add_on_host(views, padded, rule, options.batch_size, add)
    elif accumulates_on_host(
        padded.shape, network, options, device, channels=rule.channels, members=rule.members
    ):

        def add(settings, slab, view, turn):
            return _seen(settings, jax.device_put(slab, device), turn, rule=rule, view=view)

        fused = _add_on_host(views, padded, rule, options.batch_size, add)
    else:
        fused = _add_on_device(
            views, jax.device_put(padded, device), rule=rule, batch_size=options.batch_size
        )
    inside = tuple(slice(size) for size in voxels.shape)
    return Fused(*(part if part is None else np.asarray(part)[inside] for part in fused))


def _extent(shape: tuple[int, int, int], view: str, multiple: int) -> np.ndarray:
    """Returns how many slices, rows and columns of a view count, int32; rows and columns rounded up."""
    slices, *size = to_stack(np.broadcast_to(0, shape), view).shape
    return np.array([slices, *(-(-n // multiple) * multiple for n in size)], np.int32)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a member adds to the sum; hashable, so that a program is compiled for each."""

    network: UNet
    fusion: str
    spread: bool
    samples: int
    members: int
    flips: bool

    @property
    def channels(self) -> int:
        return self.network.classes + self.spread

    @property
    def mirrors(self) -> int:
        """In how many ways each slice is mirrored: not, along the rows, along the columns, along both."""
        return 4 if self.flips else 1

    @property
    def turns(self) -> int:
        """How often each slice of a view is looked at: mirrored in each way, by each member, with each sample."""
        return self.mirrors * self.members * max(self.samples, 1)

    @property
    def tie_break(self) -> float:
        """By how much of a vote a member's softmax tells between equals: all members together by less than one."""
        return min(_TIE_BREAK, 0.5 / (len(VIEWS) * self.turns))

    def member_and_sample(self, turn: jax.Array | int) -> tuple[jax.Array | int, jax.Array | int]:
        """Returns the index of the member and that of the sample of its dropout that have a turn."""
        turn = turn // self.mirrors
        return turn % self.members, turn // self.members

    def seen(self, settings: dict, slices: jax.Array, view: str, turn: jax.Array | int) -> jax.Array:
        """Returns what slices (N, H, W) of a view add in one turn: (N, H, W, channels)."""
        extent = settings["extent"][1:]
        member, sample = self.member_and_sample(turn)
        variables = settings["networks"].member(view, member)
        dropout = jax.random.fold_in(jax.random.key(VIEWS.index(view)), sample) if self.samples else None
        logits = apply_within(self.network, variables, self.mirrored(slices, extent, turn), extent, dropout)
        probabilities = jax.nn.softmax(self.mirrored(logits, extent, turn) / settings["temperature"])
        return self.share(probabilities, settings["weights"])

    def mirrored(self, stack: jax.Array, extent: jax.Array, turn: jax.Array | int) -> jax.Array:
        """Returns (N, H, W, ...) mirrored within the extent in the way of a turn; twice, it is as it was."""
        if self.flips:
            for axis in (1, 2):
                other = jnp.roll(jnp.flip(stack, axis), extent[axis - 1], axis)
                stack = jnp.where(turn % 4 & axis > 0, other, stack)
        return stack

    def share(self, probabilities: jax.Array, weights: jax.Array) -> jax.Array:
        """Returns what a member's softmax (N, H, W, C) adds to the sum: (N, H, W, channels)."""
        if self.fusion == "weighted":
            share = probabilities * weights[None, None, None]
        elif self.fusion == "majority":
            vote = jax.nn.one_hot(probabilities.argmax(-1), self.network.classes)
            share = vote + self.tie_break * probabilities
        else:
            share = probabilities
        entropy = [jax.scipy.special.entr(probabilities).sum(-1, keepdims=True)] if self.spread else []
        return jnp.concatenate([share, *entropy], axis=-1)

    def mean(self, total, views: int):
        """Returns the fused probabilities of the sum, and the members' mean entropy or None."""
        members = views * self.turns
        classes = total[..., : self.network.classes]
        if self.fusion == "weighted":
            size = classes.sum(-1, keepdims=True) + np.finfo(np.float32).tiny
        else:
            size = members * (1 + self.tie_break * (self.fusion == "majority"))
        return classes / size, total[..., self.network.classes] / members if self.spread else None


@functools.partial(jax.jit, static_argnames=("rule", "batch_size"))
def _add_on_device(views: dict[str, dict], volume: jax.Array, *, rule: _Rule, batch_size: int) -> tuple:
    """Returns the means of `_Rule.mean` over all views of a padded volume (X, Y, Z)."""
    total = jnp.zeros((*volume.shape, rule.channels), jnp.float32)
    for view, settings in views.items():
        axis = slice_axis(view)
        # The padded size is a multiple of the bucket, so that the slabs cover it without a rest.
        thickness = math.gcd(volume.shape[axis], batch_size)
        # Slabs of nothing but padding are left out.
        slabs = (settings["extent"][0] + thickness - 1) // thickness

        def add(i, total, *, view=view, settings=settings, axis=axis, thickness=thickness, slabs=slabs):
            start = i % slabs * thickness
            slab = to_stack(lax.dynamic_slice_in_dim(volume, start, thickness, axis), view)
            seen = from_stack(rule.seen(settings, slab, view, i // slabs), view)
            before = lax.dynamic_slice_in_dim(total, start, thickness, axis)
            return lax.dynamic_update_slice_in_dim(total, before + seen, start, axis)

        # One accumulator for all members, changed in place slab by slab.
        total = lax.fori_loop(0, slabs * rule.turns, add, total)
    return rule.mean(total, len(views))


@functools.partial(jax.jit, static_argnames=("rule", "view"))
def _seen(settings: dict, slices: jax.Array, turn: int, *, rule: _Rule, view: str) -> jax.Array:
    return rule.seen(settings, slices, view, turn)


@functools.partial(jax.jit, static_argnames="rule")
def _share(probabilities: jax.Array, weights: jax.Array, *, rule: _Rule) -> jax.Array:
    return rule.share(probabilities, weights)


def _add_on_host(
    views: dict[str, dict], volume: np.ndarray, rule: _Rule, batch_size: int, seen: Callable
) -> tuple:
    """Does what `_add_on_device` does, with no more on the device than a slab.

    Args:
      views: as for `_add_on_device`.
      volume: the padded volume.
      rule: how to add and divide.
      batch_size: number of slices at once.
      seen: returns what a slab adds, of a view's settings, the slab, the view and the number of the turn.
    """
    total = np.zeros((*volume.shape, rule.channels), np.float32)
    for view, settings in views.items():
        slices, sums = to_stack(volume, view), to_stack(total, view)
        thickness = math.gcd(len(slices), batch_size)
        for turn in range(rule.turns):
            ahead = None
            for start in range(0, int(settings["extent"][0]), thickness):
                slab = slice(start, start + thickness)
                # The device works on this slab while the host adds the one before.
                added = seen(settings, slices[slab], view, turn)
                if ahead is not None:
                    sums[ahead[0]] += np.asarray(ahead[1])
                ahead = slab, added
            sums[ahead[0]] += np.asarray(ahead[1])
    return rule.mean(total, len(views))
