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
    (parameters,) = [cell for cell in notebook.cells if cell.source.startswith("# How many phantoms")]
    parameters.source = parameters.source.replace("16, 200", "8, 4")
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    (picture,) = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert printed.count("liverjax train --config=demo") == 2 and "[7/7] evaluate no short skips" in printed
    assert "Dice of the tumor" in printed and "baseline" in printed
    assert (tmp_path / "ablation_output" / "work" / "ablations" / "skips" / "table.md").exists()
