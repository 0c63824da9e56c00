"""Where masks go: names, files that are left alone, leftovers, and manifests that grow."""

import json
import os
import time

import pytest

from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.inference import outputs


@pytest.mark.parametrize(
    "name", ["m.mha", "m.nrrd", "m.hdr", "M.IMG", "m.dicom", "m.nii.bz2", "m.mgz", "m.img.gz"]
)
def test_other_formats_are_refused_and_the_remedy_works(tmp_path, name):
    with pytest.raises(InputError, match=r"ends in \.nii or \.nii\.gz .*, or a folder"):
        outputs.is_mask_file(tmp_path / name)
    assert outputs.is_mask_file(tmp_path / "MASK.NII.GZ") and outputs.stem(tmp_path / "MASK.NII.GZ") == "MASK"
    for folder in ("run.v1.2", "masks", "a.b"):
        assert not outputs.is_mask_file(tmp_path / folder)


@pytest.fixture
def data_set(tmp_path):
    for name in ("images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz", "labels/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_scans_and_references_are_never_overwritten(data_set):
    cases = find_cases(data_set)
    (data_set / "link").symlink_to(data_set / "labels")
    (data_set / "hard.nii.gz").hardlink_to(data_set / "labels" / "b.nii.gz")
    for chosen, output in (
        (cases, data_set / "labels"),
        (cases, data_set / "link"),
        (cases, data_set / "images"),
        (cases[:1], data_set / "hard.nii.gz"),
        (find_cases(data_set / "images" / "a.nii.gz"), data_set / "labels" / "a.nii.gz"),
    ):
        with pytest.raises(InputError, match="choose another --output"):
            outputs.mask_paths(chosen, output, cases)
    assert [path.name for path in outputs.mask_paths(cases, data_set / "masks", cases)] == [
        "a.nii.gz",
        "b.nii.gz",
    ]


def test_an_output_that_cannot_be_written_is_noticed_before(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written there"):
        outputs.make_ready([tmp_path / "file" / "out" / "a.nii.gz"])
    outputs.make_ready([tmp_path / "out" / "a.nii.gz"])
    assert list((tmp_path / "out").iterdir()) == []


def test_only_old_leftovers_are_removed(tmp_path):
    old, new, other = (
        tmp_path / n for n in (f".partial-{'0' * 16}.nii", f".partial-{'1' * 16}.nii", ".partial-x")
    )
    for file in (old, new, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (time.time() - 90_000,) * 2)
    outputs.make_ready([tmp_path / "a.nii.gz"])
    assert not old.exists() and new.exists() and other.exists()


def test_earlier_records_stay_until_their_mask_is_written_anew(tmp_path):
    path = tmp_path / "manifest.json"
    head = dict.fromkeys(outputs._MANIFEST_FACTS, 1)
    was = [{"id": "a", "status": "done"}, {"id": "b", "status": "done"}, {"id": "c", "status": "failed"}]
    path.write_text(json.dumps({**head, "cases": was}))
    kept = outputs._earlier(path, [{"id": "a", "status": "failed"}, {"id": "c", "status": "failed"}])
    assert [run["cases"] for run in kept] == [was[:2]]
    kept = outputs._earlier(path, [{"id": "a", "status": "done"}])
    assert [run["cases"] for run in kept] == [was[1:]]
    path.write_text("[" * 100_000)
    assert outputs._earlier(path, []) == []
