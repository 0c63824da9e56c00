"""Pairs of masks: whatever they are called, of whichever folder, each value with the meaning that its folder states."""

import json
import logging
import os
import re
import shutil
import unicodedata

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.scoring.pairing import pair
from liverjax.volume import Volume

LIVER, TUMOR = np.s_[1:7, 1:6, 1:5], np.s_[2:4, 2:4, 2:4]
SWAPPED = {"background": 0, "tumor": 1, "liver": 2}


def mask(background=0, liver=1, tumor=2):
    """Returns a small mask with these values."""
    voxels = np.full((8, 7, 6), background, np.uint8)
    voxels[LIVER], voxels[TUMOR] = liver, tumor
    return voxels


def write(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume(voxels, np.diag([1.5, 2, 4, 1])))


def data_set(root, labels, voxels, ids=("c0", "c1"), test=()):
    """Writes a data set in nnU-Net's layout, with masks of test cases beside."""
    for id in (*ids, *test):
        kind = "Ts" if id in test else "Tr"
        write(root / f"images{kind}/{id}_0000.nii.gz", np.zeros((8, 7, 6), np.int16))
        write(root / f"labels{kind}/{id}.nii.gz", voxels)
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}}))
    return root


def dice(predictions, references, **settings):
    """Returns the Dice of each case: liver, tumour, liver, tumour, ..."""
    found = cohort.evaluate(predictions, references, metrics=["dice"], quiet=True, **settings)
    return [row["dice"] for row in found.cases]


# --- ids ----------------------------------------------------------------------------------------------------


def test_ids_that_end_in_four_digits_are_all_scored(tmp_path):
    """Of four cases one is segmented: the mean Dice of the liver is a quarter, not one."""
    for number in range(4):
        name = f"liver_{number:04d}.nii.gz"
        write(tmp_path / "images" / name, np.zeros((8, 7, 6), np.int16))
        write(tmp_path / "labels" / name, mask())
        write(tmp_path / "p" / name, mask() if number == 0 else mask(0, 0, 0))
    for references in (tmp_path, tmp_path / "labels"):
        found = cohort.evaluate(tmp_path / "p", references, metrics=["dice"], quiet=True)
        scores = found.summary["scores"]["liver"]
        assert (scores["cases"], scores["dice_per_case"]) == (4, 0.25)


def test_predictions_in_nnunets_names(tmp_path):
    scans = data_set(
        tmp_path / "set", {"background": 0, "liver": 1, "tumor": 2}, mask(), ["a_0000", "a_0001"]
    )
    for id in ("a_0000", "a_0001"):
        write(tmp_path / f"p/{id}.nii.gz", mask())
    assert dice(tmp_path / "p", scans) == [1] * 4


def test_masks_of_test_cases(tmp_path):
    root = data_set(tmp_path / "set", SWAPPED, mask(0, 2, 1), ["a"], ["b"])
    pairs = pair(root / "labelsTs", root / "labelsTs")
    assert [(p.reference.id, p.reference.image.name, p.prediction.name) for p in pairs] == [
        ("b", "b_0000.nii.gz", "b.nii.gz")
    ]
    assert dice(root / "labelsTs", root / "labelsTs") == [1, 1]
    assert [p.reference.id for p in pair(root / "labelsTr", root)] == ["a"]


def test_masks_without_scans_are_scored_too(tmp_path):
    root = data_set(tmp_path / "set", SWAPPED, mask(0, 2, 1), ["a", "b"])
    (root / "imagesTr/b_0000.nii.gz").unlink()
    for references in (root, root / "labelsTr"):
        assert [p.reference.id for p in pair(root / "labelsTr", references)] == ["a", "b"]
        assert dice(root / "labelsTr", references) == [1] * 4


def test_accents_in_ids(tmp_path):
    composed, divided = (unicodedata.normalize(form, "Bärbel") for form in ("NFC", "NFD"))
    write(tmp_path / f"r/{composed}.nii.gz", mask())
    write(tmp_path / f"p/{divided}.nii.gz", mask())
    assert dice(tmp_path / "p", tmp_path / "r") == [1, 1]
    assert dice(tmp_path / "p", tmp_path / "r", cases=[divided]) == [1, 1]


@pytest.mark.parametrize("made", ["nothing", "empty", "pipe"])
def test_predictions_that_are_none(tmp_path, made):
    write(tmp_path / "r/a.nii.gz", mask())
    place = tmp_path / "p"
    if made == "empty":
        place.mkdir()
    elif made == "pipe":
        os.mkfifo(place)
    expected = {"nothing": "no such file or folder", "empty": "holds no masks", "pipe": "is a named pipe"}[
        made
    ]
    with pytest.raises(InputError, match=f"p: {expected}, expected a mask or a folder of masks"):
        pair(place, tmp_path / "r")


def test_facts_of_a_mere_folder_of_masks(tmp_path):
    write(tmp_path / "r/a.nii.gz", mask(tumor=1))
    (tmp_path / "r/cases.json").write_text('{"liver_only": ["a"]}')
    write(tmp_path / "p/a.nii.gz", mask())
    regions = ["liver", "tumor"]
    found = cohort.evaluate(tmp_path / "p", tmp_path / "r", metrics=["dice"], regions=regions, quiet=True)
    assert [row["state"] for row in found.cases] == ["", "not labelled"]


# --- what values mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "voxels"),
    [
        (SWAPPED, mask(0, 2, 1)),
        ({"background": 0, "liver": 1, "HCC": 2}, mask()),
        ({"background": 0, "liver": 1, "metastases": 3}, mask(0, 1, 3)),
        ({"0": "background", "5": "Liver", "7": "hepatic tumours"}, mask(0, 5, 7)),
        ({"background": 0, "spleen": 1, "liver": 6, "liver tumor": 2}, mask(0, 6, 2)),
    ],
)
def test_references_against_themselves(tmp_path, labels, voxels, caplog):
    root = data_set(tmp_path / "set", labels, voxels)
    with caplog.at_level(logging.WARNING, "liverjax"):
        for references in (root, root / "labelsTr"):
            assert dice(root / "labelsTr", references) == [1] * 4
            # One case, as files.
            assert dice(root / "labelsTr/c0.nii.gz", references) == [1, 1]
        assert dice(root / "labelsTr/c0.nii.gz", root / "labelsTr/c1.nii.gz") == [1, 1]
    assert "references are read by dataset.json: " in caplog.text
    assert "predictions are read by dataset.json: " in caplog.text
    # Predictions of a network that was trained on them: nnU-Net writes its dataset.json beside.
    shutil.copytree(root / "labelsTr", tmp_path / "p")
    shutil.copy(root / "dataset.json", tmp_path / "p")
    assert dice(tmp_path / "p", root) == [1] * 4


def test_values_of_which_nothing_says_what_they_mean_are_refused_with_a_way_out(tmp_path):
    root = data_set(tmp_path / "set", SWAPPED, mask(0, 2, 1))
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    for id in ("c0", "c1"):
        write(theirs / f"{id}.nii.gz", mask(0, 2, 1))
        write(own / f"{id}.nii.gz", mask())
    for predictions in (theirs, own, theirs / "c0.nii.gz"):
        with pytest.raises(
            InputError, match="nothing says whether 1 in these masks is tumor, as in .*, or liver"
        ) as caught:
            pair(predictions, root)
    # Both ways that the message names.
    shutil.copy(root / "dataset.json", theirs)
    assert dice(theirs, root) == [1] * 4
    assert dice(theirs / "c0.nii.gz", root) == [1, 1]
    (own / "dataset.json").write_text(re.search(r"dataset\.json with ({.*})", str(caught.value))[1])
    assert dice(own, root) == [1] * 4
    assert dice(own, root, compare=theirs) == [1] * 4


def test_labels_that_cases_json_states_are_copied_too(tmp_path):
    root = data_set(tmp_path / "set", {"background": 0, "Leber": 2, "Herd": 1}, mask(0, 2, 1))
    (root / "cases.json").write_text('{"labels": {"1": "tumor", "2": "liver"}}')
    shutil.copytree(root / "labelsTr", tmp_path / "p")
    with pytest.raises(InputError, match=r"put beside them a copy of the dataset\.json or cases\.json"):
        pair(tmp_path / "p", root)
    shutil.copy(root / "cases.json", tmp_path / "p")
    assert dice(tmp_path / "p", root) == [1] * 4


def test_masks_of_this_library_are_known_by_their_manifest(tmp_path):
    root = data_set(tmp_path / "set", SWAPPED, mask(0, 2, 1))
    for id in ("c0", "c1"):
        write(tmp_path / f"p/{id}.nii.gz", mask())
    listed = [{"id": id, "mask": f"/elsewhere/{id}.nii.gz"} for id in ("c0", "c1")]
    (tmp_path / "p/manifest.json").write_text(json.dumps({"cases": listed[:1]}))
    with pytest.raises(InputError, match="nothing says whether"):
        pair(tmp_path / "p", root)
    (tmp_path / "p/manifest_2_of_2.json").write_text(json.dumps({"cases": listed[1:]}))
    assert dice(tmp_path / "p", root) == [1] * 4
    for damaged in ("[]", '{"cases": 5}', '{"cases": [5, null, {}]}', "{"):
        (tmp_path / "p/manifest.json").write_text(damaged)
        with pytest.raises(InputError, match="nothing says whether"):
            pair(tmp_path / "p", root)


def test_own_labels_and_the_references_values_where_no_value_means_two_things(tmp_path):
    root = data_set(tmp_path / "set", {"background": 0, "liver": 7, "tumor": 8, "spleen": 3}, mask(0, 7, 8))
    write(tmp_path / "p/c0.nii.gz", mask())
    voxels = mask(0, 7, 8)
    voxels[0, 0, 0] = 3  # the spleen
    write(tmp_path / "p/c1.nii.gz", voxels)
    assert dice(tmp_path / "p", root) == [1] * 4
    write(tmp_path / "p/c1.nii.gz", mask(0, 7, 9))
    with pytest.raises(InputError, match=r"c1\.nii\.gz: label values 9"):
        dice(tmp_path / "p", root)


def test_the_command_shows_masks_as_they_are_scored(tmp_path):
    root = data_set(tmp_path / "set", SWAPPED, mask(0, 2, 1))
    words = [
        f"--predictions={root / 'labelsTr'}",
        f"--references={root}",
        "-o",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert main(["evaluate", *words]) == 0
    found = cohort.evaluate(root / "labelsTr", root, metrics=["dice"], quiet=True)
    _, predicted, referenced = found.read("c0")
    np.testing.assert_array_equal(predicted, referenced)
    np.testing.assert_array_equal(predicted, mask())
