"""One step: the moving average, and the parts that a batch is worked through in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.models import build_unet
from liverjax.options import Augment, Loss, Model, Train
from liverjax.training.mesh import data_mesh, replicated, to_devices
from liverjax.training.optim import build_optimizer
from liverjax.training.state import init_state
from liverjax.training.step import jitted_train_step, train_step

OFF = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment)})


@pytest.fixture(scope="module")
def step():
    # No batch norm and no dropout, and cross-entropy alone: a mean over rows, whatever the parts are.
    network = build_unet(Model(features=(2, 4), norm="none", dropout=0.0), 2, accelerator=False)
    optimizer = build_optimizer(Train(clip_norm=0.0, optimizer="sgd", momentum=0.0))
    random = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(random.integers(-100, 100, (4, 8, 8)), jnp.int16),
        "window": jnp.tile(jnp.float32([-100, 100]), (4, 1)),
        "label": jnp.asarray(random.integers(0, 2, (4, 8, 8)), jnp.uint8),
    }
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def run(**options):
        averaged = bool(options.get("ema_decay"))
        state = init_state(network, optimizer, (8, 8), 0, sharding, averaged=averaged)
        settings = {
            "network": network,
            "optimizer": optimizer,
            "augmentation": OFF,
            "loss_weights": Loss(dice=0.0),
        }
        after, metrics = train_step(state, batch, jnp.float32(0.1), jax.random.key(0), **settings, **options)
        return state, after, metrics

    return run


def test_parts_add_up_to_the_batch_where_the_loss_is_a_mean_over_rows(step):
    _, whole, metrics = step()
    _, parts, part_metrics = step(accumulate=2)
    np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_first_average_keeps_a_tenth_of_the_first_parameters(step):
    before, after, _ = step(ema_decay=0.99)
    leaves = (before.params, after.params, after.average["params"])
    for old, new, average in zip(*map(jax.tree.leaves, leaves), strict=True):
        np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)
    assert after.chosen_variables is after.average


def test_an_optimiser_state_that_is_divided_over_the_devices_gives_the_same_parameters():
    mesh = data_mesh(4)
    assert mesh.size == 2
    network = build_unet(Model(features=(2, 4), dropout=0.5), 2, accelerator=False)
    optimizer = build_optimizer(Train())
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(-100, 100, (4, 8, 8)).astype(np.int16),
        "window": np.tile(np.float32([-100, 100]), (4, 1)),
        "label": random.integers(0, 2, (4, 8, 8)).astype(np.uint8),
    }
    settings = {"network": network, "optimizer": optimizer, "augmentation": OFF, "loss_weights": Loss()}
    states = {}
    for optimizer_mesh in (None, mesh):
        state = init_state(network, optimizer, (8, 8), 0, replicated(mesh), optimizer_mesh=optimizer_mesh)
        places = jax.tree.map(lambda array: array.sharding, state)
        for _ in range(3):
            arguments = (state, to_devices(batch, mesh), np.float32(1e-3), jax.random.key(0))
            state, _ = jitted_train_step(*arguments, **settings, optimizer_mesh=optimizer_mesh)
        # Else the second step would be compiled anew, and the first state's memory not be used again.
        same = jax.tree.map(lambda a, place: a.sharding.is_equivalent_to(place, a.ndim), state, places)
        assert jax.tree.all(same)
        states[optimizer_mesh] = state
    whole, divided = states[None], states[mesh]
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(divided.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    held = {
        mesh_or_none: sum(a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(state.opt_state))
        for mesh_or_none, state in states.items()
    }
    assert 0.5 * held[None] <= held[mesh] < 0.6 * held[None]
