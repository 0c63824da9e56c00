"""What the values of masks mean: by the names of a `dataset.json`, and by `cases.json`."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from liverjax.datasets import label_names
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.labels import BACKGROUND, LIVER, TUMOR


def put(root, *names, voxels=None):
    """Writes small NIfTI files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8) if voxels is None else voxels, np.eye(4) * 2)
        nib.save(image, root / name)


def state(root, labels, cases=None):
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    if cases is not None:
        (root / "cases.json").write_text(json.dumps({"labels": cases}))


@pytest.mark.parametrize(
    "name",
    [
        "tumor", "Tumours", "liver tumor", "Liver_Tumour", "LiverTumor", "hepatic tumour", "hepatic-tumors", "HCC",
        "hcc 2", "metastasis", "metastases", "Mets", "colorectal liver metastases", "neoplasm", "mass", "masses",
        "liver mass", "lesion", "lesions", "focal liver lesion", "hepatocellular carcinoma", "cancer",
        "intrahepatic cholangiocarcinoma", "tumor in the liver", "primary tumor", "lesion 1", "malignancies",
    ],
)  # fmt: skip
def test_names_of_tumours(name):
    assert label_names.meaning(name) == TUMOR


@pytest.mark.parametrize(
    "name",
    [
        "liver", "Liver", "whole liver", "liver parenchyma", "hepatic parenchyma", "healthy liver", "liver segment 4",
        "left liver lobe", "liver cyst", "hepatic cysts", "liver and tumor", "liver+tumor", "liver with lesions",
        "liver without tumour", "liver/tumor",
    ],
)  # fmt: skip
def test_names_of_the_liver(name):
    assert label_names.meaning(name) == LIVER


@pytest.mark.parametrize(
    "name",
    [
        "spleen", "kidney tumor", "pancreas cancer", "lung nodule", "renal mass", "hepatic vein", "liver vessels",
        "portal vein", "gallbladder", "cyst", "kidney cyst", "tumor thrombus", "not liver", "hepatic", "", "1",
        "body mass",
    ],
)  # fmt: skip
def test_other_names_are_not_guessed_at(name):
    assert label_names.meaning(name) is None


def test_background_has_a_name():
    assert label_names.meaning("background") == label_names.meaning("Background") == BACKGROUND


@pytest.mark.parametrize(
    ("labels", "stored", "meant"),
    [
        ({"background": 0, "liver": 1, "cancer": 2}, [0, 1, 2], [0, 1, 2]),
        ({"background": 0, "cancer": 1, "liver": 2}, [0, 1, 2], [0, 2, 1]),
        ({"0": "background", "1": "liver", "2": "Liver_Tumours"}, [0, 1, 2], [0, 1, 2]),
        ({"background": 0, "liver": [1, 3], "tumor": [3]}, [0, 1, 3], [0, 1, 2]),
        ({"background": 0, "spleen": 1, "kidney left": 3, "liver": 6}, [0, 1, 3, 6], [0, 0, 0, 1]),
        ({"background": 0, "liver": 1, "HCC": 2, "portal vein": 3}, [0, 1, 2, 3], [0, 1, 2, 0]),
        ({"background": 0, "liver and tumor": [1, 2], "tumor": [2]}, [0, 1, 2], [0, 1, 2]),
        ({"0": "background", "1": "liver cyst", "2": "liver", "3": "metastases"}, [0, 1, 2, 3], [0, 1, 1, 2]),
    ],
)
def test_label_names_say_what_the_values_mean(tmp_path, labels, stored, meant):
    put(tmp_path, "imagesTr/a_0000.nii.gz")
    voxels = np.array(stored * 3, np.uint8).reshape(3, -1, 1)
    put(tmp_path, "labelsTr/a.nii.gz", voxels=voxels)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    (case,) = find_cases(tmp_path, labelled=True)
    assert case.read_mask().voxels.ravel().tolist() == meant * 3

    put(tmp_path, "labelsTr/a.nii.gz", voxels=np.full((2, 2, 2), 9, np.uint8))
    with pytest.raises(InputError, match=r"label values 9 in 8 voxels, expected \[0, 1"):
        case.read_mask()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "kidney": 1}, "expected one that is called liver; or cases.json"),
        ({"background": 0, "liver": 1, "ignore": 2}, "a label is to be ignored"),
        ({"liver": 300}, "'liver' is 300"),
        ({"liver": "one"}, "expected {name: value}"),
        ({"liver": 1.5}, "'liver' is 1.5"),
        (["liver"], "expected {name: value}"),
        ({"1": 5}, "expected {name: value}"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, labels, message):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    assert message in str(caught.value)
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("folders", [("images", "labels"), ("imagesTr", "labelsTr"), (".", ".")])
def test_cases_json_states_what_values_mean(tmp_path, folders):
    """The way that the messages about labels advise, in every layout, with and without a `dataset.json`."""
    scan, mask = (
        f"{folder}/{name}.nii" for folder, name in zip(folders, ("volume-1", "segmentation-1"), strict=True)
    )
    put(tmp_path, scan)
    put(tmp_path, mask, voxels=np.array([0, 1, 2, 3, 4, 0, 0, 0], np.uint8).reshape(2, 2, 2))
    (case,) = find_cases(tmp_path, labelled=True)
    with pytest.raises(InputError, match="label values 3, 4 in 2 voxels"):
        case.read_mask()
    (tmp_path / "cases.json").write_text('{"labels": {"3": "tumor", "4": "background"}}')
    (case,) = find_cases(tmp_path, labelled=True)
    assert case.read_mask().voxels.ravel().tolist() == [0, 1, 2, 2, 0, 0, 0, 0]
    state(tmp_path, {"0": "background", "1": "Leber", "2": "Zyste", "3": "Vene", "4": "Tumor"})
    with pytest.raises(
        InputError, match=r'called liver; or cases.json beside it that says which is, as {"labels": {"1": '
    ):
        (tmp_path / "cases.json").unlink()
        find_cases(tmp_path, labelled=True)
    (tmp_path / "cases.json").write_text('{"labels": {"1": "liver"}}')
    (case,) = find_cases(tmp_path, labelled=True)
    assert case.read_mask().voxels.ravel().tolist() == [0, 1, 0, 0, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"3": "tumr"}, "label 3 is 'tumr'; did you mean 'tumor'?"),
        ({"3": 2}, "expected {"),
        ({"tumor": "3"}, "'labels' has the value 'tumor', expected one of 0 to 255"),
        ({"300": "tumor"}, "'labels' has the value '300'"),
        ([1], "'labels' is [1], expected"),
        ({"1": "background", "2": "background"}, "expected one that is called liver"),
    ],
)
def test_labels_of_cases_json_that_cannot_be_used(tmp_path, labels, message):
    put(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    (tmp_path / "cases.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    assert message in str(caught.value)
    assert "cases.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "cases", "text"),
    [
        ({"background": 0, "liver": 1, "cancer": 2}, None, None),
        ({"liver": 1, "HCC": 2, "spleen": 3}, None, "dataset.json: 2 HCC -> tumor, 3 spleen -> background"),
        ({"background": 0, "tumor": 1, "liver": 2}, None, "dataset.json: 1 tumor -> tumor, 2 liver -> liver"),
        ({"liver": [1, 2], "HCC": [2]}, None, "dataset.json: 2 HCC -> tumor"),
        ({"liver": 1, "vein": 3}, {"3": "liver"}, "dataset.json and cases.json: 3 vein -> liver"),
    ],
)  # fmt: skip
def test_the_reading_of_masks_is_said_where_it_is_not_plain(tmp_path, caplog, labels, cases, text):
    put(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    state(tmp_path, labels, cases)
    with caplog.at_level(logging.WARNING, "liverjax"):
        find_cases(tmp_path, labelled=True)
    assert caplog.messages == ([f"{tmp_path}: masks are read by {text}"] if text else [])


def test_a_list_of_labels_of_another_length_is_shortened(tmp_path):
    put(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    state(tmp_path, {"liver": "x" * 10_000})
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    assert len(str(caught.value)) < 1000
