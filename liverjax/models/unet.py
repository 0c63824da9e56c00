"""The slice network: a U-net with short and long skips, batch norm and spatial dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from liverjax.models.blocks import Block, ConvNorm, UpConv, max_pool
from liverjax.options import Model


class UNet(nn.Module):
    """2D U-net after Ronneberger 2015, with the residual blocks of Drozdzal 2016 (Chlebus 2018).

    Each level of the encoder is a residual block of two 3x3 convolutions; 2x2 max pooling joins the levels. Each level
    of the decoder is a 2x2 up-convolution that keeps its channels, concatenation with the long skip, and a residual
    block. A 1x1 convolution maps to the classes. A norm and ReLU follow every 3x3 convolution; in the decoder, spatial
    dropout precedes it.

    Parameters with the default widths, one input channel and two classes::

        stem      9*1*64                                                           576
        encoder   9*(64*64*2 + 64*128+128*128 + 128*256+256*256 + 256*512+512*512)   4,718,592
        up        4*(512*512 + 256*256 + 128*128) + biases 512+256+128           1,377,152
        decoder   9*(768*256+256*256 + 384*128+128*128 + 192*64+64*64)           3,096,576
        norms     2*(64 + 2*(64+128+256+512) + 2*(256+128+64))                       5,760
        head      64*2 + 2                                                             130
                                                                                 9,198,786

    The theoretical receptive field is 94 or 102 pixels wide along each axis, depending on the position of the output
    pixel in the 8x8 pooling window.

    Attributes:
      classes: number of output channels.
      features: channels of each level, from full resolution down.
      dropout: share of feature maps dropped before each 3x3 convolution of the decoder.
      norm: "batch", "group" or "none".
      norm_momentum: share of the running statistics that a step keeps.
      short_skips: "identity", "projection" (1x1 convolutions where the encoder's width changes) or "none".
      joined: whether up-convolutions are folded into the convolutions that follow; for prediction, without dropout.
      dtype: type of the activations. Parameters, norm statistics and the returned logits are float32.
    """

    classes: int
    features: tuple[int, ...] = Model.features
    dropout: float = Model.dropout
    norm: str = Model.norm
    norm_momentum: float = Model.norm_momentum
    short_skips: str = Model.short_skips
    joined: bool = False
    dtype: jnp.dtype = jnp.float32

    @property
    def taps(self) -> dict[str, int]:
        """The feature maps that have a name, from input to output: the outputs of the blocks, with their strides.

        A stride is the width in pixels of the slice that one pixel of the maps stands for.
        """
        levels = range(len(self.features))
        encoder = {f"encoder_{level}": 2**level for level in levels}
        return encoder | {f"decoder_{level}": 2**level for level in reversed(levels[:-1])}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the logits (N, H, W, classes) of slices (N, H, W, channels), float32.

        H and W must be multiples of 2**(levels - 1). If ``train``, the collection "batch_stats" is updated and the
        random stream "dropout" is used.
        """
        multiple = 2 ** (len(self.features) - 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"slices of {x.shape[1]} x {x.shape[2]} pixels, expected multiples of {multiple}"
            )
        norm = (self.norm, self.norm_momentum)
        # A 1x1 projection in the decoder would cost half a million parameters; it keeps the identity.
        decoder_skip = "identity" if self.short_skips == "projection" else self.short_skips

        x = x.astype(self.dtype)
        x = nn.relu(ConvNorm(self.features[0], *norm, 0.0, self.dtype, name="stem")(x, train=train))
        long_skips = []
        for level, features in enumerate(self.features):
            if level:
                long_skips.append(x)
                x = max_pool(x)
            block = Block(features, self.short_skips, *norm, 0.0, self.dtype, name=f"encoder_{level}")
            x = block(x, train=train)
        for level in reversed(range(len(self.features) - 1)):
            skip = long_skips[level]
            block = Block(
                self.features[level], decoder_skip, *norm, self.dropout, self.dtype, name=f"decoder_{level}"
            )
            if self.joined:
                x = block(skip, train=train, below=x)
            else:
                x = UpConv(self.dtype, name=f"up_{level}")(x)
                # The long skip comes first, so that the rectangular identity of the block carries it on.
                x = block(jnp.concatenate([skip, x], axis=-1), train=train)
        return nn.Conv(self.classes, (1, 1), dtype=jnp.float32, name="head")(x)


def build_unet(options: Model, classes: int, *, accelerator: bool) -> UNet:
    """Returns the network of a config; unless it names a dtype, activations are bfloat16 on accelerators."""
    dtype = options.dtype if options.dtype != "auto" else ("bfloat16" if accelerator else "float32")
    return UNet(
        classes=classes,
        features=options.features,
        dropout=options.dropout,
        norm=options.norm,
        norm_momentum=options.norm_momentum,
        short_skips=options.short_skips,
        dtype=jnp.dtype(dtype),
    )
