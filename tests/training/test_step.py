"""One step: clipping, the moving average, micro-batches, the sharded optimiser, and the validation counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from liverjax.data.augment import normalise
from liverjax.models import build_unet
from liverjax.options import Augment, Loss, Model, Train
from liverjax.training.distributed import data_mesh, replicated, to_devices
from liverjax.training.optim import build_optimizer
from liverjax.training.step import (
    StepSpec,
    init_state,
    jitted_train_step,
    overlap_counts,
    start_from,
    train_step,
)

OFF = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment) if field.name != "own"})
SGD = build_optimizer(Train(clip_norm=0.0, optimizer="sgd", momentum=0.0))


def _batch(rows=4):
    random = np.random.default_rng(0)
    return {
        "image": random.integers(-100, 100, (rows, 8, 8)).astype(np.int16),
        "window": np.tile(np.float32([-100, 100, 1]), (rows, 1)),
        "label": random.integers(0, 2, (rows, 8, 8)).astype(np.uint8),
    }


def _step(spec, steps=1, rate=0.1):
    """Returns the states before and after so many steps, and the last metrics."""
    states = [init_state(spec, (8, 8), 0, jax.sharding.SingleDeviceSharding(jax.devices()[0]))]
    for _ in range(steps):
        state, metrics = train_step(states[-1], _batch(), jnp.float32(rate), jax.random.key(0), spec)
        states.append(state)
    return states, metrics


@pytest.fixture
def plain():
    # No batch norm and no dropout, and cross-entropy alone: a mean over rows, however they are grouped.
    network = build_unet(Model(features=(2, 4), norm="none", dropout=0.0), 2, accelerator=False)
    return StepSpec(network, SGD, OFF, Loss(dice=0.0))


def test_micro_batches_add_up_to_the_batch_if_the_loss_is_a_mean_over_rows(plain):
    (_, whole), metrics = _step(plain)
    (_, summed), summed_metrics = _step(dataclasses.replace(plain, accumulate=2))
    np.testing.assert_allclose(summed_metrics["loss"], metrics["loss"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(summed.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_gradient_is_clipped_before_the_optimiser_sees_it(plain):
    norm = float(_step(plain)[1]["gradient_norm"])
    clipped = build_optimizer(Train(clip_norm=norm / 4, optimizer="sgd", momentum=0.0))
    for optimizer, factor in ((SGD, 1.0), (clipped, 0.25)):
        (before, after), metrics = _step(dataclasses.replace(plain, optimizer=optimizer))
        moved = jax.tree.map(lambda a, b: b - a, before.params, after.params)
        np.testing.assert_allclose(optax.tree.norm(moved), 0.1 * factor * norm, rtol=1e-4)
        np.testing.assert_allclose(
            metrics["gradient_norm"], norm, rtol=1e-6
        )  # as it was, not as it was clipped


def test_the_moving_average_follows_parameters_and_statistics():
    # Step t keeps min(decay, (1 + t) / (10 + t)): 1/10, 2/11, and from step 2 on 0.2 instead of 3/12.
    network = build_unet(Model(features=(2, 4), dropout=0.0, norm_momentum=0.5), 2, accelerator=False)
    states, _ = _step(StepSpec(network, SGD, OFF, Loss(), ema_decay=0.2), steps=4)
    expected = states[0].variables
    for kept, state in zip((1 / 10, 2 / 11, 0.2, 0.2), states[1:], strict=True):
        expected = jax.tree.map(lambda old, new, k=kept: k * old + (1 - k) * new, expected, state.variables)
        assert state.chosen_variables is state.average
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.average, expected)
    # The statistics move, so that an average which left them out would be seen.
    last = states[-1]
    apart = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), last.average["batch_stats"], last.batch_stats
    )
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_rows_of_padding_do_not_count_in_the_validation_dice(plain):
    state = init_state(plain, (8, 8), 0, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    batch = _batch(6)
    logits = plain.network.apply(state.variables, normalise(batch["image"], batch["window"]))
    bias = jnp.array([jnp.median(logits[..., 1] - logits[..., 0]), 0])  # so that half of the pixels are liver
    state.params["head"]["bias"] += bias
    counts, predicted, _ = overlap_counts(
        state.variables, {**batch, "weight": np.float32([1, 1, 1, 1, 0, 0])}, network=plain.network
    )
    p, r = np.asarray(predicted[:4]) == 1, batch["label"][:4] == 1
    assert (np.asarray(predicted[4:]) == 1).any() and batch["label"][4:].any()
    np.testing.assert_array_equal(np.asarray(counts), [[[(p & r).sum(), p.sum(), r.sum()]]])


def test_a_network_starts_from_the_arrays_that_fit_and_names_the_others(plain):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    spec = dataclasses.replace(plain, ema_decay=0.9)
    state = init_state(spec, (8, 8), 0, sharding)
    three = build_unet(Model(features=(2, 4), norm="none", dropout=0.0), 3, accelerator=False)
    given = init_state(dataclasses.replace(plain, network=three), (8, 8), 1, sharding).variables
    del given["params"]["stem"]
    started, missing = start_from(state, given)
    assert sorted(missing) == [
        "params/head/bias (2,), given (3,)",
        "params/head/kernel (1, 1, 2, 2), given (1, 1, 2, 3)",
        "params/stem/conv/bias (2,), given none",
        "params/stem/conv/kernel (3, 3, 1, 2), given none",
    ]
    for name, own in state.params.items():
        source = own if name in ("stem", "head") else given["params"][name]
        jax.tree.map(np.testing.assert_array_equal, started.params[name], source)
    jax.tree.map(np.testing.assert_array_equal, started.average, started.variables)


def test_a_sharded_optimiser_state_gives_the_same_parameters():
    mesh = data_mesh(4)
    assert mesh.size == 2
    network = build_unet(Model(features=(2, 4), dropout=0.5), 2, accelerator=False)
    states = {}
    for optimizer_mesh in (None, mesh):
        spec = StepSpec(network, build_optimizer(Train()), OFF, Loss(), optimizer_mesh=optimizer_mesh)
        state = init_state(spec, (8, 8), 0, replicated(mesh))
        shardings = jax.tree.map(lambda array: array.sharding, state)
        for _ in range(3):
            arguments = (state, to_devices(_batch(), mesh), np.float32(1e-3), jax.random.key(0))
            state, _ = jitted_train_step(*arguments, spec)
        # Otherwise the second step would be compiled anew, and the first state's memory not be reused.
        same = jax.tree.map(lambda a, place: a.sharding.is_equivalent_to(place, a.ndim), state, shardings)
        assert jax.tree.all(same)
        states[optimizer_mesh] = state
    whole, sharded = states[None], states[mesh]
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(sharded.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    held = {
        mesh_or_none: sum(a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(state.opt_state))
        for mesh_or_none, state in states.items()
    }
    assert 0.5 * held[None] <= held[mesh] < 0.6 * held[None]
