"""Trees of DICOM folders: which folders hold slices, and how their cases are named."""

import os
import pathlib
import sys

import numpy as np
import pydicom
import pytest

from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import dicom, dicom_files
from tests.scans.dicom_series import SHAPE, document, files_by_position, image_of, write_series

STORAGE = "1.2.840.10008.5.1.4.1.1."


@pytest.fixture
def put(tmp_path):
    """Function that puts a series, of one file, in a folder below `tmp_path`."""
    write_series(tmp_path / ".one", image_of(np.eye(3))[:, :, :1])
    data = (tmp_path / ".one" / "IM000").read_bytes()

    def one(*folders):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "IM000").write_bytes(data)

    return one


def found(root):
    return [folder.relative_to(root).as_posix() for folder in dicom.find_folders(root)]


def test_every_folder_that_holds_a_slice_is_found(tmp_path, put):
    put("CD/IMAGES", "PAT1/ST0/SE0", "PAT1/ST0/SE1", "PAT2", "PAT2/ST0", "PAT2/.hidden", "__MACOSX/._x")
    (tmp_path / "CD" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "CD" / "README").write_text("a viewer")
    (tmp_path / "PAT1" / "._SE2").write_bytes((tmp_path / "PAT2" / "IM000").read_bytes())
    (tmp_path / "empty").mkdir()
    assert found(tmp_path) == ["CD/IMAGES", "PAT1/ST0/SE0", "PAT1/ST0/SE1", "PAT2", "PAT2/ST0"]


def test_documents_make_no_folder_of_slices(tmp_path, put):
    put("scan")
    like = tmp_path / "scan" / "IM000"
    for name, changes in (
        ("88.67", {"Rows": None, "PixelData": None}),
        ("1.3.10", {"Rows": None}),
        ("66.4", {}),
        ("104.1", {"Rows": None}),
        ("7", {"ImagePositionPatient": None}),
    ):
        (tmp_path / name).mkdir()
        document(
            tmp_path / name / "file",
            (STORAGE if name != "1.3.10" else "1.2.840.10008.") + name,
            like,
            **changes,
        )
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "IM000")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "slice.dcm").write_text("no DICOM")
    assert found(tmp_path) == ["scan"]


def test_a_folder_of_damaged_slices_is_found_so_that_they_are_reported(tmp_path, put):
    put("scan")
    path = tmp_path / "scan" / "IM000"
    path.write_bytes(path.read_bytes()[:600])
    assert found(tmp_path) == ["scan"]
    with pytest.raises(InputError, match="IM000"):
        dicom.read_series(tmp_path / "scan")


def test_links_are_followed_but_not_in_circles(tmp_path, put):
    put("data/PAT/SE")
    put("elsewhere")
    (tmp_path / "data" / "PAT" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data" / "self")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "data") == ["PAT/SE", "linked"]


def test_the_search_is_bounded(tmp_path, put, monkeypatch):
    deep = "/".join("abcdefgh")
    put(deep, deep + "/too/deep")
    assert found(tmp_path) == [deep]
    (tmp_path / "scan").mkdir()
    monkeypatch.setattr(dicom_files, "MAX_ENTRIES", 10)
    with pytest.raises(
        InputError, match="more than 10 files and folders, expected a data set; name a folder in it"
    ):
        dicom.find_folders(tmp_path)
    assert found(tmp_path / "a" / "b") == ["c/d/e/f/g/h", "c/d/e/f/g/h/too/deep"]


def test_the_first_bytes_suffice(tmp_path, put, monkeypatch):
    put("a", "b/c")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert found(tmp_path) == ["a", "b/c"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, put, caplog):
    put("a")
    assert dicom.find_folders(tmp_path / "none") == []
    assert "none: cannot be searched for DICOM series" in caplog.text


def test_files_that_pydicom_reads_are_recognised():
    """Its samples: of every encoding, with and without preamble."""
    samples = sorted((pathlib.Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm"))
    assert len(samples) > 50
    for path in samples:
        data = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        if "SOPClassUID" in data:
            assert dicom_files.sop_class(path) == data.SOPClassUID, path


# --- as cases -----------------------------------------------------------------------------------------------


def test_folders_of_series_are_cases(tmp_path):
    for name in ("patient 10", "patient 9"):
        write_series(tmp_path / "data" / name, image_of(np.eye(3)))
    cases = find_cases(tmp_path / "data")
    assert [case.id for case in cases] == ["patient 9", "patient 10"]
    assert cases[0].read_image().shape == SHAPE
    assert [case.id for case in find_cases(tmp_path / "data" / "patient 9")] == ["patient 9"]
    assert len(files_by_position(tmp_path / "data" / "patient 9")) == 6


@pytest.mark.parametrize(
    ("folders", "ids"),
    [
        (["PAT1/ST0/SE0", "PAT1/ST0/SE1", "PAT2/ST0/SE0"], ["PAT1_ST0_SE0", "PAT1_ST0_SE1", "PAT2_ST0_SE0"]),
        (["a", "a/later"], ["a", "a_later"]),
        (["a_b/c", "a/b_c"], ["a__b_c", "a_b__c"]),  # else both would be a_b_c
    ],
)
def test_cases_are_named_by_their_folders(tmp_path, put, folders, ids):
    put(*(f"data/{folder}" for folder in folders))
    assert [case.id for case in find_cases(tmp_path / "data")] == ids


def test_a_series_with_others_below_it(tmp_path, put, monkeypatch):
    put("scan", "scan/scan", "scan/late")
    assert [case.id for case in find_cases(tmp_path / "scan")] == ["scan", "scan_late", "scan_scan"]
    monkeypatch.chdir(tmp_path / "scan")
    assert [case.id for case in find_cases(".")] == ["scan", "scan_late", "scan_scan"]


def test_a_link_gives_its_case_its_name(tmp_path, put):
    put("2f8a")
    (tmp_path / "patient").symlink_to(tmp_path / "2f8a")
    assert [case.id for case in find_cases(tmp_path / "patient")] == ["patient"]
