"""The objective, by cases small enough for the hand, and its behaviour at the extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax.options import Loss
from liverjax.training.losses import cross_entropy_loss, segmentation_loss, soft_dice_loss

both = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


def _logits(foreground_probabilities):
    """Logits of two classes for one slice of one row, from probabilities of class 1."""
    p = jnp.asarray(foreground_probabilities, jnp.float32)
    return jnp.stack([jnp.log(1 - p), jnp.log(p)], axis=-1)[None, None]


@both
def test_dice_of_three_pixels(wrap):
    # p = 0.5, 0.25, 0.75; t = 1, 0, 1: overlap 1.25, sizes 1.5 + 2; with s = 1: (2.5 + 1) / (3.5 + 1) = 7/9.
    got = wrap(soft_dice_loss)(_logits([0.5, 0.25, 0.75]), jnp.array([[[1, 0, 1]]]))
    assert float(got) == pytest.approx(1 - 7 / 9, abs=1e-6)


@both
def test_dice_without_foreground_pushes_probabilities_down(wrap):
    # t = 0: dice = 1 / (sum p + 1); with p = 0.5, 0.25, 0.25: 1 / 2.
    labels = jnp.zeros((1, 1, 3), int)
    logits = _logits([0.5, 0.25, 0.25])
    loss, gradient = jax.value_and_grad(wrap(soft_dice_loss))(logits, labels)
    assert float(loss) == pytest.approx(0.5, abs=1e-6)
    assert np.isfinite(gradient).all() and (gradient[..., 1] > 0).all()


def test_dice_is_over_the_batch_and_not_per_slice():
    # Slice 1 holds all foreground and is right, slice 2 is empty and claims 1 pixel:
    # overlap 2, sizes 3 + 2: (4 + 1) / (5 + 1).
    one, zero = 1 - 1e-7, 1e-7
    logits = jnp.concatenate([_logits([one, one]), _logits([one, zero])])
    labels = jnp.array([[[1, 1]], [[0, 0]]])
    assert float(soft_dice_loss(logits, labels)) == pytest.approx(1 - 5 / 6, abs=1e-5)


def test_dice_of_two_foreground_classes_is_their_mean():
    # Hard answers 1, 1, 0 for labels 1, 2, 0. Class 1: overlap 1, sizes 2 + 1 -> 3/4. Class 2: 0, 0 + 1 -> 1/2.
    logits = 50.0 * jax.nn.one_hot(jnp.array([[[1, 1, 0]]]), 3)
    assert float(soft_dice_loss(logits, jnp.array([[[1, 2, 0]]]))) == pytest.approx(
        1 - (0.75 + 0.5) / 2, abs=1e-6
    )


@both
def test_cross_entropy_of_three_pixels(wrap):
    got = wrap(cross_entropy_loss)(_logits([0.5, 0.25, 0.75]), jnp.array([[[1, 0, 1]]]))
    assert float(got) == pytest.approx(-(np.log(0.5) + np.log(0.75) + np.log(0.75)) / 3, abs=1e-6)


def test_each_term_has_an_influence_by_its_weight():
    logits, labels = _logits([0.5, 0.25, 0.75]), jnp.array([[[1, 0, 1]]])
    dice, entropy = float(soft_dice_loss(logits, labels)), float(cross_entropy_loss(logits, labels))
    assert float(segmentation_loss(logits, labels, Loss(2.0, 3.0))) == pytest.approx(
        2 * dice + 3 * entropy, rel=1e-6
    )
    assert float(segmentation_loss(logits, labels, Loss(1.0, 0.0))) == pytest.approx(dice, rel=1e-6)
    assert float(segmentation_loss(logits, labels, Loss(0.0, 1.0))) == pytest.approx(entropy, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.1, 10.0, 1000.0]),
    foreground=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_value_and_gradient_are_finite_whatever_the_batch(seed, scale, foreground):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(scale * random.standard_normal((2, 4, 4, 3)), jnp.float32)
    labels = jnp.asarray((random.random((2, 4, 4)) < foreground) * random.integers(1, 3, (2, 4, 4)))
    loss, gradient = jax.value_and_grad(segmentation_loss)(logits, labels, Loss())
    assert np.isfinite(loss) and loss >= 0 and np.isfinite(gradient).all()


# --- weights of pixels --------------------------------------------------------------------------------------


@both
def test_weighted_terms_of_three_pixels(wrap):
    # p = 0.5, 0.25, 0.75; t = 1, 0, 1; w = 2, 1, 0. Dice: overlap 2 x 0.5, sizes (1 + 0.25) + 2: (2 + 1) / (3.25 + 1).
    labels, weight = jnp.array([[[1, 0, 1]]]), jnp.array([[[2.0, 1.0, 0.0]]])
    got = wrap(soft_dice_loss)(_logits([0.5, 0.25, 0.75]), labels, weight)
    assert float(got) == pytest.approx(1 - 3 / 4.25, abs=1e-6)
    # Cross-entropy: (2 log 2 + log 4/3) / 3.
    got = wrap(cross_entropy_loss)(_logits([0.5, 0.25, 0.75]), labels, weight)
    assert float(got) == pytest.approx((2 * np.log(2) + np.log(4 / 3)) / 3, abs=1e-6)


def test_pixels_of_weight_0_have_no_influence_and_a_batch_of_them_a_finite_loss():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    labels = jax.random.bernoulli(jax.random.key(1), shape=(2, 4, 4)).astype(jnp.uint8)
    weight = jnp.ones((2, 4, 4)).at[:, 2:].set(0)
    value, gradient = jax.value_and_grad(segmentation_loss)(logits, labels, Loss(), weight)
    cut = segmentation_loss(logits[:, :2], labels[:, :2], Loss())
    assert float(value) == pytest.approx(float(cut), abs=1e-6)
    assert not gradient[:, 2:].any() and gradient[:, :2].any()
    value, gradient = jax.value_and_grad(segmentation_loss)(logits, labels, Loss(), 0 * weight)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    # Ones are no weights.
    plain = segmentation_loss(logits, labels, Loss())
    assert float(segmentation_loss(logits, labels, Loss(), jnp.ones((2, 4, 4)))) == pytest.approx(
        float(plain), abs=1e-6
    )
