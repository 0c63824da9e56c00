"""The commands of prediction, as they are typed."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from liverjax.training.loop import train


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """Folder of a run of one view."""
    folder = tmp_path_factory.mktemp("run")
    train(dataclasses.replace(tiny_config, views=("coronal",)), folder, quiet=True)
    return folder


def test_predict_writes_masks_and_a_manifest(run, phantom_scans, tmp_path, capsys):
    words = ["predict", f"--model={run}", "-i", str(phantom_scans), "-o", str(tmp_path), "--subset=test"]
    assert main([*words, "--preview"]) == 0
    text = capsys.readouterr()
    assert "seconds: read" in text.out and "GiB of memory" in text.err
    facts = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    test = json.loads((run / "run.json").read_text(encoding="utf-8"))["data"]["test"]
    assert [case["id"] for case in facts["cases"]] == test
    for id in test:
        assert nib.load(tmp_path / f"{id}.nii.gz").shape == (48, 40, 36)
        assert (tmp_path / f"{id}.png").stat().st_size > 1000

    options = ["--views=coronal", "--config.predict.fill_holes=false"]
    assert main([*words, "--skip_existing", "--quiet", *options]) == 0
    assert capsys.readouterr() == ("", "")
    facts = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert {case["status"] for case in facts["cases"]} == {"skipped"}
    assert facts["config"]["predict"]["fill_holes"] is False
    assert main([*words, "--views=axial"]) == 1
    assert "views names 'axial', but the model has only coronal" in capsys.readouterr().err


def test_without_a_terminal_the_progress_is_lines(run, phantom_scans, tmp_path, capsys):
    words = ["predict", f"--model={run}", "-i", str(phantom_scans), "-o", str(tmp_path), "--shard=1/4"]
    assert main([*words, "--log_every_seconds=0"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("predict: ")]
    assert [line.split(",")[0] for line in lines] == ["predict: case 1 of 2", "predict: case 2 of 2"]


def test_chosen_views_are_fused_and_no_others(tiny_run, phantom_scans, tmp_path, capsys):
    scan = find_cases(phantom_scans)[0].image

    def liver(views):
        words = ["predict", f"--model={tiny_run}", "-i", str(scan), "-o", str(tmp_path / views), "--quiet"]
        assert main([*words, *([f"--views={views}"] if views != "all" else []), "--save_probabilities"]) == 0
        facts = json.loads((tmp_path / views / "manifest.json").read_text(encoding="utf-8"))
        assert views in ("all", ",".join(facts["config"]["views"]))
        (file,) = (tmp_path / views / "probabilities").glob("*_liver.nii.gz")
        return np.asarray(nib.load(file).dataobj)

    axial, coronal, sagittal = map(liver, ("axial", "coronal", "sagittal"))
    assert np.abs(axial - coronal).max() > 0.01 < np.abs(coronal - sagittal).max()
    # Maps are written in steps of 2**-10.
    np.testing.assert_allclose(liver("axial,sagittal"), (axial + sagittal) / 2, atol=2**-10)
    np.testing.assert_allclose(liver("all"), (axial + coronal + sagittal) / 3, atol=2**-10)
    assert capsys.readouterr().err == ""


def test_an_interrupt_leaves_whole_masks_and_the_same_command_goes_on(run, phantom_scans, tmp_path):
    (tmp_path / "scans").mkdir()
    case = find_cases(phantom_scans)[0]
    for number in range(80):
        os.link(case.image, tmp_path / "scans" / f"case_{number:02}.nii.gz")
    out = tmp_path / "out"
    words = ["predict", f"--model={run}", "-i", str(tmp_path / "scans"), "-o", str(out), "--quiet"]
    command = [sys.executable, "-m", "liverjax", *words]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("*.nii.gz")):
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    said = [line for line in errors.splitlines() if "the liver that is found" not in line]
    assert said == ["liverjax: interrupted; nothing is left half-written"]
    masks = sorted(out.glob("*.nii.gz"))
    assert 1 <= len(masks) < 80 and not list(out.rglob(".partial*"))
    assert all(np.asarray(nib.load(mask).dataobj).shape == (48, 40, 36) for mask in masks)
    before = {mask: mask.stat().st_mtime_ns for mask in masks}
    for number in range(len(masks) + 3, 80):
        (tmp_path / "scans" / f"case_{number:02}.nii.gz").unlink()
    assert main([*words, "--skip_existing"]) == 0
    assert len(list(out.glob("*.nii.gz"))) >= len(masks) + 2
    assert all(mask.stat().st_mtime_ns == before[mask] for mask in masks)


def test_mirrored_slices_are_refused_where_training_had_none(run, phantom_scans, tmp_path, capsys):
    words = ["predict", f"--model={run}", "-i", str(phantom_scans), "-o", str(tmp_path / "out"), "--flips"]
    assert main(words) == 1
    assert "predict.flips is True, expected false for networks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predict_fails_where_a_case_fails(run, phantom_scans, tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    good = find_cases(phantom_scans)[0].image.read_bytes()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(good)
    (tmp_path / "scans" / "b.nii.gz").write_bytes(good[:-100])
    words = ["predict", f"--model={run}", "-i", str(tmp_path / "scans"), "-o", str(tmp_path / "out")]
    assert main([*words, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "b.nii.gz" in error and "1 of 2 cases failed" in error and "Traceback" not in error
    assert (tmp_path / "out" / "a.nii.gz").exists() and not (tmp_path / "out" / "b.nii.gz").exists()


def test_a_bundle_predicts_what_its_run_predicts(run, phantom_scans, tmp_path, capsys):
    bundle = tmp_path / "model.safetensors"
    words = ["bundle", f"--workdir={run}", "-o", str(bundle), "--licence=CC0-1.0", "--dtype=float32"]
    assert main(words) == 0
    assert "licence CC0-1.0" in capsys.readouterr().out
    scan = find_cases(phantom_scans)[0].image
    for name, model in (("run", run), ("bundle", bundle)):
        assert (
            main(
                [
                    "predict",
                    f"--model={model}",
                    "-i",
                    str(scan),
                    "-o",
                    str(tmp_path / f"{name}.nii.gz"),
                    "--quiet",
                ]
            )
            == 0
        )
    assert (tmp_path / "run.nii.gz").read_bytes() == (tmp_path / "bundle.nii.gz").read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("flatbuffers") is None, reason="liverjax[onnx] is not installed")
def test_export_writes_a_folder(run, tmp_path, capsys):
    assert main(["export", f"--model={run}", "--format=stablehlo", "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / f) for f in ("coronal.stablehlo", "model.json")
    ]


def test_what_is_not_installed_is_named(run, phantom_scans, tmp_path, capsys, monkeypatch):
    for name in ("onnxruntime", "flatbuffers"):
        monkeypatch.setitem(sys.modules, name, None)
    scan = find_cases(phantom_scans)[0].image
    words = [
        "predict",
        f"--model={run}",
        "-i",
        str(scan),
        "-o",
        str(tmp_path / "mask.nii.gz"),
        "--runtime=onnx",
    ]
    assert main(words) == 1
    assert (
        "package onnxruntime is missing; install it with: pip install onnxruntime\n"
        in capsys.readouterr().err
    )
    assert main(["export", f"--model={run}", "-o", str(tmp_path / "out")]) == 1
    assert "package flatbuffers is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
