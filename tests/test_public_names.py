"""What the packages offer: every public name is there, under the name that is documented."""

import importlib
import pathlib
import subprocess
import sys

import pytest

import liverjax

PACKAGE = pathlib.Path(liverjax.__file__).parent
PACKAGES = ["liverjax", *sorted(f"liverjax.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist_and_none_hides_a_module(name):
    package = importlib.import_module(name)
    public = getattr(package, "__all__", [])
    found = {public_name: getattr(package, public_name) for public_name in public}
    assert set(public) <= set(dir(package))
    folder = pathlib.Path(package.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")}
    # Such a name would stand for the function or for the module, by what was imported before.
    assert not {public_name for public_name in found if public_name in modules}
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


def test_public_names_of_the_library_are_those_of_its_documentation():
    assert {
        "Config",
        "Prediction",
        "Volume",
        "evaluate",
        "load_config",
        "load_model",
        "prepare",
        "read_scan",
    } | {
        "train",
        "write_mask",
    } <= set(liverjax.__all__)
    for name in liverjax.__all__:
        assert name in (liverjax.__doc__ or "") or (PACKAGE / name).is_dir()


def test_reading_reads_dicom_too_and_scores_need_no_jax():
    from liverjax import scans

    assert liverjax.read_scan is scans.read
    code = "import sys, liverjax; liverjax.read_scan, liverjax.write_mask, liverjax.scoring, liverjax.Config;"
    code += "assert not {'jax', 'matplotlib'} & set(sys.modules); print(liverjax.load_config('demo').name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "demo", done.stderr
