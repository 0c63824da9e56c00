"""The networks of all views as one pytree; folding them; applying them so that padding has no influence."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import lax

from liverjax.models import UNet
from liverjax.models.blocks import ConvNorm, UpConv

#: What flax's batch norm adds to the variance.
_EPSILON = 1e-5


@struct.dataclass
class Networks:
    """The variables of all networks of a model, a pytree.

    Each view has the same number of networks, its members: the restarts that were kept, the best first; or those of
    several runs, one run after the other. They are stacked along a leading axis of every array, also a single one.

    Attributes:
      variables: for each view the parameters and statistics, arrays (members, ...).
      members: number of networks of each view.
      runs: number of runs that they are of, equally many of each.
    """

    variables: dict[str, dict]
    members: int = struct.field(pytree_node=False)
    runs: int = struct.field(pytree_node=False, default=1)

    def __repr__(self) -> str:
        runs = f" from {self.runs} runs" if self.runs > 1 else ""
        return f"Networks({', '.join(self.views)}; {self.members} of each{runs}, {self.nbytes / 1e6:.1f} MB)"

    @classmethod
    def stack(cls, members: Mapping[str, Sequence[dict]]) -> Networks:
        """Returns the networks of which ``members`` lists the variables, equally many for each view."""
        (count,) = {len(own) for own in members.values()}
        # In NumPy, here and below: for each shape of an array jax would compile a program of its own.
        stacked = {view: jax.tree.map(lambda *a: np.stack(a), *own) for view, own in members.items()}
        return cls(stacked, count)

    @classmethod
    def of_runs(cls, runs: Sequence[Networks]) -> Networks:
        """Returns the networks of several runs, which have the same views and equally many members."""
        (members,) = {one.members for one in runs}
        joined = {
            view: jax.tree.map(lambda *a: np.concatenate(a), *(one.variables[view] for one in runs))
            for view in runs[0].views
        }
        return cls(joined, members * len(runs), len(runs))

    @property
    def views(self) -> tuple[str, ...]:
        """The views that have networks."""
        return tuple(self.variables)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in jax.tree.leaves(self.variables))

    def member(self, view: str, index: jax.Array | int = 0) -> dict:
        """Returns the variables of one network of a view; ``index`` may be traced."""

        def one(array):
            if isinstance(index, int) or self.members == 1:  # no copy in each turn of a loop
                return array[index if self.members > 1 else 0]
            return lax.dynamic_index_in_dim(array, index, keepdims=False)

        return jax.tree.map(one, self.variables[view])

    def each(self) -> Iterator[tuple[str, int, dict]]:
        """Yields the view, the index and the variables of every network, view by view."""
        for view in self.views:
            for index in range(self.members):
                yield view, index, self.member(view, index)

    def best(self) -> Networks:
        """Returns the first member of each view alone; of several runs the first of each."""
        if self.members == self.runs:
            return self
        each = self.members // self.runs
        return Networks(jax.tree.map(lambda array: array[::each], self.variables), self.runs, self.runs)

    def select(self, views: Sequence[str]) -> Networks:
        """Returns the networks of some views."""
        return Networks({view: self.variables[view] for view in views}, self.members, self.runs)

    def fold(self, network: UNet) -> tuple[UNet, Networks]:
        """Returns what `fold` makes of every network of this architecture."""
        architecture = network
        folded: dict[str, list[dict]] = {view: [] for view in self.views}
        for view, _, variables in self.each():
            architecture, own = fold(network, variables)
            folded[view].append(own)
        return architecture, Networks(Networks.stack(folded).variables, self.members, self.runs)


def fold(network: UNet, variables: dict) -> tuple[UNet, dict]:
    """Returns a network that maps slices to the same logits with fewer products, and its variables.

    Batch norms go into the convolutions before them, and up-convolutions into those behind them (`JoinedConv`). What
    was joined stays among the variables, for draws of dropout, which need both steps by themselves.
    """
    variables = jax.tree.map(np.asarray, variables)
    params = variables["params"]
    if network.norm == "batch":
        network, params = network.clone(norm="none"), _folded(params, variables["batch_stats"])
    params = dict(params)
    for level, features in enumerate(network.features[:-1]):
        decoder, up = params[f"decoder_{level}"], params[f"up_{level}"]
        conv = decoder["first"]["conv"]
        kernel = conv["kernel"]
        skip = {**conv, "kernel": kernel[:, :, :features]}
        joined = {"skip": skip, "below": {"kernel": _joined(up, kernel[:, :, features:])}}
        params[f"decoder_{level}"] = {**decoder, "first": {**decoder["first"], "joined": joined}}
    return network.clone(joined=True), {"params": params}


@jax.jit
def _joined(up: dict, kernel: jax.Array) -> jax.Array:
    """Returns the kernel (2, 2, C + 1, 4F) of a `JoinedConv` for an up-convolution and a kernel (3, 3, D, F)."""
    # Over output pixel 2k - 1 + a, tap t of the kernel meets phase p of pixel w of window k: [a, t, p, w].
    meets = np.zeros((2, 3, 2, 2), np.float32)
    for a, t in np.ndindex(2, 3):
        w, p = divmod(a + t, 2)
        meets[a, t, p, w] = 1
    depth, features = kernel.shape[2:]
    ups = jnp.concatenate([up["kernel"], jnp.tile(up["bias"], 4)[None]]).reshape(-1, 2, 2, depth)
    joined = jnp.einsum("atpw,buqv,cpqd,tudf->wvcabf", meets, meets, ups, kernel, precision="highest")
    return joined.reshape(2, 2, -1, 4 * features)


def _folded(params: dict, statistics: dict) -> dict:
    """Returns parameters into which batch norms are folded.

    At prediction a batch norm is an affine map per channel, so with s = scale / sqrt(var + epsilon)::

        norm(K * x) = s (K * x - mean) + bias = (s K) * x + (bias - s mean)
    """
    if "norm" in params:
        scale = params["norm"]["scale"] / np.sqrt(statistics["norm"]["var"] + _EPSILON)
        kernel = params["conv"]["kernel"] * scale[None, None, None]
        return {
            "conv": {"kernel": kernel, "bias": params["norm"]["bias"] - scale * statistics["norm"]["mean"]}
        }
    return {
        name: _folded(value, statistics[name]) if name in statistics else value
        for name, value in params.items()
    }


def apply_within(
    network: UNet, variables: dict, slices: jax.Array, extent: jax.Array, dropout: jax.Array | None = None
) -> jax.Array:
    """Returns the logits of padded slices, as they are without the padding.

    Beyond the extent all feature maps are set to zero as they are made, which is what a convolution pads an array
    with that ends there; group norms leave it out of their statistics.

    Args:
      network: the architecture.
      variables: its variables.
      slices: (N, H, W) float32.
      extent: (2,) int32, how many rows and columns count; multiples of 2**(levels - 1). May be traced.
      dropout: key of one draw of the decoder's spatial dropout, the same feature maps in all slices; None: no
        dropout.

    Returns:
      (N, H, W, C) float32; beyond the extent without meaning.
    """

    def changed(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, (ConvNorm, UpConv)):
            return _cut(call(*args, **kwargs), slices, extent)
        if isinstance(module, nn.Conv) and module.kernel_size == (2, 2):
            return call(_cut(args[0], slices, extent))  # for its channel of ones
        if isinstance(module, nn.GroupNorm):
            return call(args[0], mask=jnp.broadcast_to(_inside(args[0], slices, extent), args[0].shape))
        if isinstance(module, nn.Dropout) and dropout is not None and module.rate > 0:
            kept = jax.random.bernoulli(
                module.make_rng("dropout"), 1 - module.rate, (1, 1, 1, args[0].shape[-1])
            )
            return args[0] * kept.astype(args[0].dtype) / (1 - module.rate)
        return call(*args, **kwargs)

    rngs = {}
    if dropout is not None:
        # Between an up-convolution and the convolution that it is folded into, maps are dropped.
        network, rngs = network.clone(joined=False), {"dropout": dropout}
    with nn.intercept_methods(changed):
        logits = network.apply(variables, _cut(slices[..., None], slices, extent), rngs=rngs)
    return typing.cast(jax.Array, logits)


def _cut(features: jax.Array, slices: jax.Array, extent: jax.Array) -> jax.Array:
    return jnp.where(_inside(features, slices, extent), features, 0)


def _inside(features: jax.Array, slices: jax.Array, extent: jax.Array) -> jax.Array:
    """Returns (1, h, w, 1), whether a pixel of feature maps (N, h, w, C) of any level lies within the extent."""
    _, rows, columns, _ = features.shape
    inside_rows = jnp.arange(rows) * (slices.shape[1] // rows) < extent[0]
    inside_columns = jnp.arange(columns) * (slices.shape[2] // columns) < extent[1]
    return inside_rows[None, :, None, None] & inside_columns[None, None, :, None]
