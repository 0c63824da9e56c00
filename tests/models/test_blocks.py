"""The parts of the network against plain definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from liverjax.models.blocks import UpConv, max_pool, resize_channels


def test_up_convolution_equals_the_transposed_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    module = UpConv(jnp.float32)
    params = module.init(jax.random.key(1), x)["params"]
    params["bias"] = jnp.arange(4.0)
    # (in, 2 * 2 * out) -> (2, 2, in, out), as flax's transposed convolution has it.
    kernel = params["kernel"].reshape(4, 2, 2, 4).transpose(1, 2, 0, 3)
    transposed = nn.ConvTranspose(4, (2, 2), strides=(2, 2))
    # flax turns the kernel round: its tap [0, 0] is the lower right pixel.
    expected = transposed.apply({"params": {"kernel": kernel[::-1, ::-1], "bias": params["bias"]}}, x)
    got = module.apply({"params": params}, x)
    assert got.shape == (2, 6, 10, 4)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_up_convolution_lays_each_tap_where_its_index_says():
    x = jnp.ones((1, 1, 1, 1))
    params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]]), "bias": jnp.array([10.0])}
    got = UpConv(jnp.float32).apply({"params": params}, x)[0, :, :, 0]
    np.testing.assert_array_equal(got, [[11, 12], [13, 14]])


def test_max_pool_takes_the_largest_of_each_window():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))


def test_rectangular_identity_pads_with_zeros_and_cuts():
    x = jnp.arange(4.0).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(resize_channels(x, 3)[0, 0], [[0, 1, 0], [2, 3, 0]])
    np.testing.assert_array_equal(resize_channels(x, 1)[0, 0], [[0], [2]])
    np.testing.assert_array_equal(resize_channels(x, 2), x)
