"""The parts of the U-net: a normalised convolution, the residual block, pooling and up-convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from liverjax.models.kernel_gradient import conv_general_dilated

#: Largest number of groups of a group norm (Wu and He 2018 use 32); it is lowered to divide the channels.
_GROUPS = 32


class ConvNorm(nn.Module):
    """Spatial dropout, 3x3 convolution, normalisation. No activation.

    The convolution has a bias only if there is no norm, whose shift would replace it. If ``below`` is given, the
    convolution is a `JoinedConv`.
    """

    features: int
    norm: str
    norm_momentum: float
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, below: jax.Array | None = None) -> jax.Array:
        # One draw per feature map (Tompson 2015): neighbouring pixels are too alike to be dropped one by one.
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
        use_bias = self.norm == "none"
        if below is None:
            convolve = conv_general_dilated if train else None
            conv = nn.Conv(
                self.features,
                (3, 3),
                use_bias=use_bias,
                dtype=self.dtype,
                conv_general_dilated=convolve,
                name="conv",
            )
            x = conv(x)
        else:
            x = JoinedConv(self.features, use_bias, self.dtype, name="joined")(x, below)
        if self.norm == "batch":
            return nn.BatchNorm(
                use_running_average=not train, momentum=self.norm_momentum, dtype=self.dtype, name="norm"
            )(x)
        if self.norm == "group":
            groups = next(g for g in range(min(_GROUPS, self.features), 0, -1) if self.features % g == 0)
            return nn.GroupNorm(groups, dtype=self.dtype, name="norm")(x)
        return x


class Block(nn.Module):
    """Two 3x3 convolutions and a short skip around both: y = relu(F(x) + W x) (Drozdzal 2016).

    W is the identity. Where the width changes, W is the rectangular identity, which has no parameters: new channels
    start from zero and surplus channels are dropped; or, if ``skip`` is "projection", a 1x1 convolution.

    If ``below`` is given, ``x`` is the long skip, and the up-convolved ``below`` is concatenated to it implicitly (see
    `JoinedConv`).
    """

    features: int
    skip: str
    norm: str
    norm_momentum: float
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, below: jax.Array | None = None) -> jax.Array:
        settings = (self.norm, self.norm_momentum, self.dropout, self.dtype)
        y = nn.relu(ConvNorm(self.features, *settings, name="first")(x, train=train, below=below))
        y = ConvNorm(self.features, *settings, name="second")(y, train=train)
        if self.skip == "identity" or (self.skip == "projection" and x.shape[-1] == self.features):
            y += resize_channels(x, self.features)
        elif self.skip == "projection":
            y += nn.Conv(self.features, (1, 1), use_bias=False, dtype=self.dtype, name="projection")(x)
        return nn.relu(y)


class UpConv(nn.Module):
    """2x2 transposed convolution with stride 2 that keeps its channels: (N, H, W, C) -> (N, 2H, 2W, C).

    Computed as a 1x1 convolution to 4C channels, which are then rearranged to 2x2 pixels: the same sums as those of
    the transposed convolution, and faster on CPUs and GPUs.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        # Each output pixel sees one tap, so the fan-in is the channels alone.
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (channels, 4 * channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        y = depth_to_space(jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype)))
        return y + bias.astype(self.dtype)[None, None, None]


class JoinedConv(nn.Module):
    """Up-convolution, concatenation with the long skip and 3x3 convolution in one step; for prediction.

    The 3x3 up-convolved pixels under an output pixel come from 2x2 pixels of the level below. One 2x2 convolution from
    C + 1 to 4F channels, rearranged to 2x2 pixels, therefore replaces the up-convolution and a convolution with 9/4 as
    many products. The channel of ones carries the bias of the up-convolution, which ends at the border of the array.
    `inference.network.fold` computes the kernels.
    """

    features: int
    use_bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, skip: jax.Array, below: jax.Array) -> jax.Array:
        """Maps (N, 2H, 2W, F) and (N, H, W, C) to (N, 2H, 2W, F)."""
        below = jnp.concatenate([below, jnp.ones_like(below[..., :1])], axis=-1)
        conv = nn.Conv(4 * self.features, (2, 2), padding=1, use_bias=False, dtype=self.dtype, name="below")
        y = conv(below)
        # Output pixels 2k - 1 and 2k see window k, which holds the pixels k - 1 and k of the level below.
        y = depth_to_space(y)[:, 1:-1, 1:-1]
        return y + nn.Conv(self.features, (3, 3), use_bias=self.use_bias, dtype=self.dtype, name="skip")(skip)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Returns (N, H, W, 4C) with the channels of each pixel rearranged to 2x2 pixels: (N, 2H, 2W, C)."""
    n, rows, columns, channels = x.shape
    x = x.reshape(n, rows, columns, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * rows, 2 * columns, channels // 4)


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max pooling of (N, H, W, C), as maxima of pairs; equal pixels share the gradient.

    The gradient of a maximum over axes divides by the number of pixels that equal it. A compiler that recomputes x for
    this comparison, with another rounding, may find none: 0 / 0. Here the two pixels of a pair are compared.
    """
    n, rows, columns, channels = x.shape
    x = x.reshape(n, rows // 2, 2, columns // 2, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def resize_channels(x: jax.Array, features: int) -> jax.Array:
    """Returns the first ``features`` channels of (N, H, W, C), padded with zeros if C is smaller."""
    missing = features - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) if missing > 0 else x[..., :features]
