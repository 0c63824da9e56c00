"""Several runs as one model: the mean of what each says, what was held out of all, and what does not go together."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import liverjax
from liverjax.commands.dispatch import main
from liverjax.config import to_dict
from liverjax.datasets.layouts import find_cases
from liverjax.errors import CheckpointError, ConfigError, InputError
from liverjax.inference import Networks
from liverjax.pretrained.ensemble import named
from liverjax.pretrained.load import load_model, load_segmenter
from liverjax.training.loop import train


@pytest.fixture(scope="module")
def other_run(tiny_config, made_once):
    """A run like `tiny_run` of another seed; the same cases are held out."""
    config = dataclasses.replace(tiny_config, seed=5)
    return made_once("tiny_run_of_seed_5", lambda folder: train(config, folder, quiet=True))


@pytest.fixture(scope="module")
def scan(phantom_scans):
    return find_cases(phantom_scans)[0].image


def _changed(run, folder, **changes):
    """A copy of a run whose config says something else."""
    copy = shutil.copytree(run, folder)
    facts = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        group, _, field = name.partition("__")
        (facts["config"][group] if field else facts["config"])[field or group] = value
    (copy / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return copy


def test_an_ensemble_says_the_mean_of_the_runs_softmax_maps(tiny_run, other_run, scan):
    alone = [load_model(run).predict(scan, uncertainty=True) for run in (tiny_run, other_run)]
    shares = np.stack([prediction.grid_probabilities for prediction in alone])
    assert np.abs(shares[0] - shares[1]).max() > 0.01, "runs that say the same prove little"
    for model in (load_model(f"{tiny_run},{other_run}"), load_model([tiny_run, other_run])):
        together = model.predict(scan, uncertainty=True)
        np.testing.assert_allclose(together.grid_probabilities, shares.mean(0), atol=1e-6)
        assert (model.networks.members, model.networks.runs) == (2, 2)
        assert "2 networks each from 2 runs" in repr(model) and "2 of each from 2 runs" in repr(
            model.networks
        )
    # Two that disagree are less sure than each is of itself.
    disagreement = together.uncertainty.mutual_information
    assert disagreement.mean() > max(one.uncertainty.mutual_information.mean() for one in alone)


def test_the_command_predicts_with_several(tiny_run, other_run, scan, tmp_path, capsys):
    words = [
        "predict",
        f"--model={tiny_run},{other_run}",
        "-i",
        str(scan),
        "-o",
        str(tmp_path / "mask.nii.gz"),
    ]
    assert main([*words, "--quiet"]) == 0
    expected = load_model([tiny_run, other_run]).predict(scan).labels.voxels
    assert np.array_equal(liverjax.read_scan(tmp_path / "mask.nii.gz").voxels, expected)


def test_networks_of_runs_know_the_best_of_each():
    def network(value):
        return {"params": {"kernel": np.float32([value])}}

    runs = [Networks.stack({"axial": [network(10 * run + k) for k in range(3)]}) for run in range(2)]
    together = Networks.of_runs(runs)
    values = [float(one["params"]["kernel"][0]) for _, _, one in together.each()]
    assert values == [0, 1, 2, 10, 11, 12] and (together.members, together.runs) == (6, 2)
    best = together.select(["axial"]).best()
    assert [float(one["params"]["kernel"][0]) for _, _, one in best.each()] == [0, 10]
    assert (best.members, best.runs) == (2, 2) and best.best() is best


def test_held_out_is_what_no_run_has_seen(tiny_run, other_run, tmp_path, phantom_scans, capsys):
    one = load_model(tiny_run)
    assert load_model([tiny_run, other_run]).subset("test") == list(one.subset("test"))
    facts = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))["data"]
    # The second fold of a cross-validation: what the first held out trains here.
    fold = shutil.copytree(other_run, tmp_path / "fold")
    changed = json.loads((fold / "run.json").read_text(encoding="utf-8"))
    rest = [*facts["train"], *facts["validation"]]
    changed["data"] |= {"test": [rest[0]], "validation": [rest[1]], "train": [*facts["test"], *rest[2:]]}
    (fold / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    folds = load_model([tiny_run, fold])
    seen = {name: set(folds.subsets[name]) for name in ("train", "validation", "test")}
    assert seen["test"] == set() and set.union(*seen.values()) == set(map(str, [*rest, *facts["test"]]))
    assert seen["train"] >= set(facts["test"]) | set(facts["train"])
    with pytest.raises(InputError, match="no case was held out of all 2 runs: .* with that run alone"):
        folds.subset("test")
    words = ["predict", "-i", str(phantom_scans), "-o", str(tmp_path / "masks"), "--subset=test", "--quiet"]
    assert main([*words, f"--model={tiny_run},{fold}"]) == 1
    assert "no case was held out" in capsys.readouterr().err
    assert main([*words, f"--model={fold}"]) == 0  # The remedy.
    # A case that one run holds out and the other does not know is held out of both.
    changed["data"] |= {"test": ["another"], "train": list(facts["train"]), "validation": []}
    (fold / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    assert load_model([tiny_run, fold]).subset("test") == [*facts["test"], "another"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"preprocess__window": [-100.0, 200.0]},
            r"preprocess.window is \(-160.0, 240.0\) and \(-100.0, 200.0\)",
        ),
        ({"preprocess__spacing": [8.0, 8.0, 9.0]}, r"preprocess.spacing is \(8.0, 8.0, 8.0\) and"),
        ({"predict__decision": "argmax"}, "predict.decision is nested and argmax"),
        ({"predict__ensemble": "best"}, "predict.ensemble is all and best"),
        ({"model__dropout": 0.2}, "model.dropout is 0.1 and 0.2"),
    ],
)
def test_what_differs_is_named(tiny_run, other_run, tmp_path, change, told):
    other = _changed(other_run, tmp_path / "other", **change)
    with pytest.raises(ConfigError, match=f"cannot predict together: {told}.*, expected the same of both"):
        load_model([tiny_run, other])


def test_what_only_training_reads_may_differ(tiny_run, other_run, tmp_path):
    other = _changed(other_run, tmp_path / "other", model__norm_momentum=0.5, store="elsewhere", name="other")
    model = load_model([tiny_run, other])
    assert model.config.name == "tiny + other" and to_dict(model.config)["seed"] == 0


def test_views_and_numbers_of_networks(tiny_run, other_run, tmp_path, scan):
    model = load_model(f"{tiny_run},{other_run}", views=["axial"])
    assert model.networks.views == ("axial",) and model.networks.runs == 2
    other = _changed(other_run, tmp_path / "other", views=["axial", "coronal"])
    with pytest.raises(ConfigError, match="views is .* and .*, expected the same of both"):
        load_model([tiny_run, other])
    two = load_model([tiny_run, other_run])
    liverjax.pretrained.write_bundle(tmp_path / "one.safetensors", load_model(tiny_run), licence="CC0")
    assert load_model([tmp_path / "one.safetensors", other_run]).subsets == {}
    # An ensemble passes on as bundles of each.
    with pytest.raises(
        ConfigError, match="holds? the networks of 2 runs, expected those of one; bundle each"
    ):
        liverjax.pretrained.write_bundle(tmp_path / "both.safetensors", two, licence="CC0")
    liverjax.pretrained.write_bundle(
        tmp_path / "other.safetensors", load_model(other_run), licence="CC0", dtype="float32"
    )
    text = f"{tmp_path / 'one.safetensors'},{tmp_path / 'other.safetensors'}"
    np.testing.assert_allclose(
        load_model(text).predict(scan).grid_probabilities,
        two.predict(scan).grid_probabilities,
        atol=5e-3,  # One of them in float16.
    )


def test_calibrations_of_single_runs_are_not_used(tiny_run, other_run, tmp_path, phantom_scans, scan, caplog):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["calibrate", f"--workdir={run}", "-i", str(phantom_scans), "--quiet"]) == 0
    model = load_model([run, other_run])
    assert "not calibrated: temperatures and weights were fitted to single ones" in caplog.text
    expected = load_model([tiny_run, other_run]).predict(scan).grid_probabilities
    np.testing.assert_array_equal(model.predict(scan).grid_probabilities, expected)
    with pytest.raises(
        ConfigError, match="weights are fitted to the networks of one run, not of 2; choose 'mean'"
    ):
        model.with_options(fusion="weighted").predict(scan)
    assert model.with_options(fusion="weighted").with_options(fusion="mean").predict(scan)


def test_names_of_several_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    assert named("a,b") == ["a,b"] and named("a, c") == ["a", "c"] and named(tmp_path) == [tmp_path]
    for text, told in (
        ("a,./a", "./a: is given twice"),
        ("a,,b", "expected a path or name between the commas"),
    ):
        with pytest.raises(InputError, match=told):
            named(text)
    with pytest.raises(InputError, match="no model is given"):
        named([])
    with pytest.raises(CheckpointError, match="nowhere: does not exist"):
        load_model("nowhere,ct_liver")


def test_what_takes_one_model_refuses_several(tiny_run, other_run, tiny_config, tmp_path, capsys):
    with pytest.raises(ConfigError, match="are 2 models, expected one; give one of them"):
        load_segmenter(f"{tiny_run},{other_run}")
    assert load_segmenter(tiny_run)
    shipped = [liverjax.load_model(name) for name in ("ct_liver", "any_liver")]
    assert all(jax.tree.leaves(model.networks) for model in shipped)
    with pytest.raises(ConfigError, match="ct_liver and any_liver cannot predict together: "):
        load_model("ct_liver,any_liver")
