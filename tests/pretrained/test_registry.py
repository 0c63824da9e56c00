"""The models that come with the library: by name, by the scan's modality, and what their cards say."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import zipfile

import jax
import numpy as np
import pytest

import liverjax
from liverjax.commands.dispatch import main
from liverjax.datasets.phantom import write_dataset
from liverjax.errors import CheckpointError
from liverjax.inference.segmenter import Segmenter
from liverjax.pretrained import bundle as bundles
from liverjax.pretrained import card, registry
from liverjax.scans import nifti
from liverjax.volume import Volume

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "models.md"
SHIPPED = pathlib.Path(card.__file__).parent / "shipped"


# --- what is shipped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_shipped_model_is_small_sound_and_names_no_case(name):
    facts, size = registry.shipped_facts(name)
    assert size <= 5e6 and facts["card"] and facts["licence"] and facts["credit"]
    # All arrays are read, and the checksum is verified.
    model = liverjax.load_model(name)
    assert model.about["sha256"] == facts["sha256"] and model.networks.views == facts["config"].views
    content = (SHIPPED / f"{name}.safetensors").read_bytes()
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    assert not re.findall(rb"(?:lits|btcv|mr|hbp_tr|volume-)\d+|/(?:home|root|work|tmp)/", header)
    for group in facts["card"]["held_out"].values():
        dice = group["dice"]
        assert (
            dice["min"]
            <= min(dice["mean"], dice["median"])
            <= max(dice["mean"], dice["median"])
            <= dice["max"]
        )
    # The words that it was bundled with lie beside it.
    words = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    held_out = facts["card"]["held_out"].items()
    unscored = {key: {field: group[field] for field in words["held_out"][key]} for key, group in held_out}
    assert {**facts["card"], "held_out": unscored} == words


def test_every_shipped_file_is_listed_and_every_modality_has_a_model():
    assert {file.stem for file in SHIPPED.iterdir()} == set(registry.NAMES)
    assert {registry.best_for("ct"), registry.best_for("mr")} <= set(registry.NAMES)


def test_the_page_and_the_cards_agree():
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- cards: written by the command above -->\n", "<!-- end of cards -->"
    before, _, rest = page.partition(begin)
    cards = "\n\n".join(card.text(name, *registry.shipped_facts(name)) for name in registry.NAMES)
    if os.environ.get("LIVERJAX_WRITE_GOLDEN"):
        PAGE.write_text(f"{before}{begin}\n{cards}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")
        return
    assert rest.partition(end)[0].strip() == cards


def test_models_are_listed_and_their_cards_printed(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in facts] == list(registry.NAMES)
    for model in facts:
        assert model["name"] in listed and model["licence"] in listed
        assert f"{model['bytes'] / 1e6:.1f} MB" in listed
        for group in model["card"]["held_out"].values():
            assert f"{group['dice']['mean']:.3f} ({group['dice']['min']:.3f} to" in listed
        assert main(["models", model["name"]]) == 0
        assert capsys.readouterr().out.strip() == card.text(
            model["name"], *registry.shipped_facts(model["name"])
        )
        assert main(["models", model["name"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == model


def test_an_archive_serves_as_well_as_a_folder(tmp_path, monkeypatch):
    name = registry.NAMES[0]
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as archive:
        archive.write(SHIPPED / f"{name}.safetensors", f"shipped/{name}.safetensors")
    usual = liverjax.load_model(name)
    monkeypatch.setattr(registry, "FOLDER", zipfile.Path(tmp_path / "library.zip", "shipped/"))
    jax.tree.map(np.testing.assert_array_equal, liverjax.load_model(name).networks, usual.networks)


# --- names and paths ----------------------------------------------------------------------------------------


def test_what_lies_in_the_working_directory_goes_before_a_shipped_model(tiny_run, tmp_path, monkeypatch):
    name = registry.NAMES[0]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, name)
    assert liverjax.load_model(name).config.name == "tiny"
    (tmp_path / name / "run.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        liverjax.load_model(name)
    assert str(caught.value) == (
        f"{name}/run.json does not exist, expected the folder of a training run; what is called {name} in the working "
        "directory goes before the shipped model: rename it, or call this in another folder"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shipped = registry.shipped_facts(name)[0]["config"]
    assert liverjax.load_model(name).config == shipped
    monkeypatch.chdir(tmp_path)
    os.rename(name, "renamed")
    assert liverjax.load_model(name).config == shipped
    # A file of that name is a bundle.
    pathlib.Path(name).write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="no model bundle.*goes before the shipped model"):
        liverjax.load_model(name)


@pytest.mark.parametrize("path", ["./{}", "{}/", "runs/{}", pathlib.Path("{}")])
def test_a_path_is_no_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = (
        type(path)(str(path).format(registry.NAMES[0]))
        if isinstance(path, pathlib.Path)
        else path.format("any_liver")
    )
    with pytest.raises(
        CheckpointError, match="does not exist, expected the folder of a training run, (a|or a) bundle"
    ):
        liverjax.load_model(path)


def test_an_unknown_name_leads_to_those_that_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["models", "any_livre"], ["export", "--model=any_livre", "-o", "out"]):
        assert main(words) == 1
        error = capsys.readouterr().err
        meant = re.search(r"did you mean '(\w+)'\? \(`liverjax models` lists them\)\n$", error)
        assert meant and error.count("\n") == 1
        assert liverjax.load_model(meant[1]).networks.views
    assert main(["models"]) == 0 and meant[1] in capsys.readouterr().out


# --- by modality --------------------------------------------------------------------------------------------


@pytest.fixture
def two_models(tiny_run, tmp_path, monkeypatch):
    """Folder of two shipped models, one for CT, one for MR; the latter knows one view, by which it is told."""
    model = liverjax.load_model(tiny_run)
    for kind in ("ct", "mr"):
        preprocess = dataclasses.replace(model.config.preprocess, modality=kind)
        views = model.config.views if kind == "ct" else ("coronal",)
        config = dataclasses.replace(model.config, preprocess=preprocess, views=views)
        one = Segmenter(config, model.networks.select(views), model.subsets, about=model.about)
        bundles.write_bundle(tmp_path / "shipped" / f"{kind}_tiny.safetensors", one, licence="CC0-1.0")
    monkeypatch.setattr(registry, "NAMES", ("ct_tiny", "mr_tiny"))
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture(scope="module")
def three_scans(tmp_path_factory):
    """Folder of two CT and a MR, and nothing that says which is which."""
    tmp_path = tmp_path_factory.mktemp("three")
    coarse = {"shape": (48, 40, 36), "spacing": (8.0, 8.0, 8.0)}
    for kind, patients in (("ct", range(2)), ("mr", range(2, 3))):
        write_dataset(tmp_path / kind, patients, modality=kind, **coarse)
        for file in (tmp_path / kind / "imagesTr").iterdir():
            (tmp_path / "scans").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "scans" / f"{kind}_{file.name.replace('_0000', '')}")
    return tmp_path / "scans"


@pytest.fixture
def scans(three_scans, tmp_path):
    """The same, for a test to change."""
    return shutil.copytree(three_scans, tmp_path / "scans")


def _predict(*words):
    return main(["predict", *map(str, words)])


def test_each_case_gets_the_model_of_its_modality(two_models, scans, tmp_path, capsys):
    assert _predict("-i", scans, "-o", tmp_path / "out") == 0
    text = capsys.readouterr().err
    assert "model ct_tiny: 2 cases on" in text and "model mr_tiny: 1 case on" in text
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    runs = {run["model"]: [case["id"] for case in run["cases"]] for run in (manifest, *manifest["earlier"])}
    assert runs == {"mr_tiny": ["mr_phantom_002"], "ct_tiny": ["ct_phantom_000", "ct_phantom_001"]}
    rows = (tmp_path / "out" / "volumes.csv").read_text(encoding="utf-8").splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [
        "ct_phantom_000",
        "ct_phantom_001",
        "mr_phantom_002",
    ]
    # The masks are those of the models that are named.
    for id, name in (("ct_phantom_000", "ct_tiny"), ("mr_phantom_002", "mr_tiny")):
        scan = scans / f"{id}.nii.gz"
        expected = liverjax.load_model(two_models / f"{name}.safetensors").predict(scan).labels
        np.testing.assert_array_equal(
            nifti.read_mask(tmp_path / "out" / f"{id}.nii.gz").voxels, expected.voxels
        )
        one = tmp_path / f"{id}.nii.gz"
        assert _predict("-i", scan, "-o", one) == 0
        assert f"model {name}: 1 case" in capsys.readouterr().err
        np.testing.assert_array_equal(nifti.read_mask(one).voxels, expected.voxels)


def test_several_models_never_write_one_file(two_models, scans, tmp_path, capsys):
    (scans / "ct_phantom_001.nii.gz").unlink()
    assert _predict("-i", scans, "-o", tmp_path / "mask.nii.gz") == 1
    assert "names one file for 2 cases, expected a folder" in capsys.readouterr().err
    assert not (tmp_path / "mask.nii.gz").exists()


def test_what_the_data_set_says_goes_before_the_values(two_models, tmp_path, capsys):
    write_dataset(tmp_path / "data", range(1), shape=(24, 20, 18), spacing=(16.0, 16.0, 16.0))
    for channel, name in (("T2", "mr_tiny"), ("CT", "ct_tiny")):
        facts = json.loads((tmp_path / "data" / "dataset.json").read_text(encoding="utf-8"))
        facts["channel_names"] = {"0": channel}
        (tmp_path / "data" / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
        assert _predict("-i", tmp_path / "data", "-o", tmp_path / name) == 0
        assert f"model {name}: 1 case" in capsys.readouterr().err


def test_a_scan_that_is_neither_is_taken_out_or_given_a_model(two_models, scans, tmp_path, capsys):
    empty = scans / "empty.nii.gz"
    nifti.write(empty, Volume(np.zeros((20, 20, 20), np.uint8), np.diag([8.0, 8, 8, 1])))
    words = "-i", scans, "-o", tmp_path / "out", "--quiet"
    assert _predict(*words) == 1
    assert capsys.readouterr().err == (
        f"liverjax: error: {empty}: neither CT nor MR by its values (every voxel is 0); take it out, or give a model "
        "with --model (`liverjax models` lists them)\n"
    )
    assert not (tmp_path / "out").exists()
    assert _predict("-i", empty, "-o", tmp_path / "mask.nii.gz", "--model=ct_tiny", "--quiet") == 0
    empty.unlink()
    assert _predict(*words) == 0


def test_a_scan_that_cannot_be_read_is_reported_and_the_others_go_on(two_models, scans, tmp_path, capsys):
    (scans / "broken.nii.gz").write_bytes((scans / "ct_phantom_000.nii.gz").read_bytes()[:-100])
    assert _predict("-i", scans, "-o", tmp_path / "out", "--quiet") == 1
    assert "broken.nii.gz" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*phantom*.nii.gz"))) == 3


def test_a_modality_without_a_shipped_model_needs_one(two_models, scans, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "NAMES", ("ct_tiny",))
    words = "-i", scans / "mr_phantom_002.nii.gz", "-o", tmp_path / "mask.nii.gz"
    assert _predict(*words) == 1
    assert (
        "no shipped model is for MR (`liverjax models` lists them); give one with --model"
        in capsys.readouterr().err
    )
    assert _predict(*words, f"--model={two_models / 'mr_tiny.safetensors'}") == 0


def test_an_installation_that_is_not_whole_is_installed_again(two_models, scans, tmp_path, capsys):
    file, whole = two_models / "ct_tiny.safetensors", tmp_path / "whole"
    shutil.copy(file, whole)
    words = "-i", scans / "ct_phantom_000.nii.gz", "-o", tmp_path / "mask.nii.gz", "--quiet"
    file.unlink()
    assert _predict(*words) == 1
    assert (
        f"{file} is missing: this installation lacks the shipped model ct_tiny; install"
        in capsys.readouterr().err
    )
    content = whole.read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        assert _predict(*words) == 1
        error = capsys.readouterr().err
        assert error.endswith("; install liverjax again, which brings the shipped model ct_tiny\n")
        assert str(file) in error and error.count("\n") == 1
    assert not (tmp_path / "mask.nii.gz").exists()
    shutil.copy(whole, file)  # as an installation does; tests/test_config.py has a real one
    assert _predict(*words) == 0
