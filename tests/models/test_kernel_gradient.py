"""The kernel gradient of our own against XLA's, against its definition, and inside the whole network."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from liverjax.models import UNet, blocks, kernel_gradient
from liverjax.training.distributed import data_mesh


def _convolve(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_kernel_gradient_is_that_of_the_convolution(n, rows, columns, channels, features):
    random = np.random.default_rng(0)
    # Small integers: every sum is exact, so that no order of additions excuses a wrong pixel.
    x = jnp.asarray(random.integers(-4, 5, (n, rows, columns, channels)), jnp.float32)
    dy = jnp.asarray(random.integers(-4, 5, (n, rows, columns, features)), jnp.float32)
    kernel = jnp.zeros((3, 3, channels, features))
    (expected,) = jax.vjp(lambda kernel: _convolve(x, kernel), kernel)[1](dy)
    np.testing.assert_array_equal(kernel_gradient.kernel_gradient(x, dy), expected)


def test_a_single_pixel_reaches_the_tap_that_its_place_says():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(2.0)
    dy = jnp.zeros((1, 4, 4, 1)).at[0, 2, 1, 0].set(3.0)
    # y[2, 1] sees x[2 + i - 1, 1 + j - 1], which is x[1, 2] for i = 0, j = 2.
    expected = np.zeros((3, 3))
    expected[0, 2] = 6
    np.testing.assert_array_equal(kernel_gradient.kernel_gradient(x, dy)[:, :, 0, 0], expected)


def test_sums_of_bfloat16_are_taken_in_float32():
    # One slice adds 256 and 128 slices add 1 each; in bfloat16 256 + 1 is 256.
    x = jnp.ones((129, 1, 1, 1), jnp.bfloat16).at[0].set(256)
    gradient = kernel_gradient.kernel_gradient(x, jnp.ones_like(x))
    assert gradient.dtype == jnp.bfloat16
    assert gradient[1, 1, 0, 0] == 384


@pytest.mark.parametrize(("channels", "size", "ours"), [(64, 128, True), (63, 128, False), (64, 64, False)])
def test_wide_convolutions_of_many_pixels_take_it_and_others_do_not(channels, size, ours):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    conv = nn.Conv(64, (3, 3), conv_general_dilated=kernel_gradient.conv_general_dilated)
    params = jax.eval_shape(conv.init, jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: conv.apply(params, x).sum())).lower(params, x).as_text()
    assert ("dot_general" in gradient) == ours


def _gradient(features, image):
    """Returns the gradient of a network in training, with dropout, for the slices."""
    network = UNet(classes=2, features=features, dropout=0.5)
    variables = network.init(jax.random.key(0), np.asarray(image[:1]))

    def loss_fn(params, image):
        logits, _ = network.apply(
            {**variables, "params": params},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return (jnp.tanh(logits) ** 2).sum() / image.size

    return jax.jit(jax.grad(loss_fn))(variables["params"], image)


def _assert_near(found, expected):
    whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(expected)))
    off = jax.tree.map(lambda a, b: np.linalg.norm(np.ravel(a - b)) / whole, found, expected)
    assert max(jax.tree.leaves(off)) < 1e-4, off


def test_gradients_of_the_whole_network_are_the_plain_ones(monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LEAST_CHANNELS", 1)
    monkeypatch.setattr(kernel_gradient, "_LEAST_PIXELS", 1)
    image = jax.random.normal(jax.random.key(2), (4, 32, 24, 1))
    calls = []
    own = kernel_gradient.kernel_gradient
    monkeypatch.setattr(kernel_gradient, "kernel_gradient", lambda x, dy: calls.append(x.shape) or own(x, dy))
    found = _gradient((4, 8, 12), image)
    # Traced once for each shape: from 1, 4, 12 to 4 channels, from 4, 8, 20 to 8, from 8 and 12 to 12.
    assert len(calls) == 8
    monkeypatch.setattr(blocks, "conv_general_dilated", lax.conv_general_dilated)
    expected = _gradient((4, 8, 12), image)
    assert len(calls) == 8
    _assert_near(found, expected)

    # Divided over devices, the sums are the same.
    monkeypatch.setattr(blocks, "conv_general_dilated", kernel_gradient.conv_general_dilated)
    _assert_near(_gradient((4, 8, 12), jax.device_put(image, _divided())), expected)


def _divided() -> NamedSharding:
    mesh = data_mesh(4, 1)
    assert mesh.size == 2
    return NamedSharding(mesh, PartitionSpec("data"))


def test_devices_exchange_nothing_but_the_sum():
    maps = jax.ShapeDtypeStruct((4, 16, 16, 8), jnp.float32, sharding=_divided())
    compiled = jax.jit(kernel_gradient.kernel_gradient).lower(maps, maps).compile().as_text()
    exchanges = re.findall(
        r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)\(", compiled
    )
    assert exchanges == ["all-reduce"]
