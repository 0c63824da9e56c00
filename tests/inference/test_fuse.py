"""OrthoMean against a plain loop over views and slices; padding, buckets and compilations."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.inference import Fused, FusionPlan, Networks, orthomean
from liverjax.inference.calibration import UNCALIBRATED, Calibration
from liverjax.models import UNet
from liverjax.options import Predict
from liverjax.views import VIEWS

# Along which axis of (x, y, z) a view's slices are stacked, written out a second time.
_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


def _network(**changes) -> UNet:
    return UNet(**{"classes": 3, "features": (4, 8), "dropout": 0.1, **changes})


def _networks(network: UNet, views=VIEWS) -> Networks:
    """Networks as after some training: no statistic, scale or bias is what it was initialised to."""
    slices = jnp.zeros((1, 16, 16, 1))
    noise = np.random.default_rng(0)
    return Networks.stack(
        {
            view: [
                jax.tree.map(
                    lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype),
                    network.init(jax.random.key(seed), slices),
                )
            ]
            for seed, view in enumerate(views)
        }
    )


def _volume(shape, seed=0) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(-1, 1, [n // 4 + 1 for n in shape])
    return np.kron(coarse, np.ones((4, 4, 4)))[tuple(map(slice, shape))].astype(np.float32)


def _softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _one_by_one(network, networks, voxels) -> np.ndarray:
    """Mean softmax, slice by slice, each padded with air to even numbers of rows and columns."""
    total = np.zeros((*voxels.shape, network.classes))
    apply = jax.jit(network.apply)
    for view, _, parameters in networks.each():
        axis = _AXIS[view]
        for index in range(voxels.shape[axis]):
            # Rows are the later of the two remaining axes: (z, y, x) order.
            plane = voxels.take(index, axis).T
            padded = np.pad(plane, [(0, n % 2) for n in plane.shape], constant_values=-1)
            logits = apply(parameters, padded[None, :, :, None])[0]
            seen = _softmax(np.asarray(logits, np.float64))[: plane.shape[0], : plane.shape[1]]
            place = [slice(None)] * 3
            place[axis] = index
            total[tuple(place)] += seen.transpose(1, 0, 2)
    return total / len(networks.views)


def fused(networks, voxels, network, options, *, calibration=UNCALIBRATED, **plan) -> Fused:
    plan = FusionPlan.of(network, options, members=networks.members, **plan)
    return orthomean(networks, voxels, plan, calibration=calibration)


def probabilities(*args, **changes) -> np.ndarray:
    return fused(*args, **changes).probabilities


@contextlib.contextmanager
def _compilations():
    """Counts what jax traces or compiles meanwhile."""
    found, listening = [], True

    def note(event, _, **__):
        if listening and event.startswith("/jax/core/compile"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield found
    finally:
        listening = False  # jax 0.7 has no public way to take a listener away.


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_is_the_mean_softmax_of_a_loop_over_views_and_slices(norm):
    network = _network(norm=norm)
    networks = _networks(network)
    voxels = _volume((11, 14, 9))
    found = probabilities(networks, voxels, network, Predict(batch_size=4, bucket=16))
    assert found.shape == (11, 14, 9, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, _one_by_one(network, networks, voxels), atol=2e-6)


@pytest.mark.parametrize(("dtype", "margin"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_labels_differ_only_where_two_classes_all_but_tie(dtype, margin):
    network = _network(dtype=jnp.dtype(dtype))
    networks = _networks(network)
    voxels = _volume((16, 14, 12))
    architecture, folded = networks.fold(network)
    found = probabilities(folded, voxels, architecture, Predict(bucket=16))
    reference = _one_by_one(network.clone(dtype=jnp.float32), networks, voxels)
    first, second = np.sort(reference, -1)[..., :-3:-1].transpose(3, 0, 1, 2)
    differs = found.argmax(-1) != reference.argmax(-1)
    assert (first - second)[differs].max(initial=0) < margin
    assert 0.98 < 1 - differs.mean() <= 1 and (first - second).max() > margin


def test_every_view_has_its_share():
    network = _network()
    networks = _networks(network)
    voxels = _volume((16, 18, 20))
    options = Predict(batch_size=4, bucket=8)
    found = probabilities(networks, voxels, network, options)
    alone = {view: probabilities(networks.select([view]), voxels, network, options) for view in VIEWS}
    np.testing.assert_allclose(found, sum(alone.values()) / 3, atol=1e-6)
    for one, other in (("axial", "coronal"), ("coronal", "sagittal"), ("sagittal", "axial")):
        assert np.abs(alone[one] - alone[other]).max() > 0.01


@pytest.mark.parametrize(
    ("norm", "shape"), [("batch", (21, 30, 17)), ("batch", (5, 3, 1)), ("group", (1, 21, 12))]
)
def test_the_bucket_and_the_batch_have_no_influence(norm, shape):
    network = _network(features=(4, 8, 8), norm=norm)
    networks = _networks(network)
    voxels = _volume(shape)
    small = probabilities(networks, voxels, network, Predict(batch_size=1, bucket=8))
    large = probabilities(networks, voxels, network, Predict(batch_size=32, bucket=64))
    # Sums are taken in another order, so the last bits may differ; where no two classes tie, no label does.
    np.testing.assert_allclose(large, small, atol=1e-5)
    decided = np.diff(np.sort(small, -1)[..., -2:])[..., 0] > 2e-5
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(large.argmax(-1)[decided], small.argmax(-1)[decided])


def test_probabilities_sum_to_one():
    network = _network()
    found = probabilities(_networks(network), _volume((20, 20, 20)), network, Predict(batch_size=4, bucket=8))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_a_second_volume_in_the_same_bucket_compiles_nothing():
    network = _network(features=(4, 6))
    networks = _networks(network)
    options = Predict(batch_size=4, bucket=32)
    with _compilations() as first:
        probabilities(networks, _volume((20, 30, 28)), network, options)
    with _compilations() as second:
        probabilities(networks, _volume((32, 17, 25)), network, options)
    assert first and not second


@pytest.mark.parametrize("fusion", ["mean", "weighted", "majority"])
def test_the_sum_on_the_host_is_that_on_the_device(fusion):
    network = _network()
    networks = _networks(network)
    voxels = _volume((9, 20, 14))
    calibration = Calibration(
        temperature={"axial": 2.0},
        weights=dict(zip(VIEWS, ((1, 1, 1), (0.5, 2, 1), (1, 3, 2)), strict=True)),
    )
    found = [
        fused(
            networks, voxels, network, Predict(bucket=8, fusion=fusion, accumulator=accumulator),
            calibration=calibration, member_entropy=True, samples=2,
        )
        for accumulator in ("device", "host")
    ]  # fmt: skip
    for on_device, on_host in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(on_host, on_device, atol=1e-5)


def test_fusion_rules_are_those_of_the_views_one_by_one():
    network = _network()
    networks = _networks(network)
    voxels = _volume((8, 12, 10))
    alone = [probabilities(networks.select([view]), voxels, network, Predict(bucket=8)) for view in VIEWS]
    weights = {"axial": (1.0, 2.0, 0.5), "coronal": (0.0, 1.0, 1.0), "sagittal": (3.0, 1.0, 1.0)}

    weighted = probabilities(
        networks,
        voxels,
        network,
        Predict(bucket=8, fusion="weighted"),
        calibration=Calibration(weights=weights),
    )
    expected = sum(p * np.array(weights[view]) for p, view in zip(alone, VIEWS, strict=True))
    np.testing.assert_allclose(weighted, expected / expected.sum(-1, keepdims=True), atol=1e-5)

    majority = probabilities(networks, voxels, network, Predict(bucket=8, fusion="majority"))
    np.testing.assert_allclose(majority.sum(-1), 1, atol=1e-5)
    votes = sum(np.eye(3)[p.argmax(-1)] for p in alone)
    clear = votes.max(-1) > 1
    assert 0 < clear.mean() < 1
    assert np.array_equal(majority.argmax(-1)[clear], votes.argmax(-1)[clear])
    # Three views, three labels: the largest mean probability decides.
    assert np.array_equal(majority.argmax(-1)[~clear], sum(alone).argmax(-1)[~clear])


@pytest.mark.parametrize("accumulator", ["device", "host"])
def test_flips_are_members_that_see_the_slices_mirrored(accumulator):
    network = _network()
    networks = _networks(network).select(["coronal"])
    voxels = _volume((8, 5, 12))
    settings = {"bucket": 16, "accumulator": accumulator}
    found = fused(networks, voxels, network, Predict(**settings, flips=True), member_entropy=True)
    members = []
    for axes in ((), (0,), (2,), (0, 2)):  # rows of coronal slices lie along z, columns along x
        alone = probabilities(networks, np.flip(voxels, axes), network, Predict(**settings))
        members.append(np.flip(alone, axes))
    assert all(np.abs(member - members[0]).max() > 0.01 for member in members[1:])
    np.testing.assert_allclose(found.probabilities, np.mean(members, 0), atol=1e-5)
    entropy = [-(member * np.log(member)).sum(-1) for member in members]
    np.testing.assert_allclose(found.member_entropy, np.mean(entropy, 0), atol=1e-5)


def test_a_temperature_divides_the_logits_of_its_view():
    network = _network()
    networks = _networks(network).select(["axial"])
    voxels = _volume((8, 8, 8))
    plain = probabilities(networks, voxels, network, Predict(bucket=8))
    cooled = probabilities(
        networks, voxels, network, Predict(bucket=8), calibration=Calibration(temperature={"axial": 3.0})
    )
    powers = plain ** (1 / 3)
    np.testing.assert_allclose(cooled, powers / powers.sum(-1, keepdims=True), atol=1e-5)
