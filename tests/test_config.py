"""Configs: one source of defaults, overrides by type, and errors that name the field."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverjax.config import default_config, differences, load_config, override, resolve, to_dict
from liverjax.errors import ConfigError
from liverjax.options import Config

SHIPPED = ["demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]


def test_the_default_config_is_the_dataclasses():
    assert resolve(default_config()) == Config()


@pytest.mark.parametrize("spec", SHIPPED)
def test_shipped_configs_resolve_and_survive_json(spec):
    config = resolve(load_config(spec))
    assert config.name == spec.partition(":")[0]
    assert resolve(json.loads(json.dumps(to_dict(config)))) == config


def test_full_configs_have_the_published_network():
    for spec in ("ct_liver", "mr_liver"):
        model = resolve(load_config(spec)).model
        assert model.features == (64, 128, 256, 512) and model.dropout == 0.5


def test_overrides_are_read_by_the_type_of_their_field():
    texts = ["model.dropout=0.25", "model.features=8, 16", "views=axial", "train.steps=7", "max_minutes=2"]
    texts += ["predict.largest_component=false", "name=x"]
    config = resolve(override(default_config(), texts))
    assert config.model.dropout == 0.25 and config.model.features == (8, 16) and config.views == ("axial",)
    assert config.train.steps == 7 and config.max_minutes == 2.0
    assert config.predict.largest_component is False and config.name == "x"


def test_an_override_leaves_the_config_that_it_was_given():
    config = default_config()
    override(config, ["train.steps=7"])
    assert resolve(config) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.dropuot=1", "the config has no field 'model.dropuot'; did you mean 'dropout'?"),
        ("modle.dropout=1", "the config has no field 'modle.dropout'; did you mean 'model'?"),
        ("model=1", "model is a group of fields"),
        ("model.dropout.x=1", "the config has no field 'model.dropout.x'"),
        ("train.steps=many", "train.steps is 'many', expected int"),
        ("train.steps=1.5", "train.steps is '1.5', expected int"),
        ("predict.largest_component=maybe", "predict.largest_component is 'maybe', expected bool"),
        ("train.steps", "override 'train.steps' is not of the form field=value"),
        ("views=axail", "views is 'axail'; did you mean 'axial'?"),
        ("model.norm=batsh", "model.norm is 'batsh'; did you mean 'batch'?"),
        ("model.dropout=1", "model.dropout is 1.0, expected a share in [0, 1)"),
        ("batch.patch=100,100", "batch.patch is (100, 100), expected multiples of 8 for 4 levels"),
        ("preprocess.spacing=1,2", "preprocess.spacing is (1.0, 2.0), expected three sizes in mm above 0"),
        ("preprocess.window=240,-160", "expected two rising HU values"),
        ("loss.dice=-1", "expected weights of 0 or more"),
        ("predict.flips=true", "predict.flips is True, expected false for networks"),
        ("split.fold=5", "split.fold is 5, expected -1 to 4"),
        ("target.labels=background,kidney", "target.labels is ('background', 'kidney'), expected"),
        ("target.region=lung", "target.region is 'lung'; expected one of liver, scan"),
        ("target.margin_mm=-1", "target.margin_mm is -1.0, expected 0 or more"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(text, message):
    with pytest.raises(ConfigError) as caught:
        resolve(override(default_config(), [text]))
    assert message in str(caught.value)


def test_values_of_another_type_are_refused():
    with pytest.raises(ConfigError, match="train.steps is '5', expected int"):
        resolve({"train": {"steps": "5"}})
    with pytest.raises(ConfigError, match="train is 5, expected a group of fields"):
        resolve({"train": 5})
    with pytest.raises(ConfigError, match="views is 'axial', expected a list"):
        resolve({"views": "axial"})
    with pytest.raises(ConfigError, match="seed is True, expected int"):
        resolve({"seed": True})


def test_unknown_names_and_arguments_of_configs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config is called 'mr_livr'; did you mean 'mr_liver'\?"):
        load_config("mr_livr")
    with pytest.raises(ConfigError, match="takes the argument 'small' or none, not 'tiny'"):
        load_config("mr_liver:tiny")
    with pytest.raises(ConfigError, match=r"nothing.py does not exist"):
        load_config(str(tmp_path / "nothing.py"))
    with pytest.raises(
        ConfigError, match="no config is called 'ablations'; expected one of ct_liver, demo, mr_liver"
    ):
        load_config("ablations")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="has no function get_config"):
        load_config(str(tmp_path / "empty.py"))


@given(seed=st.integers(0, 2**32 - 1), dropout=st.floats(0, 0.99), steps=st.integers(1, 10**9))
def test_differences_name_exactly_the_fields_that_differ(seed, dropout, steps):
    before = Config()
    after = dataclasses.replace(
        before,
        seed=seed,
        model=dataclasses.replace(before.model, dropout=dropout),
        train=dataclasses.replace(before.train, steps=steps),
    )
    changed = {"seed": seed != 0, "model.dropout": dropout != 0.5, "train.steps": steps != 20_000}
    assert set(differences(before, after)) == {name for name, differs in changed.items() if differs}


def test_configs_ship_in_the_wheel(tmp_path):
    root = pathlib.Path(__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", str(tmp_path), str(root)], check=True)
    (wheel,) = tmp_path.glob("liverjax-*.whl")
    target = ["--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run([*pip, "install", *target], check=True)
    code = "import liverjax; print(liverjax.__file__, liverjax.load_config('mr_liver:small').name)\n"
    code += "from liverjax.config import load_ablation; print(load_ablation('norm').__name__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "liverjax" / "__init__.py"), "mr_liver", "norm"], (
        done.stderr
    )
