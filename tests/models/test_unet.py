"""The U-net: its size, its receptive field, and that each of its parts matters."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.errors import ConfigError
from liverjax.models import UNet, build_unet
from liverjax.options import Model


def _count(network: UNet) -> int:
    slices = jnp.zeros((1, 64, 64, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0), slices)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_default_network_has_the_parameters_that_its_docstring_derives():
    widths = (64, 128, 256, 512)
    stem = 9 * widths[0]
    encoder = 9 * sum(a * b + b * b for a, b in zip((64, *widths[:-1]), widths, strict=True))
    up = sum(4 * w * w + w for w in widths[1:])
    decoder = 9 * sum((2 * w + w) * w + w * w for w in widths[:-1])
    norms = 2 * (widths[0] + 2 * sum(widths) + 2 * sum(widths[:-1]))
    head = widths[0] * 2 + 2
    derived = stem + encoder + up + decoder + norms + head
    assert _count(UNet(classes=2)) == derived == 9_198_786


def test_projections_cost_the_encoder_one_by_one_kernels():
    extra = 64 * 128 + 128 * 256 + 256 * 512
    assert _count(UNet(classes=2, short_skips="projection")) == 9_198_786 + extra


def test_without_norm_each_convolution_has_a_bias():
    norms = 2 * (64 + 2 * 960 + 2 * 448)
    assert _count(UNet(classes=2, norm="none")) == 9_198_786 - norms + norms // 2


def test_default_network_has_a_receptive_field_of_94_and_102():
    _assert_receptive_field((1, 1, 1, 1), size=240, expected={94, 102})


def _assert_receptive_field(features, size, expected):
    """Marks the input pixels with a gradient at each phase of the pooling window.

    All-positive kernels and inputs make every path of the network add up: nothing cancels and no ReLU is off. In a
    constant image the maxima are ties, whose gradient is split over all pixels of a window.
    """
    network = UNet(classes=1, features=features, norm="none", dropout=0.0)
    image = jnp.ones((1, size, size, 1))
    variables = jax.tree.map(lambda p: jnp.full_like(p, 0.1), network.init(jax.random.key(0), image))
    gradient = jax.jit(jax.grad(lambda x, i: network.apply(variables, x)[0, i, size // 2, 0]))
    window = 2 ** (len(features) - 1)
    widths = set()
    for phase in range(window):
        seen = np.flatnonzero(np.asarray(gradient(image, size // 2 + phase))[0, :, :, 0].any(axis=1))
        assert seen.min() > 0 and seen.max() < size - 1, "the image is too small to see the whole field"
        widths.add(int(seen.max() - seen.min() + 1))
    assert widths == expected


def test_receptive_field_of_two_levels():
    # Stem and two convolutions before the pooling: 3 pixels to each side, 7 in all. The pooling pairs pixels, two
    # convolutions then reach 2 pooled pixels to each side: 5 * 2 + 6 = 16 input pixels. Up-convolved, the pixels of
    # the decoder's two 3x3 convolutions reach 2 pixels to each side of the output pixel, 5 in all; these
    # come from 3 pooled pixels, whatever the phase: 16 + 2 * 2 = 20.
    _assert_receptive_field((1, 1), size=40, expected={20})


def test_slices_that_cannot_be_pooled_are_refused():
    with pytest.raises(ValueError, match="12 x 16 pixels, expected multiples of 8"):
        UNet(classes=2).init(jax.random.key(0), jnp.zeros((1, 12, 16, 1)))


@pytest.fixture(scope="module")
def small():
    network = UNet(classes=3, features=(4, 8, 16), dropout=0.5)
    image = jax.random.normal(jax.random.key(1), (2, 16, 24, 1))
    variables = network.init(jax.random.key(0), image)
    # Statistics other than 0 and 1, so that evaluation is no accident.
    variables = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape) ** 2, variables
    )
    return network, variables, image


def test_logits_have_the_shape_of_the_slices_and_are_float32(small):
    network, variables, image = small
    logits = network.clone(dtype=jnp.bfloat16).apply(variables, image)
    assert logits.shape == (2, 16, 24, 3) and logits.dtype == jnp.float32


def test_every_parameter_has_an_influence(small):
    network, variables, image = small
    weights = jax.random.normal(jax.random.key(2), (2, 16, 24, 3))

    def scalar(params):
        return (network.apply({**variables, "params": params}, image) * weights).sum()

    gradient = flax.traverse_util.flatten_dict(jax.grad(scalar)(variables["params"]), sep="/")
    silent = [name for name, g in gradient.items() if not np.abs(g).max() > 0]
    assert silent == []


@pytest.mark.parametrize("level", [0, 1])
def test_every_long_skip_has_an_influence(small, level):
    network, variables, image = small
    params = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    kernel = f"decoder_{level}/first/conv/kernel"
    without = dict(params)
    # The first channels that the decoder sees are those of the long skip.
    without[kernel] = params[kernel].at[:, :, : network.features[level]].set(0)
    plain = network.clone(short_skips="none")
    variables_without = {**variables, "params": flax.traverse_util.unflatten_dict(without, sep="/")}
    assert not np.allclose(plain.apply(variables, image), plain.apply(variables_without, image), atol=1e-3)


def test_short_skips_have_an_influence_of_their_own(small):
    network, variables, image = small
    with_skips = network.apply(variables, image)
    assert not np.allclose(with_skips, network.clone(short_skips="none").apply(variables, image), atol=1e-3)


def test_dropout_drops_whole_maps_in_the_decoder_only_while_training(small):
    network, variables, image = small
    still = network.apply(variables, image)
    np.testing.assert_array_equal(still, network.clone(dropout=0.0).apply(variables, image))

    def training(key, rate):
        net = network.clone(dropout=rate)
        return net.apply(variables, image, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    assert not np.allclose(training(jax.random.key(0), 0.5), training(jax.random.key(1), 0.5))
    np.testing.assert_array_equal(training(jax.random.key(0), 0.0), training(jax.random.key(1), 0.0))


def test_group_norm_divides_any_width():
    network = UNet(classes=2, features=(12, 20), norm="group")
    image = jnp.ones((1, 8, 8, 1))
    assert network.apply(network.init(jax.random.key(0), image), image).shape == (1, 8, 8, 2)


def test_auto_dtype_is_bfloat16_on_accelerators_only():
    assert build_unet(Model(), 2, accelerator=True).dtype == jnp.bfloat16
    assert build_unet(Model(), 2, accelerator=False).dtype == jnp.float32
    assert build_unet(Model(dtype="float32"), 2, accelerator=True).dtype == jnp.float32


def test_unknown_norm_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"model.norm is 'batsh'; did you mean 'batch'\?"):
        Model(norm="batsh")
