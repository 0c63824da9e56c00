"""Remedies of the commands that use a trained model: each message's way out is followed, and leads to a result."""

import dataclasses
import importlib
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from liverjax.checkpoint import manifest
from liverjax.commands.dispatch import main
from liverjax.config import to_dict
from liverjax.datasets.layouts import find_cases
from liverjax.errors import CheckpointError, InputError
from liverjax.pretrained import bundle as bundles
from liverjax.pretrained.load import load_model
from liverjax.training.loop import train


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def predict(phantom_scans, tmp_path, capsys):
    """Function from a model and flags to the exit status of `predict` of one scan, and what it printed as errors."""

    def call(model, *flags, scans=None, output="out"):
        scan = scans or find_cases(phantom_scans)[0].image
        words = ["predict", f"--model={model}", "-i", str(scan), "-o", str(tmp_path / output), "--quiet"]
        status = main([*words, *flags])
        return status, capsys.readouterr().err

    return call


def test_weights_are_fitted_or_the_mean_is_chosen(run, predict, phantom_scans):
    status, error = predict(run, "--fusion=weighted")
    assert (
        status == 1 and "predict.fusion is 'weighted', but no weights of the view axial are fitted" in error
    )
    assert error.endswith("fit them with `liverjax calibrate`, or choose 'mean'\n")
    assert predict(run, "--fusion=mean") == (0, "")
    assert main(["calibrate", f"--workdir={run}", "-i", str(phantom_scans), "--quiet"]) == 0
    assert predict(run, "--fusion=weighted") == (0, "")


def test_a_calibration_of_other_checkpoints_is_fitted_again(run, predict, phantom_scans, caplog):
    calibrate = ["calibrate", f"--workdir={run}", "-i", str(phantom_scans), "--quiet"]
    assert main(calibrate) == 0
    shutil.rmtree(run / "axial" / "best")
    shutil.copytree(run / "coronal" / "best", run / "axial" / "best")
    assert predict(run)[0] == 0
    assert (
        "is not used: it was fitted to other checkpoints than axial has now; calibrate the run again"
        in caplog.text
    )
    caplog.clear()
    assert main(calibrate) == 0 and predict(run)[0] == 0
    assert "fitted to other checkpoints" not in caplog.text


def test_a_bundle_is_calibrated_before_it_is_made(run, phantom_scans, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    bundle = ["bundle", f"--workdir={run}", "-o", str(file), "--licence=CC0-1.0", "--quiet"]
    calibrate = ["-i", str(phantom_scans), "--quiet"]
    assert main(bundle) == 0
    assert main(["calibrate", f"--workdir={file}", *calibrate]) == 1
    assert "expected the folder of a run (bundle it after calibration)" in capsys.readouterr().err
    assert main(["calibrate", f"--workdir={run}", *calibrate]) == 0 and main(bundle) == 0
    assert load_model(file).calibration == load_model(run).calibration != type(load_model(file).calibration)()


def test_the_subset_of_a_bundle_is_that_of_its_run(run, predict, phantom_scans, tmp_path):
    file = tmp_path / "model.safetensors"
    bundles.write_bundle(file, load_model(run), licence="CC0-1.0")
    status, error = predict(file, "--subset=test", scans=phantom_scans)
    assert status == 1
    assert (
        "the model does not list its test cases, as none of a bundle does; expected the folder of its run"
        in error
    )
    assert predict(run, "--subset=test", scans=phantom_scans) == (0, "")
    masks = {path.name.partition(".")[0] for path in (tmp_path / "out").glob("*.nii.gz")}
    assert masks == set(load_model(run).subsets["test"])


def test_a_subset_is_one_of_the_data_set_of_the_run(run, predict, phantom_scans):
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    train_case = facts["data"]["train"][0]
    scan = next(case.image for case in find_cases(phantom_scans) if case.id == train_case)
    status, error = predict(run, "--subset=test", scans=scan)
    assert status == 1 and error.endswith(
        "--subset=test: none of the 1 cases is in the test subset of the model, expected the data set that it was "
        "trained with\n"
    )
    assert predict(run, "--subset=test", scans=phantom_scans) == (0, "")


def test_a_model_of_the_livers_box_gives_way_to_one_of_scans(run, tiny_run, predict):
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["config"]["target"]["region"] = "reference"
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    status, error = predict(run)
    assert (
        status == 1
        and "target.region is 'reference': this model knows only the box around the liver" in error
    )
    assert "expected a model with target.region 'scan'" in error
    assert load_model(tiny_run).config.target.region == "scan" and predict(tiny_run) == (0, "")


def test_without_a_model_the_ways_to_one_are_named(tiny_run, predict, phantom_scans, tmp_path, capsys):
    words = ["predict", "-i", str(phantom_scans), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--model" in error and "train a model (liverjax train, or liverjax demo to try)" in error
    assert "or name a bundle that you were given" in error and error.count("\n") == 1
    # A run that was trained, and a bundle; the demo goes all the way in tests/commands.
    file = tmp_path / "given.safetensors"
    assert main(["bundle", f"--workdir={tiny_run}", "-o", str(file), "--licence=CC0-1.0", "--quiet"]) == 0
    assert predict(tiny_run)[0] == predict(file)[0] == 0


def test_places_that_hold_other_things_give_way_to_another_output(tiny_run, predict, phantom_scans, tmp_path):
    scans = shutil.copytree(phantom_scans, tmp_path / "scans", copy_function=shutil.copy)
    (tmp_path / "file").touch()
    for output, message in (
        ("scans/labelsTr", "take the place of the reference"),
        ("scans/imagesTr/phantom_000_0000.nii.gz", "names one file for 8 cases, expected a folder"),
        ("file/out", "masks cannot be written there"),
    ):
        status, error = predict(tiny_run, scans=scans, output=output)
        assert status == 1 and message in error
    (scan,) = (case.image for case in find_cases(scans) if case.id == "phantom_000")
    status, error = predict(tiny_run, scans=scan, output="scans/imagesTr/phantom_000_0000.nii.gz")
    assert status == 1 and error.endswith("choose another --output\n")
    assert predict(tiny_run, "--shard=1/8", scans=scans, output="another") == (0, "")
    assert predict(tiny_run, scans=scan, output="another/mask.nii.gz") == (0, "")


@pytest.mark.parametrize(
    ("wrong", "message", "right"),
    [
        ("--shard=9/8", "expected i/n, such as 2/8", "--shard=1/1"),
        ("--spacing=0.8,5", "expected three sizes in mm, as 0.8,0.8,5", "--spacing=8,8,8"),
        (
            "--views=axail",
            "views names 'axail', but the model has only axial, coronal, sagittal",
            "--views=axial",
        ),
        ("--flips", "expected false for networks that were trained without mirrored slices", "--noflips"),
        ("--config.predict.bucket=5000", "expected 8 to 256", "--config.predict.bucket=16"),
        (
            "--config.train.steps=3",
            "a prediction can change predict.* and views",
            "--config.predict.batch_size=1",
        ),
        ("--mc_samples=1001", "expected 0 to 1000 draws", "--mc_samples=2"),
        ("--series=1", "leave --series out", "--nopreview"),
    ],
)
def test_a_flag_is_corrected_as_the_message_says(tiny_run, predict, wrong, message, right):
    status, error = predict(tiny_run, wrong, output="mask.nii.gz")
    assert status == 1 and message in error
    assert predict(tiny_run, right, output="mask.nii.gz") == (0, "")


def test_a_run_or_bundle_of_a_newer_version_is_read_by_that_version(run, tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    with monkeypatch.context() as newer:
        newer.setattr(bundles, "_VERSION", 2)
        bundles.write_bundle(file, load_model(run), licence="CC0-1.0")
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
        (run / "run.json").write_text(json.dumps({**facts, "format": 2}), encoding="utf-8")
    content = bytearray(file.read_bytes())
    file.write_bytes(content.replace(b'"version":"1"', b'"version":"2"'))
    for model, message in (
        (file, "written by a newer liverjax .*; update liverjax"),
        (run, "newer liverjax; update this one"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_model(model)
    monkeypatch.setattr(bundles, "_VERSION", 2)
    monkeypatch.setattr(manifest, "FORMAT", 2)
    assert load_model(file).config.views == load_model(run).config.views


def test_a_view_that_is_not_trained_yet_is_trained_or_left_out(tiny_config, tmp_path, predict):
    run = tmp_path / "run"
    train(dataclasses.replace(tiny_config, views=("axial",)), run, quiet=True)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["config"] = to_dict(dataclasses.replace(tiny_config, views=("axial", "coronal")))
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    status, error = predict(run)
    assert status == 1 and error.endswith("coronal/best does not exist; train this view first\n")
    assert predict(run, "--views=axial") == (0, "")
    train(dataclasses.replace(tiny_config, views=("coronal",)), run, quiet=True)
    assert predict(run) == (0, "")


def test_scores_that_are_none_are_made_anew_or_left_out(tiny_run, phantom_scans, tmp_path, capsys):
    (tmp_path / "scores.json").write_text("[]")
    words = ["bundle", f"--workdir={tiny_run}", "-o", str(tmp_path / "model"), "--licence=CC0-1.0", "--quiet"]
    assert main([*words, f"--scores={tmp_path / 'scores.json'}"]) == 1
    assert capsys.readouterr().err.endswith("evaluate again, or bundle without scores\n")
    assert main(words) == 0
    masks = str(phantom_scans / "labelsTr")
    evaluate = ["evaluate", f"--predictions={masks}", f"--references={masks}", "--metrics=dice", "--quiet"]
    assert main([*evaluate, "-o", str(tmp_path / "scores")]) == 0
    assert main([*words, f"--scores={tmp_path / 'scores' / 'summary.json'}"]) == 0
    assert bundles.read_facts(tmp_path / "model")["scores"]["scores"]["liver"]["dice_per_case"] == 1


# --- packages -----------------------------------------------------------------------------------------------


def _extras():
    root = Path(__file__).parent.parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        extra: {re.split(r"[<>=\[]", package)[0] for package in packages}
        for extra, packages in listed["optional-dependencies"].items()
    }


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("onnxruntime", "onnx", ["predict", "--runtime=onnx", "-i", "SCAN"]),
        ("onnx", "onnx", ["export", "--format=onnx"]),
        ("flatbuffers", "onnx", ["export", "--format=stablehlo"]),
    ],
)
def test_a_missing_package_is_that_of_the_extra_and_works_once_it_is_there(
    tiny_run, phantom_scans, tmp_path, monkeypatch, capsys, package, extra, words
):
    pytest.importorskip(package, reason=f"liverjax[{extra}] is not installed")
    scan = str(find_cases(phantom_scans)[0].image)
    words = [scan if word == "SCAN" else word for word in words]
    words += [f"--model={tiny_run}", "-o", str(tmp_path / "out"), "--quiet"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, package, None)
        assert main(words) == 1
    named = re.search(r"pip install (\S+)\n$", capsys.readouterr().err)
    assert named and named[1] == package and package in _extras()[extra]
    assert importlib.import_module(package) and main(words) == 0


def test_the_packages_of_dicom_are_those_of_its_extra_and_of_pydicoms_decoders(monkeypatch, tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="liverjax[dicom] is not installed")
    from liverjax.scans import dicom_files

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pydicom", None)
        with pytest.raises(InputError) as caught:
            dicom_files.pydicom()
    named = re.search(r"pip install (\S+)$", str(caught.value))
    assert named and named[1] in _extras()["dicom"] and dicom_files.pydicom() is pydicom
    # What the message about compressed slices names, for each kind of compression that pydicom knows.
    text = (Path(dicom_files.__file__).with_name("dicom.py")).read_text(encoding="utf-8")
    line = re.search(r"pip install 'pylibjpeg\[all\]' (\w+)", text)
    assert line
    from pydicom.pixels import get_decoder

    for kind in (
        "JPEGBaseline8Bit",
        "JPEGLosslessSV1",
        "JPEGLSLossless",
        "JPEG2000Lossless",
        "HTJ2KLossless",
    ):
        decoder = get_decoder(getattr(pydicom.uid, kind))
        known = " ".join((*decoder.available_plugins, *decoder.missing_dependencies))
        assert "pylibjpeg" in known or line[1] in known, kind
