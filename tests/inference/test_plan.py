"""Plans of a fusion: maps of uncertainty by hand, under every rule; what a plan refuses."""

import dataclasses

import numpy as np
import pytest

from liverjax.errors import ConfigError
from liverjax.inference import Calibration, Fused, FusionPlan, Networks, orthomean
from liverjax.models import UNet
from liverjax.options import Predict
from liverjax.views import VIEWS

RULES = ("mean", "weighted", "majority")
WEIGHTS = Calibration(weights=dict(zip(VIEWS, ((3.0, 0.3), (1.0, 1.0), (0.5, 2.0)), strict=True)))


def _entropy(*shares):
    return -sum(p * np.log(p) for p in shares if p)


def _fused(shares: dict[str, float], fusion: str) -> Fused:
    """Fuses networks of two classes that give all voxels of a volume of 8 x 8 x 8 one probability of liver."""
    plan = FusionPlan(UNet(classes=2, features=(4, 8)), fusion=fusion, member_entropy=True)

    def backend(view, slices, member):
        return np.broadcast_to(np.float32([1 - shares[view], shares[view]]), (*slices.shape, 2))

    networks, voxels = Networks({view: {} for view in shares}, 1), np.zeros((8, 8, 8), np.float32)
    return orthomean(networks, voxels, plan, calibration=WEIGHTS, backend=backend)


def test_views_that_agree_and_views_that_do_not():
    # One voxel each: sure; all maps at 1/2; one map sure of the one class, the other of the other.
    members = np.array([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    mean = members.mean(0)[:, None, None].astype(np.float32)
    own = np.mean([[_entropy(*p) for p in member] for member in members], 0)[:, None, None].astype(np.float32)
    maps = Fused(mean, None, own).uncertainty()
    np.testing.assert_allclose(maps.entropy.ravel(), [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(maps.mutual_information.ravel(), [0, 0, 1], atol=1e-6)


def test_entropy_is_a_share_of_that_of_equal_classes():
    mean = np.array([[1, 1, 1], [2, 1, 1]], np.float32) / np.array([[3], [4]], np.float32)
    maps = Fused(mean[:, None, None], None, np.zeros((2, 1, 1), np.float32)).uncertainty()
    expected = [1, _entropy(0.5, 0.25, 0.25) / np.log(3)]
    np.testing.assert_allclose(maps.entropy.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("fusion", RULES)
def test_three_views_that_are_hardly_sure_are_hardly_sure_under_every_rule(fusion):
    fused = _fused(dict.fromkeys(VIEWS, 0.55), fusion)
    maps = fused.uncertainty()
    np.testing.assert_allclose(maps.entropy, _entropy(0.45, 0.55) / np.log(2), atol=1e-6)
    np.testing.assert_allclose(maps.mutual_information, 0, atol=1e-6)


@pytest.mark.parametrize("fusion", RULES)
def test_maps_are_those_of_the_plain_mean_under_every_rule(fusion):
    shares = dict(zip(VIEWS, (0.9, 0.2, 0.6), strict=True))
    fused = _fused(shares, fusion)
    mean = sum(shares.values()) / 3
    own = np.mean([_entropy(1 - p, p) for p in shares.values()])
    total = _entropy(1 - mean, mean)
    maps = fused.uncertainty()
    np.testing.assert_allclose(maps.entropy, total / np.log(2), atol=1e-6)
    np.testing.assert_allclose(maps.mutual_information, (total - own) / np.log(2), atol=1e-6)
    # What decides is the rule's: (2.7 + 0.2 + 1.2) weighted to (0.3 + 0.8 + 0.2) ...
    weighted = (0.3 * 0.9 + 0.2 + 2 * 0.6) / (0.3 * 0.9 + 0.2 + 2 * 0.6 + 3 * 0.1 + 0.8 + 0.5 * 0.4)
    majority = (2 + 0.01 * 3 * mean) / (3 * 1.01)
    expected = {"mean": mean, "weighted": weighted, "majority": majority}[fusion]
    np.testing.assert_allclose(fused.probabilities[..., 1], expected, atol=1e-6)


def test_weights_that_were_not_fitted_are_refused():
    plan = FusionPlan(UNet(classes=2, features=(4, 8)), fusion="weighted")
    networks, voxels = Networks({"axial": {}}, 1), np.zeros((8, 8, 8), np.float32)
    with pytest.raises(ConfigError, match=r"no weights of the view axial .* `liverjax calibrate`"):
        orthomean(networks, voxels, plan, calibration=Calibration(weights={"coronal": (1.0, 1.0)}))


def test_a_batch_covers_a_bucket_evenly():
    assert Predict(batch_size=4, bucket=16).batch_size == 4
    for size in (12, 32):
        with pytest.raises(ConfigError, match=rf"batch_size is {size}, expected a divisor .*bucket \(16\)"):
            Predict(batch_size=size, bucket=16)
    with pytest.raises(ValueError, match="batch_size 3 does not divide bucket 16"):
        FusionPlan(UNet(classes=2), batch_size=3)


def test_a_plan_is_of_as_many_members_as_there_are():
    plan = FusionPlan(UNet(classes=2, features=(4, 8)), members=2)
    with pytest.raises(ValueError, match="a plan for 2 members, but 1 networks"):
        orthomean(Networks({"axial": {}}, 1), np.zeros((8, 8, 8), np.float32), plan)


@pytest.mark.parametrize("flips", [False, True])
def test_passes_take_every_member_with_every_sample_in_every_mirroring(flips):
    plan = FusionPlan(UNet(classes=2, features=(4, 8)), members=3, samples=2, flips=flips)
    assert plan.passes == 6 * (4 if flips else 1)
    found = [(*plan.member_and_sample(index), index % plan.mirrors) for index in range(plan.passes)]
    assert len(set(found)) == plan.passes
    assert {member for member, _, _ in found} == {0, 1, 2} and {sample for _, sample, _ in found} == {0, 1}
    assert dataclasses.replace(plan) == plan and hash(dataclasses.replace(plan)) == hash(plan)
