"""Calibration: measures by hand, known temperatures and weights found again, and the way through a run."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest

import liverjax
from liverjax.commands.dispatch import main
from liverjax.errors import CheckpointError, InputError
from liverjax.inference.calibration import Calibration
from liverjax.scans import Reading
from liverjax.studies import calibration
from liverjax.studies.calibration import Voxels
from liverjax.training.loop import train


def _drawn(logits, seed=0):
    """Labels drawn from the softmax of logits (n, C)."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (np.random.default_rng(seed).random((len(logits), 1)) > shares.cumsum(-1)).sum(-1).astype(np.uint8)


def _logs(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_calibration_error_by_hand():
    # Two bins: 3 voxels at 0.6, of which 1 is right, and 1 at 0.9, which is right: 3/4 |1/3 - 0.6| + 1/4 |1 - 0.9|.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 1], np.uint8)
    curve = calibration.reliability(probabilities, labels)
    np.testing.assert_allclose(curve, [[0.6, 0.9], [1 / 3, 1], [3 / 4, 1 / 4]])
    assert calibration.expected_calibration_error(*curve) == pytest.approx(0.2 + 0.025)


def test_likelihood_by_hand():
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
    found = calibration.negative_log_likelihood(probabilities, np.array([0, 0], np.uint8))
    assert found == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_a_known_temperature_is_found_again():
    logits = np.random.default_rng(1).normal(0, 2, (20_000, 3))
    # One view is three times too sure of itself, the other half as sure as it could be.
    logs = np.stack([_logs(3 * logits), _logs(logits / 2)]).astype(np.float32)
    fitted = calibration.fit([Voxels(logs, _drawn(logits))], ("axial", "coronal"))
    assert fitted.temperature == pytest.approx({"axial": 3, "coronal": 0.5}, rel=0.05)


def test_a_view_that_knows_nothing_loses_its_weight():
    noise = np.random.default_rng(2)
    logits = noise.normal(0, 3, (20_000, 2))
    labels = _drawn(logits)
    logs = np.stack([_logs(logits), _logs(noise.normal(0, 3, logits.shape))]).astype(np.float32)
    fitted = calibration.fit([Voxels(logs, labels)], ("axial", "coronal"))
    assert sum(fitted.weights["axial"]) > 5 * sum(fitted.weights["coronal"])
    plain = calibration.fuse(logs, ("axial", "coronal"), Calibration(), weighted=False)
    weighted = calibration.fuse(logs, ("axial", "coronal"), fitted, weighted=True)
    likelihood = calibration.negative_log_likelihood
    assert likelihood(weighted, labels) < likelihood(plain, labels)


def test_samples_of_several_cases_count_together():
    logits = np.random.default_rng(3).normal(0, 2, (3000, 2))
    logs, labels = _logs(2 * logits)[None].astype(np.float32), _drawn(logits)
    whole = calibration.fit([Voxels(logs, labels)], ("axial",))
    parts = [Voxels(logs[:, :1000], labels[:1000]), Voxels(logs[:, 1000:], labels[1000:])]
    assert calibration.fit(parts, ("axial",)).temperature == pytest.approx(whole.temperature)


@pytest.fixture
def run(tiny_config, tmp_path):
    train(dataclasses.replace(tiny_config, views=("axial", "coronal")), tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_a_run_is_calibrated_and_predicts_with_it(run, phantom_scans, caplog, capsys):
    before = liverjax.load_model(run)
    assert main(["calibrate", f"--workdir={run}", "-i", str(phantom_scans)]) == 0
    text = capsys.readouterr().out
    assert "axial" in text and "calibration error" in text
    facts = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    assert facts["cases"] == before.subsets["validation"] and facts["held_out"]
    assert (run / "calibration.png").read_bytes()[:4] == b"\x89PNG"

    after = liverjax.load_model(run)
    assert after.calibration.temperature == facts["temperature"]
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    one, other = (model.predict(scan).grid_probabilities for model in (before, after))
    assert np.abs(one - other).max() > 1e-4
    # A few steps of training leave networks that are wrong, and so the fit has much to gain.
    scores = facts["scores"]
    assert scores["calibrated mean"]["negative_log_likelihood"] < scores["mean"]["negative_log_likelihood"]

    # Networks that have changed since are not calibrated; those of the other view still are.
    shutil.rmtree(run / "axial" / "best")
    shutil.copytree(run / "coronal" / "best", run / "axial" / "best")
    assert liverjax.load_model(run).calibration == Calibration()
    assert "fitted to other checkpoints than axial has now" in caplog.text
    assert liverjax.load_model(run, views=["coronal"]).calibration == after.calibration


def _dicom_set(folder):
    """A scan with its mask as CHAOS keeps them: a DICOM series and PNG files."""
    spec = importlib.util.spec_from_file_location(
        "chaos", pathlib.Path(__file__).parent.parent / "datasets/test_chaos.py"
    )
    chaos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chaos)
    liver = np.zeros(chaos.SHAPE, bool)
    liver[..., 2:] = True
    chaos.put(folder / "MR/7/T2SPIR", liver)
    return "MR_7_T2SPIR"


def _dynamic_set(folder):
    """Two phases in one file, of which one is to be chosen."""
    voxels = np.random.default_rng(0).integers(0, 300, (12, 10, 6, 2)).astype(np.int16)
    mask = np.zeros(voxels.shape[:3], np.uint8)
    mask[3:9, 2:8, 1:5] = 1
    for name, array in (("imagesTr/dce_0000", voxels), ("labelsTr/dce", mask)):
        (folder / name).parent.mkdir(parents=True)
        nib.Nifti1Image(array, np.diag([5.0, 5, 10, 1])).to_filename(folder / f"{name}.nii.gz")
    return "dce"


@pytest.mark.parametrize(("make", "phase"), [(_dicom_set, None), (_dynamic_set, "last")])
def test_scans_of_every_layout_are_read(tiny_run, tmp_path, capsys, make, phase):
    id = make(tmp_path / "set")
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["data"] |= {"validation": [id], "test": [id]}
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    model = liverjax.load_model(run)
    ((case, scan, mask),) = calibration.labelled_scans(
        model, tmp_path / "set", "validation", reading=Reading(phase=phase), quiet=True
    )
    assert case.id == id and scan.shape == mask.shape
    voxels = calibration.sample(model, scan, mask)
    assert voxels.logs.shape == (3, len(voxels.labels), 3) and set(voxels.labels) == {0, 1}
    # The same, as the command is typed.
    words = ["quality", f"--models={run}", "-i", str(tmp_path / "set"), "--quiet"]
    assert main([*words, f"--phase={phase}"] if phase else words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == id


def test_a_damaged_calibration_is_fitted_anew(run, phantom_scans):
    (run / "calibration.json").write_text("[]")
    with pytest.raises(CheckpointError, match="calibrate the run again"):
        liverjax.load_model(run)
    fitted = calibration.calibrate(run, phantom_scans, quiet=True).calibration
    assert liverjax.load_model(run).calibration == fitted


def test_what_cannot_be_calibrated_is_refused(run, phantom_scans, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="expected the folder of a run"):
        calibration.calibrate(tmp_path / "file", phantom_scans)
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    with pytest.raises(InputError, match="holds no validation case"):
        calibration.calibrate(run, scan)
    (run / "calibration.json").write_text(
        '{"temperature": {"oblique": 1}, "weights": {}, "members": 1, "checkpoints": {}}'
    )
    with pytest.raises(CheckpointError, match=r"calibration\.json: not a calibration of views"):
        liverjax.load_model(run)
