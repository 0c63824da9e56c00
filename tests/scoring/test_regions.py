"""Which regions are scored; ids that spreadsheets would run; folders of others; memory."""

import csv
import json

import numpy as np
import pytest

from liverjax.errors import InputError, LiverjaxError
from liverjax.scans import nifti
from liverjax.scoring import cohort, summary
from liverjax.scoring.case import LESION_COLUMNS
from liverjax.volume import Volume


def _folders(folder, **masks):
    """Writes predictions and references of one row of voxels each; 1 is liver, 2 tumour."""
    for case, pair in masks.items():
        for side, labels in zip(("p", "r"), pair, strict=True):
            (folder / side).mkdir(exist_ok=True)
            voxels = np.array([int(label) for label in labels], np.uint8).reshape(-1, 1, 1)
            nifti.write(folder / side / f"{case}.nii", Volume(voxels, np.diag([2.0, 2, 2, 1])))
    return folder / "p", folder / "r"


def test_tumours_that_are_in_no_mask_are_not_scored_and_that_is_noted(tmp_path):
    folders = _folders(tmp_path, a=("0110", "0111"))
    found = cohort.evaluate(*folders, tmp_path / "out", quiet=True)
    assert [row["region"] for row in found.cases] == ["liver"] and list(found.summary["scores"]) == ["liver"]
    assert not {"lits", "lits_compat"} & found.summary.keys() and "2" not in found.summary["mean"]
    (note,) = found.summary["notes"]
    assert note.startswith("tumours are in no mask, and not scored") and found.table().endswith(note)
    assert (tmp_path / "out" / "lesions.csv").read_text() == ",".join(LESION_COLUMNS) + "\n"
    # The remedy that it names.
    both = cohort.evaluate(*folders, regions=("liver", "tumor"), quiet=True)
    assert [row["region"] for row in both.cases] == ["liver", "tumor"] and not both.summary["notes"]
    # What is scored of the liver is the same.
    assert str(both.summary["scores"]["liver"]) == str(found.summary["scores"]["liver"])


@pytest.mark.parametrize("pair", [("0120", "0110"), ("0110", "0120")])
def test_one_tumour_voxel_anywhere_brings_the_tumours(tmp_path, pair):
    found = cohort.evaluate(*_folders(tmp_path, a=("0110", "0110"), b=pair), quiet=True)
    assert list(found.summary["scores"]) == ["liver", "tumor"] and "lits" in found.summary


def test_a_model_that_knows_no_tumours_is_scored_without_them(tmp_path):
    folders = _folders(tmp_path, a=("0110", "0120"))
    found = cohort.evaluate(*folders, quiet=True)
    (note,) = found.summary["notes"]
    assert note.startswith("no prediction holds a tumour") and "--regions=liver " in note
    liver = cohort.evaluate(*folders, regions=("liver",), quiet=True)
    assert list(liver.tables()) == ["Scores of the liver"] and not liver.summary["notes"]


def test_a_tumour_of_the_other_method_alone_is_compared(tmp_path):
    folders = _folders(tmp_path, a=("0110", "0110"))
    (tmp_path / "other").mkdir()
    other, _ = _folders(tmp_path / "other", a=("0120", "0110"))
    found = cohort.evaluate(*folders, compare=other, metrics=["dice"], quiet=True)
    assert {"liver", "tumor"} <= found.summary["comparison"].keys()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"regions": ["lever"]}, "region 'lever' does not exist; did you mean 'liver'"),
        ({"regions": []}, "no region was chosen, expected one or more of liver, tumor"),
        ({"metrics": []}, "no metric was chosen, expected one or more of dice"),
    ],
)
def test_a_choice_of_nothing_is_refused(tmp_path, choice, message):
    with pytest.raises(InputError, match=message):
        cohort.evaluate(*_folders(tmp_path, a=("0110", "0110")), quiet=True, **choice)


@pytest.mark.parametrize("id", ["=1+1", "-rf", "+1", "@x", "'x", "x", "x=1", "é"])
def test_ids_are_no_formulas_and_come_back(tmp_path, id):
    cohort.evaluate(*_folders(tmp_path, **{id: ("0120", "0120")}), tmp_path / "out", quiet=True)
    for name in ("cases.csv", "lesions.csv"):
        with open(tmp_path / "out" / name, encoding="utf-8", newline="") as file:
            written = {row["case"] for row in csv.DictReader(file)}
        assert {text.removeprefix("'") for text in written} == {id}
        assert not any(text.startswith(("=", "+", "-", "@")) for text in written)
    facts = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert facts["metric_per_case"][0]["case"] == id
    assert summary.cell("volume-7") == "volume-7"


@pytest.mark.parametrize("name", ["summary.json", "cases.csv", "report.html"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    folders = _folders(tmp_path, a=("0110", "0110"))
    (folders[0] / name).write_text("{}")
    with pytest.raises(InputError, match=f"holds {name} of another program"):
        cohort.evaluate(*folders, folders[0], quiet=True)
    assert (folders[0] / name).read_text() == "{}"
    cohort.evaluate(*folders, folders[1], quiet=True)
    cohort.evaluate(*folders, folders[1], quiet=True)  # Its own are.
    assert (folders[1] / "a.nii").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_memory_that_is_short_names_the_case(processes):
    with pytest.raises(
        LiverjaxError, match="case volume-7: out of memory .*, expected .*a machine with more"
    ):
        cohort._score([_Large()], ("dice",), ("liver",), processes=processes, quiet=True)


class _Large:
    """A pair whose reference takes more memory than there is."""

    prediction = None

    @property
    def reference(self):
        return self

    id = "volume-7"
    liver_only = False

    def read_mask(self):
        return np.zeros(2**60, np.uint8)
