"""The notebooks, executed as a user would, with fewer patients and steps, coarse phantoms and narrow networks."""

import base64
import dataclasses
import json
import pathlib
import re
import time
import tomllib

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

COLAB = pathlib.Path(__file__).parent.parent.parent / "colab"
NAMES = sorted(path.stem for path in COLAB.glob("*.ipynb"))
_COARSE = {
    "shape=(96, 80, 72), spacing=(4.0, 4.0, 4.0)": "shape=(48, 40, 36), spacing=(8.0, 8.0, 8.0)",
}
_SMALL = {"shape=(96, 80, 72), spacing=(4.0, 4.0, 4.0)": "shape=(24, 20, 18), spacing=(8.0, 8.0, 8.0)"}
_NARROW = {
    "config.train.steps = steps": "config.train.steps, config.preprocess.spacing = steps, (8.0, 8.0, 8.0); "
    "config.batch.patch, config.model.features = (48, 48), (4, 8)",
}


def _execute(name: str, smaller: dict[str, str], folder: pathlib.Path) -> tuple[list[bytes], str]:
    """Returns the pictures and the printed text of a notebook in which each key of ``smaller`` is replaced."""
    notebook = nbformat.read(COLAB / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    for before, after in smaller.items():
        (place,) = [cell for cell in notebook.cells if before in cell.source]
        place.source = place.source.replace(before, after)
    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    return [base64.b64decode(picture) for picture in pictures], printed


def test_quickstart_runs_and_shows_its_pictures(tmp_path):
    pictures, printed = _execute("quickstart.ipynb", _COARSE | _NARROW | {"16, 200": "8, 6"}, tmp_path)
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "dice" in printed.lower()


def test_ablation_runs_two_variants_and_shows_table_and_plot(tmp_path):
    words = '"views=axial", "model.features=4,8", "batch.patch=48,48", "batch.size=4", "preprocess.spacing=8,8,8", '
    smaller = _COARSE | {"16, 200": "8, 4", '"views=axial", ': words}
    (picture,), printed = _execute("ablation.ipynb", smaller, tmp_path)
    assert picture.startswith(b"\x89PNG")
    assert printed.count("liverjax train --config=demo") == 2 and "[7/7] evaluate no short skips" in printed
    assert "Dice of the tumor" in printed and "baseline" in printed
    assert (tmp_path / "ablation_output" / "work" / "ablations" / "skips" / "table.md").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_with_its_badge_and_the_setup_of_all(name):
    """The address of the repository stands in pyproject.toml; what Colab opens and installs is that."""
    project = tomllib.loads((COLAB.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    title, setup = nbformat.read(COLAB / f"{name}.ipynb", as_version=4).cells[:2]
    first = nbformat.read(COLAB / f"{NAMES[0]}.ipynb", as_version=4).cells[1]
    assert setup.cell_type == "code" and setup.source == first.source
    (address,) = re.findall(r"git\+(https://\S+?)\"", setup.source)
    assert address == project.get("urls", {}).get("Repository", address)
    extras = re.search(r"liverjax\[(.*)\] @", setup.source)[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    owner = address.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{owner}/blob/main/colab/{name}.ipynb"
    assert title.cell_type == "markdown" and f"colab-badge.svg)]({link})" in title.source


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short(name):
    cells = nbformat.read(COLAB / f"{name}.ipynb", as_version=4).cells
    assert all(cell.source.count("\n") < 25 and len(cell.source) < 1200 for cell in cells)


def test_predict_shows_a_mask_its_uncertainty_and_a_viewer(tmp_path):
    pictures, printed = _execute("predict.ipynb", _SMALL, tmp_path)
    assert len(pictures) == 2 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "computes on: cpu\nNo GPU. On Colab: Runtime > Change runtime type" in printed
    assert "not on Colab: a phantom is taken" in printed and re.search(r"\{'liver': '\d+ ml'\}", printed)
    assert len(re.findall(r"slice \d+: expected Dice [01]\.\d\d", printed)) == 5
    assert (tmp_path / "predict_output" / "mask.nii.gz").is_file()


def test_predict_takes_what_is_uploaded(tmp_path, monkeypatch):
    """With stand-ins for the modules that only Colab has."""
    package = tmp_path / "modules" / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = "import shutil\ndef upload():\n    shutil.copy(SOURCE, 'mine.nii.gz')\n    return {'mine.nii.gz': b''}\n"
    from liverjax.datasets.layouts import find_cases
    from liverjax.datasets.phantom import write_dataset

    write_dataset(tmp_path / "scans", [0], shape=(24, 20, 18), spacing=(8.0, 8.0, 8.0))
    source = find_cases(tmp_path / "scans")[0].image
    (package / "files.py").write_text(text.replace("SOURCE", repr(str(source))), encoding="utf-8")
    # What anywidget asks of Colab before it shows a widget.
    widgets = "def enable_custom_widget_manager(): ...\nclass _widgets:\n    _installed_url = None\n"
    (package / "output.py").write_text(widgets, encoding="utf-8")
    (package / "drive.py").write_text("def mount(place):\n    raise AssertionError(place)\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}:{COLAB.parent}")
    _, printed = _execute("predict.ipynb", _SMALL, tmp_path)
    assert "a phantom is taken" not in printed
    assert (tmp_path / "mine.nii.gz").is_file() and not (tmp_path / "predict_output" / "scans").exists()


def test_training_draws_a_live_curve_and_takes_an_own_loss(tmp_path):
    smaller = (
        _COARSE | _NARROW | {"scans, steps = None, 200": "scans, steps = None, 4", "range(16)": "range(6)"}
    )
    smaller |= {"config.train.steps, config.views = 20": "config.train.steps, config.views = 2"}
    pictures, printed = _execute("training.ipynb", smaller, tmp_path)
    assert pictures and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "Segmenter(" in printed and "held out: phantom_" in printed
    assert '"own": {' in (tmp_path / "training_output" / "focal" / "run.json").read_text(encoding="utf-8")


def test_an_interrupted_cell_saves_and_goes_on(tiny_config, tmp_path):
    """A kernel runs cells in its main thread, where an interrupt is a signal that training obeys."""
    manager, client = start_new_kernel()

    def reply(code, wait=None):
        number = client.execute(code)
        if wait:
            while not wait():
                time.sleep(0.05)
            manager.interrupt_kernel()
        while (message := client.get_shell_msg(timeout=240))["parent_header"].get("msg_id") != number:
            pass
        return message["content"]

    try:
        setup = f"""
import dataclasses, json
import liverjax
from liverjax.config import resolve
config = resolve(json.loads({json.dumps(json.dumps(dataclasses.asdict(tiny_config)))}))
config = dataclasses.replace(config, views=("axial",), train=dataclasses.replace(
    config.train, steps=100_000, validate_every=100_000, save_every=100_000))
"""
        assert reply(setup)["status"] == "ok"
        log = tmp_path / "axial" / "log.jsonl"
        train = f"liverjax.train(config, {str(tmp_path)!r}, quiet=True)"
        stopped = reply(train, wait=lambda: log.exists() and log.read_text(encoding="utf-8").count("\n") > 2)
        assert stopped["status"] == "error" and stopped["ename"] == "Interrupted"
        step = int(re.search(r"SIGINT after step (\d+) of axial; saved", stopped["evalue"])[1])
        assert (tmp_path / "axial" / "last" / str(step)).is_dir()
        callback = "def stop(step, view, metrics):\n    print(step)\n    raise liverjax.StopTraining\n"
        assert reply(callback + train.replace("quiet", "callback=stop, quiet"))["status"] == "ok"
        assert (tmp_path / "axial" / "last" / str(step + 1)).is_dir()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_studies_compares_observers_and_draws_a_curve(tmp_path):
    words = '"views=axial", "model.features=4,8", "batch.patch=48,48", "batch.size=4", "preprocess.spacing=8,8,8", '
    smaller = _COARSE | {"12, 200": "6, 4", '"views=axial", ': words, "sizes=[1, 2, 4]": "sizes=[1, 2]"}
    pictures, printed = _execute("studies.ipynb", smaller, tmp_path)
    assert len(pictures) == 2 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "inter-observer variability" in printed and "ICC(2,1) of the volume" in printed
    assert "patients needed for Dice 0.9: cannot be said from this; 4 sizes" in printed
    assert len(list((tmp_path / "studies_output" / "observers" / "consensus").iterdir())) == 6


def test_insight_shows_fields_maps_checks_profiles_and_points(tmp_path):
    pictures, printed = _execute("insight.ipynb", _COARSE | _NARROW | {"16, 200": "6, 4"}, tmp_path)
    assert len(pictures) == 5 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "untrained:" in printed and "theoretical 20 pixels" in printed
    assert "largest false region" in printed and "completeness error" in printed
