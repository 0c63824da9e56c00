"""The slice network at prediction: folded norms, and dropout that all slices share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.inference.network import apply_within, fold
from liverjax.models import UNet


def _trained(network: UNet) -> dict:
    noise = np.random.default_rng(3)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    return jax.tree.map(lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype), variables)


@pytest.mark.parametrize(
    "changes",
    [{}, {"short_skips": "projection"}, {"short_skips": "none"}, {"norm": "group"}, {"norm": "none"}],
    ids=str,
)
def test_a_folded_network_gives_the_same_logits(changes):
    network = UNet(classes=2, features=(4, 6, 8), **changes)
    variables = _trained(network)
    slices = jax.random.normal(jax.random.key(1), (2, 16, 24, 1))
    folded, parameters = fold(network, variables)
    assert folded.joined and folded.norm != "batch" and set(parameters) == {"params"}
    found, expected = (jax.jit(n.apply)(v, slices) for n, v in ((folded, parameters), (network, variables)))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_joining_spares_a_quarter_of_the_products():
    network = UNet(classes=2, norm="none")
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    variables = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), shapes)
    _, parameters = fold(network, variables)

    def products(network, variables):
        slices = jax.ShapeDtypeStruct((1, 128, 128, 1), jnp.float32)
        return jax.jit(network.apply).lower(variables, slices).cost_analysis()["flops"]

    # Of each of three joined steps 4 products stay of 9 + 1, of the up-convolved channels alone.
    assert products(network.clone(joined=True), parameters) < 0.78 * products(network, variables)


def test_dropout_is_drawn_once_for_all_slices():
    network = UNet(classes=2, features=(4, 8), norm="none", dropout=0.5)
    variables = _trained(network)
    joined, folded = fold(network, variables)
    one = jax.random.normal(jax.random.key(1), (1, 16, 16))
    extent = np.array([16, 16])

    def logits(slices, seed):
        return np.asarray(apply_within(network, variables, slices, extent, jax.random.key(seed)))

    several = logits(jnp.concatenate([one, one, -one]), 0)
    np.testing.assert_array_equal(several[0], several[1])
    np.testing.assert_allclose(several[:1], logits(one, 0), atol=1e-5)
    assert np.abs(several[:1] - logits(one, 1)).max() > 1e-3
    # A folded network draws the same, between what was joined.
    drawn = apply_within(joined, folded, one, extent, jax.random.key(0))
    np.testing.assert_allclose(drawn, logits(one, 0), atol=1e-5)
    # The mean over many draws of a linear layer is the layer without dropout; the last block's input shows it:
    # with a rate of nothing, a draw changes nothing.
    still = network.clone(dropout=0.0)
    np.testing.assert_allclose(
        apply_within(still, variables, one, extent, jax.random.key(0)),
        still.apply(variables, one[..., None]),
        atol=1e-5,
    )
