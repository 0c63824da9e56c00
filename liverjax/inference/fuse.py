"""OrthoMean: three 2D networks look at the slices of a volume along its axes, the mean of their softmax wins.

The triplanar idea is Prasoon 2013; the mean of the maps is that of Chlebus, Meine and colleagues.

Volumes are padded to a few shapes, so that few programs are compiled. How far has no influence on the result:
the network sees air up to the next multiple of what its poolings divide by, and beyond it what it sees beyond any
array's end (see `network.apply_within`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from liverjax.inference.calibration import UNCALIBRATED, Calibration
from liverjax.inference.memory import accumulates_on_host
from liverjax.inference.network import Networks
from liverjax.inference.plan import Array, Fused, FusionPlan, ViewSettings
from liverjax.views import from_stack, slice_axis, to_stack

#: A function of a view, its slices (N, H, W) float32 and the index of a member that returns the member's calibrated
#: softmax (N, H, W, C); H and W are multiples of what the poolings divide by, N is any.
Backend = Callable[[str, np.ndarray, int], np.ndarray]

#: What a volume is padded with: air, the low end of the window.
_AIR = -1.0


def orthomean(
    networks: Networks,
    voxels: np.ndarray,
    plan: FusionPlan,
    *,
    calibration: Calibration = UNCALIBRATED,
    device: jax.Device | None = None,
    backend: Backend | None = None,
) -> Fused:
    """Fuses the class probabilities that the networks give a volume, by default to their mean.

    One jitted program does all views; it is compiled once for each padded shape. If the device is too small for
    the sum, one program does a slab of slices, and the host adds them up.

    Args:
      networks: of all views that are fused, on ``device``.
      voxels: (X, Y, Z) float32 in [-1, 1], canonical axes.
      plan: how to fuse.
      calibration: temperatures and weights.
      device: where to compute; by default where jax does.
      backend: computes the networks in jax's place, without dropout; of ``networks`` only the views and the number of
        members count then.

    Returns:
      The maps on the volume's grid.

    Raises:
      ConfigError: the plan's fusion is "weighted", and the calibration lacks the weights of a view.
    """
    if plan.members != networks.members:
        raise ValueError(f"a plan for {plan.members} members, but {networks.members} networks of each view")
    if plan.fusion == "weighted":
        calibration.require_weights(networks.views)
    bucket = plan.bucket if backend is None else plan.multiple
    padded = np.pad(voxels, [(0, -size % bucket) for size in voxels.shape], constant_values=_AIR)
    views = {
        view: ViewSettings(
            _extent(voxels.shape, view, plan.multiple),
            np.asarray(calibration.temperature.get(view, 1), np.float32),
            np.asarray(calibration.weights.get(view, (1,) * plan.network.classes), np.float32),
        )
        for view in networks.views
    }
    if backend is not None:

        def backend_scores(slab: np.ndarray, view: str, pass_index: int) -> jax.Array:
            member, _ = plan.member_and_sample(pass_index)
            mirror = functools.partial(plan.mirror, extent=views[view].extent[1:], pass_index=pass_index)
            softmax = backend(view, np.asarray(mirror(slab)), int(member))
            return _scores(mirror(softmax), views[view].weights, plan=plan)

        fused = _fused_on_host(views, padded, plan, backend_scores)
    elif accumulates_on_host(padded.shape, plan, device):

        def jax_scores(slab: np.ndarray, view: str, pass_index: int) -> jax.Array:
            on_device = jax.device_put(slab, device)
            return _pass_scores(networks.select([view]), views[view], on_device, pass_index, plan=plan)

        fused = _fused_on_host(views, padded, plan, jax_scores)
    else:
        fused = _fused_on_device(networks, views, jax.device_put(padded, device), plan=plan)
    inside = tuple(slice(size) for size in voxels.shape)
    return jax.tree.map(lambda values: np.asarray(values)[inside], fused)


def _extent(shape: tuple[int, ...], view: str, multiple: int) -> np.ndarray:
    """Returns how many slices, rows and columns of a view count, int32; rows and columns rounded up."""
    slices, *size = to_stack(np.broadcast_to(0, shape), view).shape
    return np.array([slices, *(-(-n // multiple) * multiple for n in size)], np.int32)


@functools.partial(jax.jit, static_argnames="plan")
def _fused_on_device(
    networks: Networks, views: dict[str, ViewSettings], volume: jax.Array, *, plan: FusionPlan
) -> Fused:
    """Fuses a padded volume (X, Y, Z)."""
    total = jnp.zeros((*volume.shape, plan.channels), jnp.float32)
    thickness = plan.batch_size
    for view, settings in views.items():
        axis = slice_axis(view)
        # Slabs of nothing but padding are left out.
        slabs = (settings.extent[0] + thickness - 1) // thickness

        def add(i, total, *, view=view, settings=settings, axis=axis, slabs=slabs):
            start, pass_index = i % slabs * thickness, i // slabs
            slab = to_stack(lax.dynamic_slice_in_dim(volume, start, thickness, axis), view)
            softmax = plan.softmax(networks, settings, slab, view, pass_index)
            scores = from_stack(plan.scores(softmax, settings.weights), view)
            before = lax.dynamic_slice_in_dim(total, start, thickness, axis)
            return lax.dynamic_update_slice_in_dim(total, before + scores, start, axis)

        # One accumulator for all passes, changed in place slab by slab.
        total = lax.fori_loop(0, slabs * plan.passes, add, total)
    return plan.fused(total, len(views))


@functools.partial(jax.jit, static_argnames="plan")
def _pass_scores(networks, settings, slab, pass_index, *, plan: FusionPlan) -> jax.Array:
    (view,) = networks.views
    return plan.scores(plan.softmax(networks, settings, slab, view, pass_index), settings.weights)


@functools.partial(jax.jit, static_argnames="plan")
def _scores(softmax: Array, weights: Array, *, plan: FusionPlan) -> jax.Array:
    return plan.scores(softmax, weights)


def _fused_on_host(
    views: dict[str, ViewSettings],
    volume: np.ndarray,
    plan: FusionPlan,
    scores: Callable[[np.ndarray, str, int], jax.Array],
) -> Fused:
    """Does what `_fused_on_device` does, with no more on the device than a slab.

    Args:
      views: as for `_fused_on_device`.
      volume: the padded volume.
      plan: how to fuse.
      scores: returns what a slab adds to the sum, of the slab, its view and the index of the pass.
    """
    total = np.zeros((*volume.shape, plan.channels), np.float32)
    for view, settings in views.items():
        slices, sums = to_stack(volume, view), to_stack(total, view)
        for pass_index in range(plan.passes):
            ahead = None
            for start in range(0, int(settings.extent[0]), plan.batch_size):
                slab = slice(start, start + plan.batch_size)
                # The device works on this slab while the host adds the one before.
                added = scores(slices[slab], view, pass_index)
                if ahead is not None:
                    sums[ahead[0]] += np.asarray(ahead[1])
                ahead = slab, added
            if ahead is not None:
                sums[ahead[0]] += np.asarray(ahead[1])
    return plan.fused(total, len(views))
