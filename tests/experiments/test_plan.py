"""Plans of ablations: every shipped one fits every shipped config, and what is the same is done once."""

import collections
import inspect

import pytest

from liverjax.config import assignments, load_ablation, load_config, override, resolve
from liverjax.errors import ConfigError, InputError
from liverjax.experiments.plan import plan
from liverjax.options import Predict

CONFIGS = ["demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]
ABLATIONS = [
    name
    for name, value in load_ablation("views").__globals__.items()
    if inspect.isgeneratorfunction(value) and not name.startswith("_")
]


def _kinds(commands):
    return dict(collections.Counter(command.words[0] for command in commands))


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_baseline_is_the_config_and_every_variant_is_another_valid_one(name):
    assert load_ablation(name).__doc__
    for spec in CONFIGS:
        template = load_config(spec)
        config = resolve(template)
        variants = list(load_ablation(name)(config))
        resolved = [resolve(override(template, overrides)) for _, overrides in variants]
        assert resolved[0] == config
        assert len(set(resolved)) == len({name for name, _ in variants}) == len(variants) >= 2
        for variant in resolved:
            assert resolve(override(template, assignments(config, variant))) == variant


def test_variants_of_the_prediction_share_a_training(phantom_scans, tmp_path):
    study = plan("views", "demo", phantom_scans, tmp_path, seeds=2, folds=[0, 3])
    units = study.units()
    assert len(units) == 4 and len(study.runs) == 20
    assert _kinds(study.commands()) == {"prepare": 1, "train": 4, "predict": 20, "evaluate": 20}
    for unit in units:
        prepare, train, *_ = unit
        assert (prepare.words[0], train.words[0]) == ("prepare", "train")
        assert "--views=axial,coronal,sagittal" in train.words
    alone = [command for command in units[0] if "--views=sagittal" in command.words]
    assert _kinds(alone) == {"predict": 1}
    # Of eight phantoms in four folds, fold 3 tests those of rank 3 and 7.
    assert "--cases=phantom_003,phantom_007" in units[1][3].words


def test_a_store_for_each_grid_and_a_training_for_each_view_that_shares_a_time_limit(phantom_scans, tmp_path):
    study = plan("intensity_window", "demo", phantom_scans, tmp_path)
    assert _kinds(study.commands()) == {"prepare": 1, "train": 4, "predict": 4, "evaluate": 4}
    study = plan("spacing", "demo", phantom_scans, tmp_path)
    assert _kinds(study.commands()) == {"prepare": 3, "train": 3, "predict": 3, "evaluate": 3}
    limited = plan("views", "demo", phantom_scans, tmp_path, overrides=["max_minutes=1"])
    assert _kinds(limited.commands())["train"] == 4


def test_ablations_in_one_folder_share_their_baseline(phantom_scans, tmp_path):
    norm, loss = (plan(name, "demo", phantom_scans, tmp_path) for name in ("norm", "loss"))
    common = set(norm.commands()) & set(loss.commands())
    assert _kinds(common) == {"prepare": 1, "train": 1, "predict": 1, "evaluate": 1}
    assert not set(norm.commands()) & set(plan("norm", "demo", phantom_scans, tmp_path / "x").commands())


def test_commands_hold_what_the_variant_is(phantom_scans, tmp_path):
    """Each variant's config, gathered from the words of its commands."""
    template, folder = load_config("demo"), tmp_path / "work"
    study = plan(
        "postprocessing", "demo", phantom_scans, folder, overrides=["predict.bucket=32", "train.steps=5"]
    )
    commands = {(command.words[0], command.folder): command for command in study.commands()}
    assert _kinds(commands.values())["train"] == 1
    for run in study.runs:
        trained = _overrides(commands["train", run.training])
        predicted = _overrides(commands["predict", run.masks])
        assert resolve(override(template, trained)).predict == Predict()
        assert resolve(override(template, trained + predicted)) == run.config
        assert run.config.predict.bucket == 32 and run.config.train.steps == 5


def _overrides(command):
    return [word.removeprefix("--config.") for word in command.words if word.startswith("--config.")]


def test_what_a_training_step_does_not_read_makes_no_other_training(phantom_scans, tmp_path):
    def trainings(*overrides):
        return {
            run.training for run in plan("fusion", "demo", phantom_scans, tmp_path, overrides=overrides).runs
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
        ({"overrides": ["split.test_cases=phantom_001"], "folds": [0, 1]}, "names the test part of all"),
        ({"overrides": ["predict.fusion=weighted"]}, "fitted by `liverjax calibrate`"),
    ],
)
def test_what_does_not_fit_is_refused(phantom_scans, tmp_path, arguments, message):
    settings = {"ablation": "dropout", "spec": "demo", "dataset": phantom_scans, "workdir": tmp_path / "w"}
    with pytest.raises(ConfigError) as caught:
        plan(**{**settings, **arguments})
    assert message in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(InputError):
        plan("dropout", "demo", tmp_path, tmp_path / "w")


def test_overrides_from_one_config_to_another():
    texts = ["model.shared=true", "split.test_cases=a,b", "train.min_delta=1e-9"]
    template = load_config("ct_liver")
    before, after = resolve(template), resolve(override(load_config("demo"), texts))
    assert resolve(override(template, assignments(before, after))) == after
    assert assignments(before, before) == []
