"""Several networks of each view: together they say the mean of what each says alone, whatever fuses or carries them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax import options
from liverjax.inference import FusionPlan, Networks, orthomean
from liverjax.inference.calibration import Calibration
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.options import Predict
from liverjax.pretrained.export import export_model
from liverjax.studies import calibration
from liverjax.studies.calibration import Voxels
from liverjax.volume import Volume

CONFIG = options.Config(
    target=options.Target(labels=("background", "liver", "tumor")),
    views=("axial", "sagittal"),
    preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
    batch=options.Batch(patch=(32, 32)),
    model=options.Model(features=(4, 8), dropout=0.3),
    train=options.Train(restarts=4),
)
MEMBERS = 2
CALIBRATION = Calibration({"axial": 2.0}, {"axial": (1.0, 0.5, 2.0), "sagittal": (1.0, 1.0, 0.5)}, MEMBERS)
CASES = {"train": ["a"], "validation": ["b"], "test": ["c"]}


@pytest.fixture(scope="module")
def members() -> dict[str, list[dict]]:
    """For each view the variables of its members, none of which are what they were initialised to."""
    network = build_unet(CONFIG.model, 3, accelerator=False)
    noise = np.random.default_rng(0)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))

    def trained():
        return jax.tree.map(lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype), variables)

    return {view: [trained() for _ in range(MEMBERS)] for view in CONFIG.views}


@pytest.fixture(scope="module")
def model(members) -> Segmenter:
    return Segmenter(CONFIG, Networks.stack(members), CASES, CALIBRATION, {"cases": CASES})


def _alone(members, calibrated=CALIBRATION) -> list[Segmenter]:
    """Models of one member and one view each."""
    return [
        Segmenter(
            dataclasses.replace(CONFIG, views=(view,)),
            Networks.stack({view: [one]}),
            CASES,
            dataclasses.replace(calibrated, members=1),
        )
        for view, own in members.items()
        for one in own
    ]


@pytest.fixture(scope="module")
def scan() -> Volume:
    coarse = np.random.default_rng(0).uniform(-200, 300, (5, 6, 4))
    return Volume(np.kron(coarse, np.ones((5, 5, 5))).astype(np.int16), np.diag([4.0, 5.0, 9.0, 1.0]))


def test_networks_know_their_members(members):
    networks = Networks.stack(members)
    assert (networks.views, networks.members) == (CONFIG.views, MEMBERS)
    assert [(view, index) for view, index, _ in networks.each()] == [
        (view, index) for view in CONFIG.views for index in range(MEMBERS)
    ]
    for view, index, variables in networks.each():
        jax.tree.map(np.testing.assert_array_equal, variables, members[view][index])
    traced = jax.jit(lambda networks, index: networks.member("sagittal", index))(networks, 1)
    jax.tree.map(np.testing.assert_array_equal, traced, members["sagittal"][1])
    assert networks.nbytes == 4 * sum(a.size for a in jax.tree.leaves(members))


def test_the_best_and_those_of_some_views(members):
    networks = Networks.stack(members)
    best = networks.best()
    assert (best.views, best.members) == (CONFIG.views, 1) and best.best() is best
    jax.tree.map(np.testing.assert_array_equal, best.member("sagittal"), members["sagittal"][0])
    some = networks.select(["sagittal"])
    assert (some.views, some.members) == (("sagittal",), MEMBERS)
    with pytest.raises(ValueError):
        Networks.stack({"axial": members["axial"], "sagittal": members["sagittal"][:1]})


def test_an_ensemble_says_the_mean_of_its_members(model, members, scan):
    alone = [one.predict(scan, uncertainty=True) for one in _alone(members)]
    together = model.predict(scan, uncertainty=True)
    shares = np.stack([prediction.grid_probabilities for prediction in alone])
    np.testing.assert_allclose(together.grid_probabilities, shares.mean(0), atol=1e-6)
    assert np.abs(shares - shares.mean(0)).max(axis=(1, 2, 3, 4)).min() > 0.01, (
        "members that say the same prove little"
    )
    # Of one member the entropy is its own, so that its mutual information is 0; of all it is what they disagree by.
    own = np.mean([prediction.uncertainty.entropy for prediction in alone], axis=0)
    disagreement = together.uncertainty.entropy - own
    np.testing.assert_allclose(together.uncertainty.mutual_information, disagreement, atol=1e-5)
    assert disagreement.max() > 0.01


@pytest.mark.parametrize(
    ("fusion", "accumulator"), [("weighted", "device"), ("majority", "device"), ("mean", "host")]
)
def test_every_rule_takes_a_member_as_a_view_of_its_own(model, scan, fusion, accumulator):
    voxels, _ = model.network_input(scan)
    options = Predict(bucket=8, fusion=fusion, accumulator=accumulator)
    plan = FusionPlan.of(model.network, options, members=MEMBERS, member_entropy=True)
    together = orthomean(model.folded, voxels, plan, calibration=CALIBRATION)
    total = 0
    for view, _, one in model.folded.each():
        network = Networks.stack({view: [one]})
        plan = FusionPlan(model.network, bucket=8)
        shares = orthomean(network, voxels, plan, calibration=CALIBRATION).probabilities
        if fusion == "weighted":
            total += shares * np.float32(CALIBRATION.weights[view])
        elif fusion == "majority":
            total += np.eye(3)[shares.argmax(-1)] + 0.01 * shares
        else:
            total += shares
    np.testing.assert_allclose(together.probabilities, total / total.sum(-1, keepdims=True), atol=2e-6)
    assert together.member_entropy.shape == voxels.shape


def test_draws_of_dropout_are_those_of_each_member(model, scan):
    voxels, _ = model.network_input(scan)
    plan = FusionPlan(model.network, samples=3, member_entropy=True, bucket=8)
    axial = model.folded.select(["axial"])
    together = orthomean(axial, voxels, dataclasses.replace(plan, members=MEMBERS))
    alone = [orthomean(Networks.stack({"axial": [one]}), voxels, plan) for _, _, one in axial.each()]
    for name in ("probabilities", "member_entropy"):
        mean = np.mean([getattr(one, name) for one in alone], axis=0)
        np.testing.assert_allclose(getattr(together, name), mean, atol=2e-6)


def test_the_best_alone_is_the_first_of_each_view_to_the_bit(model, members, scan, caplog):
    best = model.with_options(ensemble="best")
    first = Segmenter(CONFIG, Networks.stack({view: own[:1] for view, own in members.items()}), CASES)
    one, other = (each.predict(scan).grid_probabilities for each in (best, first))
    np.testing.assert_array_equal(one, other)
    # What was fitted to two members is not used for one, and comes back with them.
    assert best.calibration == Calibration() and "fitted to 2 networks of each view, not to 1" in caplog.text
    again = best.with_options(ensemble="all")
    assert (again.networks.members, again.calibration) == (MEMBERS, CALIBRATION)
    np.testing.assert_array_equal(
        again.predict(scan).grid_probabilities, model.predict(scan).grid_probabilities
    )


def test_a_calibration_is_shared_by_the_members_of_a_view():
    # Both axial networks are three times too sure, the sagittal ones half as sure as they could be.
    noise = np.random.default_rng(1)
    logits = noise.normal(0, 2, (20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = (noise.random((len(logits), 1)) > shares.cumsum(-1)).sum(-1).astype(np.uint8)
    logs = np.stack([3 * logits, 3 * logits, logits / 2, logits / 2])
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    fitted = calibration.fit(
        [Voxels(logs.astype(np.float32), labels)], ("axial", "axial", "sagittal", "sagittal")
    )
    assert fitted.temperature == pytest.approx({"axial": 3, "sagittal": 0.5}, rel=0.05)
    assert fitted.members == 2 and set(fitted.weights) == {"axial", "sagittal"}


def test_each_network_is_exported_and_told_of(model, members, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra liverjax[onnx] is not installed")
    pytest.importorskip("onnx", reason="the extra liverjax[onnx] is not installed")
    files = export_model(model, tmp_path, "onnx")
    names = ["axial_0.onnx", "axial_1.onnx", "sagittal_0.onnx", "sagittal_1.onnx"]
    assert [file.name for file in files] == [*names, "model.json"]
    facts = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert [entry["view"] for entry in facts["networks"].values()] == ["axial"] * 2 + ["sagittal"] * 2
    slices = np.random.default_rng(1).uniform(-1, 1, (2, 16, 8, 1)).astype(np.float32)
    network = build_unet(CONFIG.model, 3, accelerator=False)
    for index, variables in enumerate(members["sagittal"]):
        session = runtime.InferenceSession(
            tmp_path / f"sagittal_{index}.onnx", providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"slices": slices.transpose(0, 3, 1, 2)})
        expected = jax.nn.softmax(network.apply(variables, slices))
        np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, atol=1e-5)


def test_onnx_runtime_fuses_what_jax_fuses(model, scan):
    pytest.importorskip("onnxruntime", reason="the extra liverjax[onnx] is not installed")
    pytest.importorskip("onnx", reason="the extra liverjax[onnx] is not installed")
    from liverjax.pretrained.onnx import with_onnx_runtime

    one, other = (m.predict(scan).grid_probabilities for m in (model, with_onnx_runtime(model)))
    np.testing.assert_allclose(other, one, atol=2e-5)
