"""Configs: one source of defaults, overrides by type, and errors that name the field."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverjax import config as config_module
from liverjax.config import (
    assignments,
    default_config,
    describe,
    differences,
    load_config,
    meanings,
    override,
    resolve,
    to_dict,
)
from liverjax.errors import ConfigError, InputError
from liverjax.options import Config

SHIPPED = ["any_liver", "any_liver:small", "demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]


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
    config = override(Config(), texts)
    assert config.model.dropout == 0.25 and config.model.features == (8, 16) and config.views == ("axial",)
    assert config.train.steps == 7 and config.max_minutes == 2.0
    assert config.predict.largest_component is False and config.name == "x"


def test_an_override_leaves_the_config_that_it_was_given():
    config = default_config()
    assert override(config, ["train.steps=7"]) == override(Config(), ["train.steps=7"]) != Config()
    assert resolve(config) == Config()


def test_fields_that_depend_on_one_another_change_together():
    # A patch of 40 fits four levels and no five, one of 48 five and no four levels of another width.
    config = override(Config(), ["batch.patch=40,40", "model.features=8,16,32", "train.steps=7"])
    assert (config.batch.patch, config.model.features, config.train.steps) == ((40, 40), (8, 16, 32), 7)
    with pytest.raises(ConfigError, match="expected multiples of 16 for 5 levels"):
        override(config, ["model.features=8,16,32,64,128"])
    assert override(config, ["model.features=8,16,32,64,128", "batch.patch=48,48"]).batch.patch == (48, 48)


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
        ("preprocess.spacing=1,2", "preprocess.spacing is (1.0, 2.0), expected three sizes of 0.2 to 20 mm"),
        ("preprocess.window=240,-160", "expected two rising HU values"),
        ("loss.dice=-1", "expected weights of 0 or more"),
        ("predict.flips=true", "predict.flips is True, expected false for networks"),
        ("split.fold=5", "split.fold is 5, expected -1 to 4"),
        ("target.labels=background,kidney", "target.labels is ('background', 'kidney'), expected"),
        ("target.region=lung", "target.region is 'lung'; expected one of predicted, reference, scan"),
        ("target.margin_mm=-1", "target.margin_mm is -1.0, expected 0 or more"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(text, message):
    with pytest.raises(ConfigError) as caught:
        override(Config(), [text])
    assert message in str(caught.value)


def _numbers(options, path=""):
    """Yields path and value of each field that holds numbers."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{path}{field.name}.")
        elif not isinstance(value, bool | str) and not (
            isinstance(value, tuple) and isinstance(value[:1], str)
        ):
            yield path + field.name, value


@pytest.mark.parametrize(
    ("path", "value"), [*_numbers(Config())], ids=[path for path, _ in _numbers(Config())]
)
def test_no_number_is_infinite_none_or_huge(path, value):
    count = len(value) if isinstance(value, tuple) else 1
    if count == 0 or (isinstance(value, tuple) and isinstance(value[0], str)):
        return
    for text in ("inf", "-inf", "nan", "1e400", str(10**12), "9" * 5000):
        if text == str(10**12) and not isinstance(value, int) and path != "preprocess.spacing":
            continue  # A float may be large.
        with pytest.raises(ConfigError) as caught:
            override(Config(), [f"{path}={','.join([text] * count)}"])
        told = str(caught.value)
        assert path.rpartition(".")[2] in told and len(told) < 300 and "\n" not in told


@pytest.mark.parametrize("text", ["0", "1e-6", "0.19", "21", "nan", "inf"])
def test_voxels_of_the_working_grid_are_of_a_size_that_scans_have(text):
    with pytest.raises(ConfigError, match=r"preprocess.spacing is .*, expected three sizes of 0.2 to 20 mm"):
        override(Config(), [f"preprocess.spacing=4,{text},4"])
    assert override(Config(), ["preprocess.spacing=0.2,20,1"]).preprocess.spacing == (0.2, 20.0, 1.0)


@pytest.mark.parametrize(
    "text",
    ["batch.size=1000000000", "batch.patch=65536,65536", "model.features=65536,65536", "batch.threads=9999"],
)
def test_what_no_step_can_hold_is_refused(text):
    with pytest.raises(ConfigError, match=f"{text.partition('=')[0]} is .*, expected .* to "):
        override(Config(), [text])


def test_values_that_are_deeply_nested_or_of_thousands_of_digits_are_told_in_a_line():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**5000, "x" * 10**6, None, [1] * 10**5):
        for config in ({"train": {"steps": value}}, {"model": value}, value, {"views": [value]}):
            with pytest.raises(ConfigError) as caught:
                resolve(config)
            assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError, match="the config has no field"):
        resolve({5: 3})


def test_an_address_is_no_config_file():
    with pytest.raises(InputError, match=r"--config: gs://bucket/my.py is an address, expected a file"):
        load_config("gs://bucket/my.py")


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
    with pytest.raises(ConfigError, match="demo takes no argument, not 'small'"):
        load_config("demo:small")
    with pytest.raises(ConfigError, match=r"nothing.py does not exist"):
        load_config(str(tmp_path / "nothing.py"))
    with pytest.raises(
        ConfigError,
        match="no config is called 'ablations'; expected one of any_liver, ct_liver, ct_tumor, demo, mr_liver, "
        "mr_tumor",
    ):
        load_config("ablations")


def _config_file(folder, body, head="def get_config(arg):"):
    path = folder / "my.py"
    lines = ["from liverjax.config import default_config", "", head, "    config = default_config()"]
    path.write_text("\n".join([*lines, *(f"    {line}" for line in body.splitlines())]), encoding="utf-8")
    return path


#: Bodies of get_config from the fifth line on, and what is said of them behind the file's name.
MISTAKES = {
    "config.model.dropuot = 0.1": ":5: the config has no field 'dropuot' there; did you mean 'model.dropout'?",
    "config.steps = 5": ":5: the config has no field 'steps' there; did you mean 'train.steps'?",
    "\nconfig.modle.norm = 'group'": ":6: the config has no field 'modle' there; did you mean 'model'?",
    "config['train']['stpes'] = 4": ":5: the config has no field 'stpes' there; did you mean 'train.steps'?",
    "config.train.update(stpes=4)": ":5: the config has no field 'stpes' there; did you mean 'train.steps'?",
    "print(config.batch.sise)": ":5: the config has no field 'sise' there; did you mean 'batch.size'?",
    "print(config.zzzzz)": ":5: the config has no field 'zzzzz' there; `liverjax config NAME` lists them",
    "print(config['zzzzz'])": ":5: the config has no field 'zzzzz' there; `liverjax config NAME` lists them",
    "None.zzzzz": ":5: AttributeError: 'NoneType' object has no attribute 'zzzzz'",
    "config.zzzzz = 1": ":5: the config has no field 'zzzzz' there; `liverjax config NAME` lists them",
    "config.train.steps = 'many'": ":5: train.steps is 'many', expected int",
    "config.views = 'axial'": ":5: views is 'axial', expected tuple",
    "config.model = 3": ":5: model is '3', expected a group of fields",
    "config.model.norm = 'batsh'\nreturn config": ": model.norm is 'batsh'; did you mean 'batch'?",
    "config.model.features = None\nreturn config": ": model.features is None, expected a list",
    "return 1 / 0": ":5: ZeroDivisionError: division by zero",
    "return len([]) + {}['a']": ":5: KeyError: a",
    "import no_such_module": ":5: ModuleNotFoundError: No module named 'no_such_module'",
    "config.train.steps = = 4": ":5: SyntaxError: invalid syntax",
    "import sys; sys.exit(0)": ":5: SystemExit: 0",
    "def deep(): return deep()\nreturn deep()": ":5: RecursionError: maximum recursion depth exceeded",
    "config.train.steps = 10**5000\nreturn config": ": train.steps is a int that is too long to be shown, expected",
    "return {'model': 3}": ": get_config returned dict, expected the ConfigDict of default_config()",
    "return None": ": get_config returned NoneType, expected the ConfigDict of default_config()",
}


@pytest.mark.parametrize("body", MISTAKES, ids=list(MISTAKES))
def test_a_mistake_in_a_config_file_is_named_with_its_line(tmp_path, body):
    path = _config_file(tmp_path, body)
    with pytest.raises(ConfigError) as caught:
        load_config(f"{path}:small")
    assert (
        str(caught.value).startswith(f"{path}{MISTAKES[body]}") and len(str(caught.value).splitlines()) == 1
    )


def test_get_config_may_take_no_argument(tmp_path):
    path = _config_file(tmp_path, "config.name = 'own'\nreturn config", head="def get_config():")
    assert load_config(str(path)).name == "own"
    with pytest.raises(ConfigError, match=r"my.py: get_config\(\) takes no argument, but 'small' was given"):
        load_config(f"{path}:small")
    path.write_text("get_config = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no function get_config"):
        load_config(str(path))


def test_a_config_that_was_loaded_can_be_changed_field_by_field_and_is_checked_again():
    config = load_config("mr_liver:small")
    config.store = "store"
    config.train.steps = 8000
    assert (resolve(config).store, resolve(config).train.steps) == ("store", 8000)
    config.model.norm = "batsh"
    with pytest.raises(ConfigError, match=r"model.norm is 'batsh'; did you mean 'batch'"):
        resolve(config)


def test_a_folder_called_configs_beside_an_installed_package_is_not_ours(tmp_path, monkeypatch):
    package, other = tmp_path / "liverjax", tmp_path / "configs"
    for folder in (package / "_configs", other):
        folder.mkdir(parents=True)
        (folder / "demo.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(config_module, "_PACKAGE", package)
    assert config_module.shipped_files() == {"demo": package / "_configs" / "demo.py"}
    (package / "_configs").rename(tmp_path / "elsewhere")
    assert config_module.shipped_files() == {}
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n', encoding="utf-8")
    assert config_module.shipped_files() == {}
    # A checkout.
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "liverjax"\n', encoding="utf-8")
    assert config_module.shipped_files() == {"demo": other / "demo.py"}


def test_every_field_has_a_meaning_of_its_own_or_shares_that_of_its_neighbours():
    found = meanings()
    assert all(found.values())
    assert found["model.dropout"].startswith("Share of feature maps that are dropped")
    assert found["train.accumulate"].endswith("another objective than that of the whole batch.")
    assert found["split.folds"] == found["split.fold"] != found["split.test_cases"]
    assert found["loss"] == "Weights of the terms of the objective; 0 leaves a term out."
    groups = {name for name, value in to_dict(Config()).items() if isinstance(value, dict)}
    fields = {f"{name}.{field}" for name in groups for field in to_dict(Config())[name]} | set(
        to_dict(Config())
    )
    assert set(found) == fields | {""}


def test_a_described_config_can_be_typed_again():
    config = override(Config(), ["model.shared=true", "train.steps=7", "split.test_cases=a,b"])
    lines = describe(config).splitlines()
    starred = [line[2:].partition("  (default: ")[0] for line in lines if line.startswith("* ")]
    assert starred == ["split.test_cases = a,b", "model.shared = true", "train.steps = 7"]
    assert "* model.shared = true  (default: false)" in lines
    typed = [line[2:].partition("  (")[0] for line in lines if " = " in line and line[:2] in ("* ", "  ")]
    typed = [line for line in typed if not line.startswith(" ")]
    assert override(Config(), [line.replace(" = ", "=", 1) for line in typed]) == config
    assert assignments(Config(), config) == [line.replace(" = ", "=", 1) for line in starred]


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


def test_the_wheel_holds_configs_and_types(tmp_path):
    root = pathlib.Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=root, check=True
    )
    (wheel,) = tmp_path.glob("liverjax-*.whl")
    # Installing a wheel of pure Python is unpacking it.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    assert (tmp_path / "site" / "liverjax" / "py.typed").exists()
    code = "import liverjax; print(liverjax.__file__, liverjax.load_config('mr_liver:small').name)\n"
    code += "from liverjax.experiments import load_ablation; print(load_ablation('norm').name)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "liverjax" / "__init__.py"), "mr_liver", "norm"], (
        done.stderr
    )


def test_fields_that_the_pages_name_exist():
    root = pathlib.Path(__file__).parent.parent
    pages = [*root.glob("docs/*.md"), root / "README.md", *root.glob("colab/*.ipynb"), *root.glob("launch/*")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"--config\.([a-z0-9_]+(?:\.[a-z0-9_]+)*)=", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    fields = to_dict(Config())
    for page, path in sorted(named):
        value = fields
        for part in path.split("."):
            assert part in value, f"{page} names {path}"
            value = value[part]


def test_a_config_is_printed_in_a_line():
    assert repr(resolve(load_config("ct_liver:small"))) == (
        "Config(ct_liver: liver in CT at 3 x 3 x 3 mm; axial, coronal, sagittal; channels 16-32-64-128; "
        "2000 steps of 8 slices)"
    )
