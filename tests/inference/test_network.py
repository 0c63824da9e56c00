"""The slice network at prediction: folded norms, and dropout that all slices share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.inference.network import apply_within, fold_batch_norm
from liverjax.models import UNet


def _trained(network: UNet) -> dict:
    noise = np.random.default_rng(3)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    return jax.tree.map(lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype), variables)


@pytest.mark.parametrize("short_skips", ["identity", "projection"])
def test_a_folded_network_gives_the_same_logits(short_skips):
    network = UNet(classes=2, features=(4, 6, 8), short_skips=short_skips)
    variables = _trained(network)
    slices = jax.random.normal(jax.random.key(1), (2, 16, 24, 1))
    folded, parameters = fold_batch_norm(network, variables)
    assert folded.norm == "none" and set(parameters) == {"params"}
    np.testing.assert_allclose(
        folded.apply(parameters, slices), network.apply(variables, slices), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("norm", ["group", "none"])
def test_other_norms_stay(norm):
    network = UNet(classes=2, features=(4, 8), norm=norm)
    variables = _trained(network)
    folded, parameters = fold_batch_norm(network, variables)
    assert folded is network and parameters["params"] is variables["params"]


def test_dropout_is_drawn_once_for_all_slices():
    network = UNet(classes=2, features=(4, 8), norm="none", dropout=0.5)
    variables = _trained(network)
    one = jax.random.normal(jax.random.key(1), (1, 16, 16))
    extent = np.array([16, 16])

    def logits(slices, seed):
        return np.asarray(apply_within(network, variables, slices, extent, jax.random.key(seed)))

    several = logits(jnp.concatenate([one, one, -one]), 0)
    np.testing.assert_array_equal(several[0], several[1])
    np.testing.assert_allclose(several[:1], logits(one, 0), atol=1e-5)
    assert np.abs(several[:1] - logits(one, 1)).max() > 1e-3
    # The mean over many draws of a linear layer is the layer without dropout; the last block's input shows it:
    # with a rate of nothing, a draw changes nothing.
    still = network.clone(dropout=0.0)
    np.testing.assert_allclose(
        apply_within(still, variables, one, extent, jax.random.key(0)),
        still.apply(variables, one[..., None]),
        atol=1e-5,
    )
