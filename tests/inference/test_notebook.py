"""The notebook of prediction, executed as a user would, with fewer patients and steps."""

import base64
import pathlib
import re

import nbformat
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).parent.parent.parent / "colab" / "predict.ipynb"


def test_the_notebook_shows_masks_uncertainty_and_times(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    (parameters,) = [cell for cell in notebook.cells if "patients, steps = 16, 200" in cell.source]
    parameters.source = parameters.source.replace("16, 200", "6, 4")
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert len(re.findall(r"slice \d+: expected Dice [01]\.\d\d", printed)) == 5
    assert len(re.findall(r"phantom_\d+: \d+ ml liver; seconds: read", printed)) == len(
        list((tmp_path / "predict_output" / "masks").iterdir())
    )
