"""The notebooks, executed as a user would, with fewer patients and steps, coarse phantoms and narrow networks."""

import base64
import pathlib
import re

import nbformat
from nbclient import NotebookClient

COLAB = pathlib.Path(__file__).parent.parent.parent / "colab"
_COARSE = {
    "shape=(96, 80, 72), spacing=(4.0, 4.0, 4.0)": "shape=(48, 40, 36), spacing=(8.0, 8.0, 8.0)",
}
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
    assert "liver of phantom_" in printed and "dice" in printed.lower()


def test_ablation_runs_two_variants_and_shows_table_and_plot(tmp_path):
    words = '"views=axial", "model.features=4,8", "batch.patch=48,48", "batch.size=4", "preprocess.spacing=8,8,8", '
    smaller = _COARSE | {"16, 200": "8, 4", '"views=axial", ': words}
    (picture,), printed = _execute("ablation.ipynb", smaller, tmp_path)
    assert picture.startswith(b"\x89PNG")
    assert printed.count("liverjax train --config=demo") == 2 and "[7/7] evaluate no short skips" in printed
    assert "Dice of the tumor" in printed and "baseline" in printed
    assert (tmp_path / "ablation_output" / "work" / "ablations" / "skips" / "table.md").exists()


def test_predict_shows_masks_uncertainty_and_times(tmp_path):
    pictures, printed = _execute("predict.ipynb", _COARSE | _NARROW | {"16, 200": "6, 4"}, tmp_path)
    assert len(pictures) == 2 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(re.findall(r"slice \d+: expected Dice [01]\.\d\d", printed)) == 5
    masks = list((tmp_path / "predict_output" / "masks").iterdir())
    assert len(re.findall(r"phantom_\d+: \d+ ml liver; seconds: read", printed)) == len(masks) > 0


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
