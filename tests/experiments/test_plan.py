"""Plans of ablations: every shipped one fits every shipped config, and what is the same is done once."""

import collections
import inspect
import shutil

import pytest

from liverjax.config import assignments, load_config, override, resolve
from liverjax.errors import ConfigError, InputError
from liverjax.experiments import plan as planning
from liverjax.experiments.ablation import load_ablation
from liverjax.experiments.plan import plan_sweep
from liverjax.options import Predict

CONFIGS = ["demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]
ABLATIONS = [
    name
    for name, value in load_ablation("views").vary.__globals__.items()
    if inspect.isgeneratorfunction(value) and not name.startswith("_")
]


def _kinds(commands):
    return dict(collections.Counter(command.words[0] for command in commands))


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_baseline_is_the_config_and_every_variant_is_another_valid_one(name):
    assert load_ablation(name).title
    for spec in CONFIGS:
        config = resolve(load_config(spec))
        variants = load_ablation(name).variants(config)
        resolved = [override(config, overrides) for overrides in variants.values()]
        assert resolved[0] == config
        assert len(set(resolved)) == len(variants) >= 2
        for variant in resolved:
            assert override(config, assignments(config, variant)) == variant


def test_variants_of_the_prediction_share_a_training(phantom_scans, tmp_path):
    sweep = plan_sweep("views", "demo", phantom_scans, tmp_path, seeds=2, folds=[0, 3])
    chains = sweep.chains()
    assert len(chains) == 4 and len(sweep.trials) == 20
    assert _kinds(sweep.commands()) == {"prepare": 1, "train": 4, "predict": 20, "evaluate": 20}
    for chain in chains:
        prepare, train, *_ = chain
        assert (prepare.words[0], train.words[0]) == ("prepare", "train")
        assert "--views=axial,coronal,sagittal" in train.words
    alone = [command for command in chains[0] if "--views=sagittal" in command.words]
    assert _kinds(alone) == {"predict": 1}
    # Of eight phantoms in four folds, fold 3 tests those of rank 3 and 7.
    assert "--cases=phantom_003,phantom_007" in chains[1][3].words


def test_a_training_of_many_levels_keeps_the_shapes_that_fit_them(phantom_scans, tmp_path):
    deep = ["model.features=4,4,4,4,4,4", "batch.patch=64,64", "predict.bucket=32", "predict.fusion=majority"]
    _, train, predict, _ = plan_sweep("norm", "demo", phantom_scans, tmp_path, overrides=deep).chains()[0]
    assert "--config.predict.bucket=32" in train.words
    assert "--config.predict.fusion=majority" in predict.words
    assert not any("bucket" in word for word in predict.words)  # The model has it.


def test_an_address_is_neither_data_set_nor_folder(phantom_scans, tmp_path):
    with pytest.raises(InputError, match="dataset: gs://bucket/scans is an address"):
        plan_sweep("norm", "demo", "gs://bucket/scans", tmp_path)
    with pytest.raises(InputError, match="workdir: s3://bucket/work is an address"):
        plan_sweep("norm", "demo", phantom_scans, "s3://bucket/work")


def test_a_store_for_each_grid_and_a_training_for_each_view_that_shares_a_time_limit(phantom_scans, tmp_path):
    sweep = plan_sweep("intensity_window", "demo", phantom_scans, tmp_path)
    assert _kinds(sweep.commands()) == {"prepare": 1, "train": 4, "predict": 4, "evaluate": 4}
    sweep = plan_sweep("spacing", "demo", phantom_scans, tmp_path)
    assert _kinds(sweep.commands()) == {"prepare": 3, "train": 3, "predict": 3, "evaluate": 3}
    limited = plan_sweep("views", "demo", phantom_scans, tmp_path, overrides=["max_minutes=1"])
    assert _kinds(limited.commands())["train"] == 4


def test_ablations_in_one_folder_share_their_baseline(phantom_scans, tmp_path):
    norm, loss = (plan_sweep(name, "demo", phantom_scans, tmp_path) for name in ("norm", "loss"))
    common = set(norm.commands()) & set(loss.commands())
    assert _kinds(common) == {"prepare": 1, "train": 1, "predict": 1, "evaluate": 1}
    assert not set(norm.commands()) & set(
        plan_sweep("norm", "demo", phantom_scans, tmp_path / "x").commands()
    )


def test_commands_hold_what_the_variant_is(phantom_scans, tmp_path):
    """Each variant's config, gathered from the words of its commands."""
    base, folder = resolve(load_config("demo")), tmp_path / "work"
    sweep = plan_sweep(
        "postprocessing", "demo", phantom_scans, folder, overrides=["predict.bucket=32", "train.steps=5"]
    )
    commands = {(command.words[0], command.folder): command for command in sweep.commands()}
    assert _kinds(commands.values())["train"] == 1
    for trial in sweep.trials:
        trained = _overrides(commands["train", trial.training])
        predicted = _overrides(commands["predict", trial.masks])
        assert override(base, trained).predict == Predict()
        assert override(base, trained + predicted) == trial.config
        assert trial.config.predict.bucket == 32 and trial.config.train.steps == 5


def _overrides(command):
    return [word.removeprefix("--config.") for word in command.words if word.startswith("--config.")]


def test_what_a_training_step_does_not_read_makes_no_other_training(phantom_scans, tmp_path):
    def trainings(*overrides):
        return {
            trial.training
            for trial in plan_sweep("fusion", "demo", phantom_scans, tmp_path, overrides=overrides).trials
        }

    assert trainings() == trainings("batch.threads=1", "batch.prefetch=9", "predict.batch_size=2")
    assert trainings() != trainings("model.dropout=0.3")
    assert trainings("model.shared=true") != trainings("model.shared=true", "views=axial,coronal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ablation": "drop_out"}, "no ablation is called 'drop_out'; did you mean 'dropout'?"),
        ({"ablation": "_vary"}, "no ablation is called '_vary'"),
        ({"spec": "ablations"}, "no config is called 'ablations'"),
        ({"seeds": 0}, "seeds is 0, expected 1 or more"),
        ({"overrides": ["split.validation=6"]}, "only 6 of 8 patients are not held out"),
        ({"overrides": ["split.test_cases=phantom_01"]}, "did you mean 'phantom_001'"),
        ({"overrides": ["split.test_cases=phantom_001"], "folds": [0, 1]}, "names the test cases of all"),
        ({"overrides": ["predict.fusion=weighted"]}, "fitted by `liverjax calibrate`"),
    ],
)
def test_what_does_not_fit_is_refused(phantom_scans, tmp_path, arguments, message):
    settings = {"ablation": "dropout", "spec": "demo", "dataset": phantom_scans, "workdir": tmp_path / "w"}
    with pytest.raises(ConfigError) as caught:
        plan_sweep(**{**settings, **arguments})
    assert message in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(InputError):
        plan_sweep("dropout", "demo", tmp_path, tmp_path / "w")


def test_overrides_from_one_config_to_another():
    texts = ["model.shared=true", "split.test_cases=a,b", "train.min_delta=1e-9"]
    before, after = resolve(load_config("ct_liver")), override(load_config("demo"), texts)
    assert override(before, assignments(before, after)) == after
    assert assignments(before, before) == []


def test_changed_data_and_another_version_make_other_trainings_and_a_copy_does_not(
    phantom_scans, tmp_path, monkeypatch
):
    def trainings(scans):
        return {trial.training for trial in plan_sweep("fusion", "demo", scans, tmp_path / "work").trials}

    scans = shutil.copytree(phantom_scans, tmp_path / "scans", copy_function=shutil.copy)
    before = trainings(phantom_scans)
    assert trainings(scans) == before
    prepared = plan_sweep("fusion", "demo", scans, tmp_path / "work").commands()[0]
    prepared.folder.mkdir(parents=True)
    prepared.write_note()
    # Another mask of one case: the store is brought up to date in place, and its training is another one.
    shutil.copy(scans / "labelsTr" / "phantom_001.nii.gz", scans / "labelsTr" / "phantom_002.nii.gz")
    assert trainings(scans).isdisjoint(before)
    again = plan_sweep("fusion", "demo", scans, tmp_path / "work").commands()[0]
    assert again.folder == prepared.folder and prepared.done and not again.done
    shutil.copy(phantom_scans / "labelsTr" / "phantom_002.nii.gz", scans / "labelsTr")
    assert trainings(scans) == before
    # Which scans are of one patient decides the split.
    (scans / "cases.json").write_text('{"patients": {"phantom_000": "a", "phantom_001": "a"}}')
    assert trainings(scans).isdisjoint(before)
    monkeypatch.setattr(planning, "__version__", "another")
    assert trainings(phantom_scans).isdisjoint(before)


def test_files_of_a_data_set_are_read_once(phantom_scans, tmp_path, monkeypatch):
    first = plan_sweep("fusion", "demo", phantom_scans, tmp_path)
    monkeypatch.setattr(planning, "sha256", None)
    assert plan_sweep("norm", "demo", phantom_scans, tmp_path).fingerprint == first.fingerprint
    (tmp_path / "data.json").write_text("[")
    with pytest.raises(TypeError):
        plan_sweep("norm", "demo", phantom_scans, tmp_path)


def test_metrics_have_scores_of_their_own(phantom_scans, tmp_path):
    dice, distance = (
        plan_sweep("fusion", "demo", phantom_scans, tmp_path, metric=metric) for metric in ("dice", "hd95")
    )
    common = set(dice.commands()) & set(distance.commands())
    assert _kinds(common) == {"prepare": 1, "train": 1, "predict": 2}
    assert all("--metrics=hd95" in command.words for command in set(distance.commands()) - common)
    assert {trial.scores for trial in dice.trials}.isdisjoint({trial.scores for trial in distance.trials})
