"""The store: what it holds against the scans, what is kept, what is refused, and that nothing half-written stays."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.data.store import open_store, prepare
from liverjax.errors import InputError
from liverjax.options import Preprocess
from liverjax.scans import nifti
from liverjax.scans.grid import to_grid
from liverjax.training.loop import train
from liverjax.views import VIEWS, from_stack


@pytest.fixture
def two_scans(phantom_scans, tmp_path):
    """A data set of two of the phantoms, free to be damaged."""
    folder = tmp_path / "scans"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part).mkdir(parents=True)
        for number in (1, 2):
            shutil.copy(phantom_scans / part / f"phantom_00{number}{ending}", folder / part)
    shutil.copy(phantom_scans / "dataset.json", folder)
    return folder


def test_every_view_holds_the_scan_on_the_grid(tiny_config, phantom_scans):
    case = next(case for case in open_store(tiny_config.store).cases if case.id == "phantom_003")
    scan = nifti.read(phantom_scans / "imagesTr" / "phantom_003_0000.nii.gz")
    on_grid = to_grid(scan, tiny_config.preprocess.spacing).voxels
    mask = to_grid(
        nifti.read_mask(phantom_scans / "labelsTr" / "phantom_003.nii.gz"),
        tiny_config.preprocess.spacing,
        labels=True,
    ).voxels
    for view in VIEWS:
        assert np.abs(from_stack(np.asarray(case.image(view)), view) - on_grid).max() <= 0.5
        np.testing.assert_array_equal(from_stack(np.asarray(case.labels(view)), view), mask)
        liver, tumor = case.counts[view].sum(0)
        assert liver == (mask > 0).sum() and tumor == (mask == 2).sum()


@pytest.fixture
def few_open_files():
    """The number of open files that systems commonly allow a process."""
    resource = pytest.importorskip("resource", reason="no limits on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_cases_than_a_process_may_have_files_open(tiny_config, tmp_path, few_open_files):
    case = open_store(tiny_config.store).cases[0]
    expected = case.image("axial")[20], case.labels("axial")[20]
    for number in range(600):  # Two files each.
        folder = tmp_path / str(number)
        folder.symlink_to(case.folder)
        found = dataclasses.replace(case, folder=folder).slice("axial", 20)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_mr_keeps_its_precision_whatever_its_scale(two_scans, tiny_config, tmp_path):
    path = two_scans / "imagesTr" / "phantom_001_0000.nii.gz"
    scan = nib.load(path)
    tiny_numbers = (np.asarray(scan.dataobj) + 1100).astype(np.float32) * 1e-5
    nib.save(nib.Nifti1Image(tiny_numbers, scan.affine), path)
    config = dataclasses.replace(
        tiny_config, preprocess=dataclasses.replace(tiny_config.preprocess, modality="mr")
    )
    store = prepare(two_scans, tmp_path / "store", config, quiet=True)
    case = store.cases[0]
    restored = case.image("axial") * case.scale
    expected = to_grid(nifti.read(path), config.preprocess.spacing).voxels.transpose(2, 1, 0)
    assert np.abs(restored - expected).max() <= np.abs(expected).max() / 60_000


def test_what_is_there_already_is_kept_and_what_changed_is_made_again(two_scans, tiny_config, tmp_path):
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    facts = {n: tmp_path / "store" / "cases" / f"phantom_00{n}" / "case.json" for n in (1, 2)}
    before = {n: path.stat().st_mtime_ns for n, path in facts.items()}
    mask = nib.load(two_scans / "labelsTr" / "phantom_002.nii.gz")
    nib.save(
        nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine),
        two_scans / "labelsTr" / "phantom_002.nii.gz",
    )
    store = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert facts[1].stat().st_mtime_ns == before[1] and facts[2].stat().st_mtime_ns != before[2]
    assert store.cases[1].counts["axial"].sum() == 0


def test_a_store_of_another_grid_is_not_overwritten(two_scans, tiny_config, tmp_path):
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    other = dataclasses.replace(tiny_config, preprocess=Preprocess(spacing=(9.0, 9.0, 9.0)))
    with pytest.raises(InputError, match="choose another folder"):
        prepare(two_scans, tmp_path / "store", other, quiet=True)
    assert open_store(tmp_path / "store").preprocess == tiny_config.preprocess


@pytest.mark.parametrize("fault", ["truncated", "flipped", "shape", "values", "affine"])
def test_a_bad_case_is_named_and_leaves_nothing_half_written(two_scans, tiny_config, tmp_path, fault):
    scan, mask = (
        two_scans / "imagesTr" / "phantom_002_0000.nii.gz",
        two_scans / "labelsTr" / "phantom_002.nii.gz",
    )
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj).astype(np.uint8)
    if fault == "truncated":
        scan.write_bytes(scan.read_bytes()[:-2000])
    elif fault == "flipped":
        content = bytearray(scan.read_bytes())
        content[len(content) // 2] ^= 4
        scan.write_bytes(content)
    elif fault == "shape":
        nib.save(nib.Nifti1Image(voxels[:-1], image.affine), mask)
    elif fault == "values":
        nib.save(nib.Nifti1Image(voxels * 3, image.affine), mask)
    elif fault == "affine":
        nib.save(nib.Nifti1Image(voxels, image.affine + np.diag([0, 0, 0.5, 0])), mask)
    with pytest.raises(InputError) as caught:
        prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert "phantom_002" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "store" / "index.json").exists()
    assert not list((tmp_path / "store").glob(".partial*"))
    assert not (tmp_path / "store" / "cases" / "phantom_002").exists()


def test_a_folder_without_a_store_and_a_store_of_the_future_are_refused(tiny_config, tmp_path):
    with pytest.raises(InputError, match=r"index.json does not exist; `liverjax prepare` makes a store"):
        open_store(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="store of format 99, expected 1"):
        open_store(tmp_path)


def test_a_case_without_tumour_labels_does_not_train_tumours(two_scans, tiny_config, tmp_path, caplog):
    shutil.copytree(two_scans, tmp_path / "three")
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        folder = tmp_path / "three" / part
        shutil.copy(folder / f"phantom_001{ending}", folder / f"phantom_003{ending}")
        shutil.copy(folder / f"phantom_002{ending}", folder / f"phantom_004{ending}")
    (tmp_path / "three" / "cases.json").write_text(json.dumps({"liver_only": ["phantom_002"]}))
    store = prepare(tmp_path / "three", tmp_path / "store", tiny_config, quiet=True)
    assert [case.id for case in store.cases if case.liver_only] == ["phantom_002"]
    split = dataclasses.replace(tiny_config.split, fold=-1, validation=1)
    config = dataclasses.replace(tiny_config, store=str(tmp_path / "store"), split=split, views=("axial",))
    train(config, tmp_path / "run", quiet=True)
    data = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["data"]
    assert sorted(data["train"] + data["validation"] + data["test"]) == [
        "phantom_001",
        "phantom_003",
        "phantom_004",
    ]
    assert "do not tell tumours from the liver: phantom_002" in caplog.text
