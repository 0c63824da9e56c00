"""The CHAOS layout: which scans there are, and which mask belongs to which slice."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError

SHAPE = (6, 5, 4)  # x, y, z


def _write_series():
    """The DICOM writer of the neighbouring test module."""
    spec = importlib.util.spec_from_file_location(
        "dicom_writer", Path(__file__).parent.parent / "scans" / "test_dicom.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_series


write_series = _write_series()


def put(root, liver, *, grey=63, series=("DICOM_anon",), masks=True):
    """Writes scans whose voxels are 500 in the liver and, as the data set does, files from head to feet."""
    image = sitk.GetImageFromArray((liver * 500).T.astype(np.int16))
    image.SetSpacing((1.5, 1.5, 6))
    for number, name in enumerate(series):
        write_series(root / name, image + number)
        by_height = {}
        for file in (root / name).iterdir():
            by_height[sitk.ReadImage(file).GetOrigin()[2]] = file
        for rank, height in enumerate(sorted(by_height, reverse=True)):
            by_height[height].rename(root / name / f"IMG-0004-{2 * rank + number:05d}.dcm")
    if masks:
        (root / "Ground").mkdir()
        for rank, k in enumerate(reversed(range(SHAPE[2]))):
            pixels = np.where(liver[:, :, k], grey, 0).T.astype(np.uint8)
            Image.fromarray(pixels).save(root / "Ground" / f"IMG-0004-{2 * rank:05d}.png")


@pytest.fixture
def liver():
    mask = np.random.default_rng(0).random(SHAPE) < 0.4
    mask[0, 0] = False, True, True, False
    return mask


@pytest.fixture
def chaos(tmp_path, liver):
    put(tmp_path / "Train_Sets/CT/2", liver, grey=255)
    put(tmp_path / "Train_Sets/MR/2/T2SPIR", liver)
    put(tmp_path / "Train_Sets/MR/10/T1DUAL", liver, series=("DICOM_anon/InPhase", "DICOM_anon/OutPhase"))
    put(tmp_path / "Test_Sets/CT/3", liver, masks=False)
    return tmp_path


def test_the_scans_their_patients_and_their_masks(chaos, liver):
    cases = find_cases(chaos, labelled=True)
    assert {case.id: case.patient for case in cases} == {
        "CT_2": "CT_2",
        "MR_2_T2SPIR": "MR_2",
        "MR_10_T1DUAL_InPhase": "MR_10",
        "MR_10_T1DUAL_OutPhase": "MR_10",
    }
    for case in cases:
        image, mask = case.read_image(), case.read_mask()
        assert mask.voxels.dtype == np.uint8
        assert np.array_equal(mask.voxels, liver)
        assert np.array_equal(image.voxels > 400, liver)
        assert np.array_equal(image.affine, mask.affine)


@pytest.mark.parametrize("start", ["Train_Sets", "Train_Sets/MR", "Train_Sets/MR/2"])
def test_any_folder_above_will_do(chaos, start):
    ids = [case.id for case in find_cases(chaos / start, "chaos", labelled=True)]
    assert "MR_2_T2SPIR" in ids
    assert ("CT_2" in ids) == (start == "Train_Sets")


def test_test_sets_are_for_prediction(chaos):
    cases = {case.id: case.label for case in find_cases(chaos)}
    assert len(cases) == 5
    assert cases["CT_3"] is None


def test_other_organs_are_background(tmp_path, liver):
    put(tmp_path / "MR/1/T2SPIR", liver)
    file = sorted((tmp_path / "MR/1/T2SPIR/Ground").iterdir())[0]
    pixels = np.array(Image.open(file))
    pixels[0, :5] = 56, 70, 126, 189, 252
    Image.fromarray(pixels).save(file)
    voxels = find_cases(tmp_path)[0].read_mask().voxels
    assert voxels[:5, 0, -1].tolist() == [1, 1, 0, 0, 0]
    pixels[0, 0] = 80
    Image.fromarray(pixels).save(file)
    with pytest.raises(InputError, match=r"Ground: grey values \[80\], expected 0 and 255, or the organs'"):
        find_cases(tmp_path)[0].read_mask()


def test_masks_that_do_not_fit(tmp_path, liver):
    put(tmp_path / "CT/1", liver, grey=255)
    (case,) = find_cases(tmp_path)
    file = sorted(case.label.iterdir())[1]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    with pytest.raises(InputError, match=r"has shape \(4, 4\), expected \(5, 6\)"):
        case.read_mask()
    file.write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as PNG"):
        case.read_mask()
    file.unlink()
    with pytest.raises(InputError, match="Ground: 3 masks, expected 4, one for each slice"):
        case.read_mask()
