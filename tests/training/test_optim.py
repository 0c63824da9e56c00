"""Rates of the schedules, and first steps of the optimisers, against values derived by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.options import Train
from liverjax.training.optim import build_optimizer, learning_rate


@pytest.mark.parametrize(("schedule", "halfway"), [("constant", 1.0), ("cosine", 0.5), ("poly", 0.5**0.9)])
def test_schedules_at_the_start_halfway_and_at_the_end(schedule, halfway):
    options = Train(learning_rate=1.0, warmup_steps=0, cooldown_share=0.25, schedule=schedule)
    rates = [learning_rate(options, step, 100) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates, [1.0, halfway, 0.0], atol=1e-12)


def test_the_rate_rises_over_the_warm_up():
    options = Train(learning_rate=1.0, warmup_steps=3)
    assert [learning_rate(options, step, 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def _first_direction(**options):
    params = {"kernel": jnp.full((1, 1), 4.0), "bias": jnp.full(1, 4.0)}
    gradient = {"kernel": jnp.full((1, 1), 0.5), "bias": jnp.full(1, -0.5)}
    optimizer = build_optimizer(Train(clip_norm=0.0, **options))
    direction, _ = optimizer.update(gradient, optimizer.init(params), params)
    return [float(direction[name].squeeze()) for name in ("kernel", "bias")]


def test_first_steps_of_the_optimisers():
    # Adam's bias correction makes the first step the sign of the gradient.
    np.testing.assert_allclose(_first_direction(optimizer="adam"), [1, -1], atol=1e-5)
    # 0.1 of the kernel 4 is added; biases do not decay.
    np.testing.assert_allclose(_first_direction(optimizer="adamw", weight_decay=0.1), [1.4, -1], atol=1e-5)
    # Nesterov: g + momentum * (g + momentum * 0).
    np.testing.assert_allclose(_first_direction(optimizer="sgd", momentum=0.9), [0.95, -0.95], atol=1e-6)


def test_the_gradient_is_clipped_before_adam_and_not_after():
    # Gradients of norm 5 and 50 are both clipped to norm 1 and become the same to Adam, whose moments then are too;
    # clipped after it, the second moment would hold 25 and 2500.
    params = {"kernel": jnp.zeros((1, 2))}
    optimizer = build_optimizer(Train(clip_norm=1.0))
    state = optimizer.init(params)
    for scale in (1.0, 10.0):
        gradient = {"kernel": scale * jnp.array([[3.0, 4.0]])}
        direction, state = optimizer.update(gradient, state, params)
    # Both steps have the gradient (0.6, 0.8): after bias correction m / sqrt(v) is its sign.
    np.testing.assert_allclose(direction["kernel"], [[1.0, 1.0]], atol=1e-4)
    moments = [np.asarray(leaf) for leaf in jax.tree.leaves(state) if np.shape(leaf) == (1, 2)]
    # 1 - 0.9^2 and 1 - 0.999^2 of the clipped gradient and its square.
    expected = [0.19 * np.array([[0.6, 0.8]]), 0.001999 * np.array([[0.36, 0.64]])]
    for moment, value in zip(moments, expected, strict=True):
        np.testing.assert_allclose(moment, value, rtol=1e-3)


def test_muon_gives_kernels_the_orthogonal_part_of_their_gradient_and_the_others_to_adam():
    random = np.random.default_rng(0)
    shapes = {"stem": (3, 3, 1, 8), "block": (3, 3, 4, 8), "up": (4, 32), "head": (1, 1, 8, 2), "scale": (8,)}
    gradient = {name: {"kernel": random.normal(size=shape)} for name, shape in shapes.items()}
    optimizer = build_optimizer(Train(optimizer="muon", clip_norm=0.0))
    direction, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    for name, size in (("block", (36, 8)), ("up", (4, 32))):
        found = np.asarray(direction[name]["kernel"]).reshape(size)
        u, _, v = np.linalg.svd(gradient[name]["kernel"].reshape(size), full_matrices=False)
        # Each direction of the gradient has the same length, but for what Newton-Schulz leaves (0.7 to 1.2), and the
        # root mean square of the whole is 0.2, as that of Adam about is: 0.2 = length * sqrt(rank / number).
        lengths = np.diag(u.T @ found @ v.T) / (0.2 * np.sqrt(found.size / min(size)))
        np.testing.assert_allclose(lengths, 0.95, atol=0.3)
        np.testing.assert_allclose(u @ (u.T @ found @ v.T) @ v, found, atol=1e-3)
    # Adam with Nesterov's momentum looks a step ahead (Dozat 2016): 0.9 m / (1 - 0.9^2) + 0.1 g / (1 - 0.9), m = 0.1 g.
    for name in ("stem", "head", "scale"):
        expected = (0.09 / 0.19 + 1) * np.sign(gradient[name]["kernel"])
        np.testing.assert_allclose(direction[name]["kernel"], expected, atol=1e-3)
