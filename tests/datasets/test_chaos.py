"""The CHAOS layout: which scans there are, and which mask belongs to which slice."""

import dataclasses
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from liverjax.datasets.chaos import patient, read_mask
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import Reading
from tests.scans.dicom_series import edit, write_series

SHAPE = (6, 5, 4)  # x, y, z


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


def two_phases(folder, liver, *, masks=1):
    """Adds a second phase to a case of CT, 30 higher, and `masks` PNG files for each slice of the two."""
    put(folder.parent / "later", liver, grey=255, masks=False)
    for file in (folder.parent / "later/DICOM_anon").iterdir():
        edit(file, InstanceNumber=pydicom.dcmread(file).InstanceNumber + 100)
        file.rename(folder / "DICOM_anon" / f"{file.stem}_later.dcm")
    shutil.rmtree(folder.parent / "later")
    for file in list((folder / "Ground").iterdir()) if masks == 2 else []:
        shutil.copy(file, file.with_name(f"{file.stem}_later.png"))


@pytest.mark.parametrize("masks", [1, 2])
def test_the_masks_of_a_series_of_two_phases_belong_to_both(tmp_path, liver, masks):
    put(tmp_path / "CT/1", liver, grey=255)
    two_phases(tmp_path / "CT/1", liver, masks=masks)
    (case,) = find_cases(tmp_path)
    with pytest.raises(InputError, match="holds 2 phases and none is chosen"):
        case.read_pair()
    for phase in (0, "last"):
        assert np.array_equal(
            dataclasses.replace(case, reading=Reading(phase=phase)).read_pair()[1].voxels, liver
        )


def test_masks_that_differ_among_the_phases(tmp_path, liver):
    case = tmp_path / "CT/1"
    put(case, liver, grey=255)
    two_phases(case, liver, masks=2)
    file = sorted((case / "Ground").glob("*_later.png"))[0]
    Image.fromarray(np.zeros(SHAPE[1::-1], np.uint8)).save(file)
    with pytest.raises(
        InputError, match="holds 2 phases, and the masks of phases 0 and 1 differ; expected the same"
    ):
        find_cases(tmp_path, reading=Reading(phase=0))[0].read_pair()
    (case / "Ground/extra.png").write_bytes(file.read_bytes())
    with pytest.raises(
        InputError, match="9 masks, expected 4, one for each slice .*, or 8, one for each file"
    ):
        find_cases(tmp_path)[0].read_mask()
    (case / "Ground/extra.png").unlink()
    for name in ("DICOM_anon", "Ground"):  # a folder for each phase, as the first message says
        (tmp_path / "CT/2" / name).mkdir(parents=True)
        for file in (case / name).glob("*_later*"):
            file.rename(tmp_path / "CT/2" / name / file.name)
    first, second = find_cases(tmp_path)
    assert np.array_equal(first.read_pair()[1].voxels, liver)
    assert np.array_equal(second.read_pair()[1].voxels[:, :, :-1], liver[:, :, :-1])
    assert not second.read_mask().voxels[:, :, -1].any()


def test_one_of_several_series(tmp_path, liver):
    """A localizer beside the slices: the masks fit the series that is chosen."""
    put(tmp_path / "CT/1", liver, grey=255)
    write_series(
        tmp_path / "scout", sitk.GetImageFromArray(np.zeros((1, 5, 6), np.int16)), **{"0020|000e": "1.2.3"}
    )
    (tmp_path / "scout/IM000").rename(tmp_path / "CT/1/DICOM_anon/scout.dcm")
    folder, scan = tmp_path / "CT/1/Ground", tmp_path / "CT/1/DICOM_anon"
    with pytest.raises(InputError, match="--series=NUMBER|UID|largest"):
        read_mask(folder, scan)
    assert np.array_equal(read_mask(folder, scan, series="largest").voxels, liver)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", "cannot be read as PNG"),
        ("RGB", r"has shape \(5, 6, '?G"),
        ("300", "holds the grey value 300, expected at most 255"),
        ("cut", "cannot be read as PNG"),
    ],
)
def test_pictures_that_are_no_masks(tmp_path, liver, content, message):
    put(tmp_path / "CT/1", liver, grey=255)
    file = sorted((tmp_path / "CT/1/Ground").iterdir())[1]
    if content == "RGB":
        Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(file)
    elif content == "300":  # as uint8 it would be 44
        Image.fromarray(np.full((5, 6), 300, np.uint16)).save(file)
    else:
        file.write_bytes(file.read_bytes()[:50] if content == "cut" else content)
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path)[0].read_mask()


def test_folders_are_named_as_they_are_given(tmp_path, liver, monkeypatch):
    put(tmp_path / "CT/5", liver, grey=255)
    put(tmp_path / "CT/.old", liver, grey=255)
    (tmp_path / "CT/6").mkdir()
    (tmp_path / "CT/6/DICOM_anon").write_text("no folder")
    (tmp_path / "CT/7").symlink_to(tmp_path / "CT/5")
    assert [case.id for case in find_cases(tmp_path)] == ["CT_5", "CT_7"]
    assert [case.id for case in find_cases(tmp_path / "CT/5", labelled=True)] == ["CT_5"]
    monkeypatch.chdir(tmp_path / "CT/5")
    assert [case.id for case in find_cases(".", labelled=True)] == ["CT_5"]


def test_names_with_and_without_zeros_before_their_numbers(tmp_path, liver):
    """In the order of letters, 10.dcm comes before 9.dcm, but 010.png after 009.png."""
    put(tmp_path / "CT/1", liver, grey=255)
    for number, file in enumerate(sorted((tmp_path / "CT/1/DICOM_anon").iterdir())):
        file.rename(file.with_name(f"{number + 8}.dcm"))
    for number, file in enumerate(sorted((tmp_path / "CT/1/Ground").iterdir())):
        file.rename(file.with_name(f"{number + 8:03d}.png"))
    assert np.array_equal(find_cases(tmp_path)[0].read_mask().voxels, liver)


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("MR_12_T1DUAL_InPhase", "MR_12"),
        ("MR_12_T2SPIR", "MR_12"),
        ("MR_case_3_T1DUAL_OutPhase", "MR_case_3"),  # else all patients would be MR_case
        ("CT_case_3", "CT_case_3"),
        ("CT_3", "CT_3"),
        ("CT_3_late", "CT_3"),
    ],
)
def test_the_patient_of_a_case(id, name):
    assert patient(id) == name
