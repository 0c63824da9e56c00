"""`liverjax predict` and `bundle` with a liver and a tumour model: files, tables, and remedies that are followed."""

import csv
import dataclasses
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax import objects
from liverjax.commands.dispatch import main
from liverjax.config import to_dict
from liverjax.data.store import prepare
from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError
from liverjax.inference import Cascade, lesion_table
from liverjax.objects import features, forest
from liverjax.pretrained import load_model
from liverjax.pretrained.load import load_segmenter, with_tumors
from liverjax.training.loop import train


@pytest.fixture(scope="module")
def liver_run(tiny_config, made_once):
    """Folder of a run that finds some liver in phantoms; its tumours count as liver."""
    steps = dataclasses.replace(
        tiny_config.train, steps=40, validate_every=40, save_every=40, learning_rate=1e-2
    )
    config = dataclasses.replace(tiny_config, train=steps, views=("axial",))
    return made_once("cascade_liver_run", lambda folder: train(config, folder, quiet=True))


@pytest.fixture(scope="module")
def tumor_run(tiny_config, phantom_scans, made_once):
    """Folder of a run of four steps that knows only boxes around livers, two views."""
    target = dataclasses.replace(tiny_config.target, region="reference")
    config = dataclasses.replace(tiny_config, target=target, views=("axial", "coronal"))
    store = made_once("cascade_boxes", lambda folder: prepare(phantom_scans, folder, config, quiet=True))
    config = dataclasses.replace(config, store=str(store))
    return made_once("cascade_tumor_run", lambda folder: train(config, folder, quiet=True))


@pytest.fixture(scope="module")
def filter_file(made_once):
    """A filter by the views' agreement that keeps what is larger than 3 ml."""
    names = features.feature_names(True)
    arrays = {
        "roots": [0],
        "children": [[1, 2], [-1, -1], [-1, -1]],
        "feature": [names.index("volume_ml"), 0, 0],
        "threshold": [3.0, 0, 0],
        "value": [0.4, 0.1, 0.8],
        "impurity": np.eye(len(names))[0],
    }
    grown = forest.Forest(names, **{n: np.array(arrays[n], kind) for n, kind in forest.ARRAYS.items()})
    made = objects.LesionFilter(grown, 0.5, objects.CandidateOptions(0.3), ("axial", "coronal"))
    folder = made_once("cascade_filter", lambda folder: objects.write_filter(folder / "f.safetensors", made))
    return folder / "f.safetensors"


@pytest.fixture
def call(capsys):
    """Function from the words of a command to its exit status and what it printed as errors."""

    def called(*words):
        status = main([*map(str, words), "--quiet"])
        return status, capsys.readouterr().err

    return called


def _table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_masks_maps_and_tables_are_written(call, liver_run, tumor_run, filter_file, phantom_scans, tmp_path):
    words = ["predict", f"--model={liver_run}", f"--tumor_model={tumor_run}", "-i", phantom_scans]
    status, _ = call(
        *words, "-o", tmp_path / "out", "--subset=test", "--save_probabilities", "--save_uncertainty"
    )
    assert status == 0
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert (facts["model"], facts["tumor_model"]) == (str(liver_run), str(tumor_run))
    model = with_tumors(load_model(liver_run), tumor_run)
    assert isinstance(model, Cascade) and facts["config"]["tumor"] == json.loads(
        json.dumps(to_dict(model.tumor.config))
    )
    assert facts["without_liver"] == 0 and facts["lesion_probability"] is None
    rows = _table(tmp_path / "out" / "lesions.csv")
    volumes = {row["mask"]: row for row in _table(tmp_path / "out" / "volumes.csv")}
    assert facts["cases"] and len(facts["cases"]) == len(volumes)
    for case in facts["cases"]:
        stem = case["id"]
        mask = np.asarray(nib.load(tmp_path / "out" / f"{stem}.nii.gz").dataobj)
        maps = tmp_path / "out" / "probabilities"
        fused, axial, coronal = (
            np.asarray(nib.load(maps / f"{stem}_tumor{end}.nii.gz").dataobj)
            for end in ("", "_axial", "_coronal")
        )
        # Maps are written in steps of 2**-10.
        np.testing.assert_allclose(fused, (axial + coronal) / 2, atol=1.1 * 2**-10)
        assert np.abs(axial - coronal).max() > 0.01
        own = [row for row in rows if row["mask"] == f"{stem}.nii.gz" and row["lesion"] != "0"]
        assert case["lesions"] == {"kept": len(own), "dropped": 0}
        tumor = np.count_nonzero(mask == 2) * 8**3 / 1000
        assert sum(float(row["ml"]) for row in own) == pytest.approx(tumor, abs=0.01)
        assert float(volumes[f"{stem}.nii.gz"]["tumor_ml"]) == pytest.approx(tumor, abs=1e-3)
    assert any(row["kept"] == "1" for row in rows)
    # The same maps are what the filter sees: kept and dropped, and the operating point can be moved.
    filtered = [*words, "--subset=test", f"--lesion_filter={filter_file}"]
    assert call(*filtered, "-o", tmp_path / "kept")[0] == 0
    assert call(*filtered, "-o", tmp_path / "all", "--lesion_probability=0")[0] == 0
    dropped, everything = (_table(tmp_path / name / "lesions.csv") for name in ("kept", "all"))
    assert len(dropped) == len(everything) and "0.1" in {row["lesion_probability"] for row in dropped}
    for row in dropped:
        assert row["lesion"] == "0" or (row["kept"] == "1") == (float(row["candidate_ml"]) > 3)
    assert {row["kept"] for row in everything if row["lesion"] != "0"} == {"1"}


def test_both_models_and_the_filter_are_one_bundle(
    call, liver_run, tumor_run, filter_file, phantom_scans, tmp_path
):
    scan = find_cases(phantom_scans)[0].image
    parts = [f"--tumor_model={tumor_run}", f"--lesion_filter={filter_file}", "--lesion_probability=0.05"]
    bundle = tmp_path / "both.safetensors"
    words = ["bundle", f"--workdir={liver_run}", *parts, "-o", bundle, "--licence=CC0-1.0", "--dtype=float32"]
    assert call(*words) == (0, "")
    for name, model in (("runs", [f"--model={liver_run}", *parts]), ("bundle", [f"--model={bundle}"])):
        assert call("predict", *model, "-i", scan, "-o", tmp_path / f"{name}.nii.gz")[0] == 0
    one, other = (np.asarray(nib.load(tmp_path / f"{n}.nii.gz").dataobj) for n in ("runs", "bundle"))
    assert np.array_equal(one, other) and one.any()
    tables = [_table(tmp_path / f"{name}_lesions.csv") for name in ("runs", "bundle")]
    assert [{**row, "mask": ""} for row in tables[0]] == [{**row, "mask": ""} for row in tables[1]]
    # What else takes a model.
    assert call("export", f"--model={bundle}", "-o", tmp_path / "net")[0] == 0
    assert (tmp_path / "net/liver/model.json").exists() and (
        tmp_path / "net/tumor/coronal.stablehlo"
    ).exists()
    status, error = call(
        "predict", f"--model={bundle}", "-i", phantom_scans, "-o", tmp_path / "o", "--subset=test"
    )
    assert status == 1 and "does not list its test cases" in error and error.count("\n") == 1
    status, error = call("predict", f"--model={bundle}", *parts[:1], "-i", scan, "-o", tmp_path / "o.nii.gz")
    assert (
        status == 1 and "leave it out, or give as --model the run or the bundle of the liver alone" in error
    )
    with pytest.raises(ConfigError, match="give the run or the bundle of one of them"):
        load_segmenter(bundle)
    assert load_segmenter(liver_run).config.views == ("axial",)
    changed = ["--config.tumor.predict.min_tumor_mm3=1e9", "--views=axial"]
    assert (
        call("predict", f"--model={bundle}", "-i", scan, "-o", tmp_path / "c.nii.gz", *parts[2:], *changed)[0]
        == 1
    )
    no_views = ["--config.tumor.predict.min_tumor_mm3=1e9"]
    assert call("predict", f"--model={bundle}", "-i", scan, "-o", tmp_path / "c.nii.gz", *no_views)[0] == 0
    assert not (np.asarray(nib.load(tmp_path / "c.nii.gz").dataobj) == 2).any()


def test_a_tumour_model_alone_is_refused_and_a_liver_model_helps(
    call, liver_run, tumor_run, phantom_scans, tmp_path
):
    one = ["-i", find_cases(phantom_scans)[0].image, "-o", tmp_path / "m.nii.gz"]
    status, error = call("predict", f"--model={tumor_run}", *one)
    assert status == 1 and error.count("\n") == 1 and "(--model=LIVER --tumor_model=THIS)" in error
    assert call("predict", f"--model={liver_run}", f"--tumor_model={tumor_run}", *one)[0] == 0
    status, error = call("predict", f"--model={tumor_run}", f"--tumor_model={liver_run}", *one)
    assert status == 1 and "are the two swapped?" in error and error.count("\n") == 1


def test_a_filter_needs_tumour_networks_and_a_probability_a_filter(
    call, liver_run, tumor_run, filter_file, phantom_scans, tmp_path
):
    one = [
        "predict",
        f"--model={liver_run}",
        "-i",
        find_cases(phantom_scans)[0].image,
        "-o",
        tmp_path / "m.nii.gz",
    ]
    status, error = call(*one, f"--lesion_filter={filter_file}")
    assert status == 1 and error.endswith("give --tumor_model too\n")
    one.append(f"--tumor_model={tumor_run}")
    assert call(*one, f"--lesion_filter={filter_file}")[0] == 0
    status, error = call(*one, "--lesion_probability=0.4")
    assert status == 1 and error.endswith("give --lesion_filter too\n")
    assert call(*one, "--lesion_probability=0.4", f"--lesion_filter={filter_file}")[0] == 0
    assert call(*one, "--lesion_probability=1.4", f"--lesion_filter={filter_file}")[0] == 2


def test_a_scan_without_liver_is_counted_and_ends_well(call, liver_run, tumor_run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        voxels = np.full((20, 20, 20), -1000, np.int16)
        nib.Nifti1Image(voxels, np.diag([8.0, 8, 8, 1])).to_filename(tmp_path / "in" / f"{name}.nii.gz")
    words = ["predict", f"--model={liver_run}", f"--tumor_model={tumor_run}", "-i", tmp_path / "in"]
    assert main([*map(str, words), "-o", str(tmp_path / "out"), "--save_probabilities"]) == 0
    assert "; no liver found in 2 of 2 scans" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert facts["without_liver"] == 2
    assert all("no liver is found" in case["doubts"] for case in facts["cases"])
    rows = _table(tmp_path / "out" / "lesions.csv")
    assert [(row["case"], row["lesion"], row["kept"]) for row in rows] == [("a", "0", "0"), ("b", "0", "0")]
    assert not np.asarray(nib.load(tmp_path / "out" / "a.nii.gz").dataobj).any()
    assert not np.asarray(nib.load(tmp_path / "out/probabilities/a_tumor.nii.gz").dataobj).any()


def _record(folder, id, status="done", lesions=()):
    return {"id": id, "mask": str(folder / f"{id}.nii.gz"), "status": status, "lesions": list(lesions)}


def test_rows_of_other_masks_stay_until_the_masks_change(tmp_path, caplog):
    path = tmp_path / "lesions.csv"
    one = {
        "lesion": 1,
        "kept": 1,
        "lesion_probability": 0.75,
        "ml": 2.5,
        "candidate_ml": 3.0,
        "diameter_mm": 17.9,
    }
    for name in ("=a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").touch()
    lesion_table.write_lesions(path, [_record(tmp_path, "=a", lesions=[one, {**one, "lesion": 2}])])
    lesion_table.write_lesions(path, [_record(tmp_path, "b"), _record(tmp_path, "=a", "failed")])
    assert [(r["case"], r["lesion"], r["ml"]) for r in _table(path)] == [
        ("'=a", "1", "2.5"),
        ("'=a", "2", "2.5"),
        ("b", "0", ""),
    ]
    # A mask that nobody listed, skipped; and one that changed since.
    lesion_table.write_lesions(path, [_record(tmp_path, "c", "skipped")])
    assert (
        "the lesions of 1 masks that were skipped are not in it, such as c.nii.gz; predict them"
        in caplog.text
    )
    later = path.stat().st_mtime + 5
    os.utime(tmp_path / "=a.nii.gz", (later, later))
    lesion_table.write_lesions(path, [_record(tmp_path, "c")])  # The remedy.
    assert [row["case"] for row in _table(path)] == ["b", "c"]
    caplog.clear()
    path.write_text("mine\n")
    lesion_table.write_lesions(path, [_record(tmp_path, "c")])
    assert "is not a table of lesions" in caplog.text and path.read_text() == "mine\n"
    shutil.move(path, tmp_path / "elsewhere.csv")
    lesion_table.write_lesions(path, [_record(tmp_path, "c")])
    assert len(_table(path)) == 1
