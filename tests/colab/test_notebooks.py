"""The notebooks, executed as a user would, with fewer patients and steps."""

import base64
import pathlib

import nbformat
from nbclient import NotebookClient

COLAB = pathlib.Path(__file__).parent.parent.parent / "colab"


def test_quickstart_runs_and_shows_its_pictures(tmp_path):
    notebook = nbformat.read(COLAB / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    (parameters,) = [cell for cell in notebook.cells if cell.source.startswith("# How many phantoms")]
    parameters.source = parameters.source.replace("16, 200", "8, 6")
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    printed = "".join(
        output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"
    )
    assert "liver of phantom_" in printed and "dice" in printed.lower()


def test_ablation_runs_two_variants_and_shows_table_and_plot(tmp_path):
    notebook = nbformat.read(COLAB / "ablation.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    # Coarse phantoms and a network of two levels: the way is the same.
    smaller = {
        "16, 200": "8, 4",
        "shape=(96, 80, 72), spacing=(4.0, 4.0, 4.0)": "shape=(48, 40, 36), spacing=(8.0, 8.0, 8.0)",
        '"views=axial", ': '"views=axial", "model.features=4,8", "batch.patch=48,48", "batch.size=4", '
        '"preprocess.spacing=8,8,8", ',
    }
    for before, after in smaller.items():
        (place,) = [cell for cell in notebook.cells if before in cell.source]
        place.source = place.source.replace(before, after)
    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    (picture,) = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert printed.count("liverjax train --config=demo") == 2 and "[7/7] evaluate no short skips" in printed
    assert "Dice of the tumor" in printed and "baseline" in printed
    assert (tmp_path / "ablation_output" / "work" / "ablations" / "skips" / "table.md").exists()
