"""The store: what it holds against the scans, its windows, what is kept, repaired and refused."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.data.store import open_store, prepare
from liverjax.datasets.phantom import write_dataset
from liverjax.errors import ConfigError, InputError
from liverjax.options import Target
from liverjax.scans import intensity, nifti
from liverjax.scans.grid import to_grid
from liverjax.training.loop import train
from liverjax.views import VIEWS, from_stack


def _open(config):
    return open_store(config.store, config.preprocess, config.target)


def _with(config, *, target=None, **preprocess):
    changed = dataclasses.replace(config.preprocess, **preprocess)
    return dataclasses.replace(config, preprocess=changed, target=target or config.target)


def test_every_view_holds_the_scan_on_the_grid(tiny_config, phantom_scans):
    case = next(case for case in _open(tiny_config).cases if case.id == "phantom_003")
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
    case = _open(tiny_config).cases[0]
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
    config = _with(tiny_config, modality="mr")
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


def test_a_bright_artefact_takes_no_precision_from_the_body(two_scans, tiny_config, tmp_path):
    path = two_scans / "imagesTr" / "phantom_001_0000.nii.gz"
    scan = nib.load(path)
    voxels = (np.asarray(scan.dataobj) + 1100).astype(np.float32)
    voxels[20, 20, 18] = 1e9
    nib.save(nib.Nifti1Image(voxels, scan.affine), path)
    config = _with(tiny_config, modality="mr")
    case = prepare(two_scans, tmp_path / "store", config, quiet=True).cases[0]
    on_grid = to_grid(nifti.read(path), config.preprocess.spacing).voxels
    expected = intensity.normalise(on_grid, *intensity.intensity_window(on_grid, config.preprocess))
    found = intensity.normalise(case.image("axial") * np.float32(case.scale), *case.window)
    assert np.ptp(expected) == 2
    assert np.abs(from_stack(found, "axial") - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("modality", "changes"),
    [
        ("ct", {"window": (-100.0, 200.0)}),
        ("mr", {"percentiles": (5.0, 95.0)}),
        ("mr", {"percentiles": (0.03, 99.97)}),
        ("mr", {"gamma": 0.5}),
    ],
)
def test_another_window_needs_no_new_store(two_scans, tiny_config, tmp_path, modality, changes):
    config = _with(tiny_config, modality=modality)
    store, other = tmp_path / "store", _with(config, **changes)
    prepare(two_scans, store, config, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in store.glob("cases/*/*")}
    opened = open_store(store, other.preprocess, other.target)
    assert prepare(two_scans, store, other, quiet=True).cases[0].window == opened.cases[0].window
    assert before == {path: path.stat().st_mtime_ns for path in store.glob("cases/*/*")}
    for case in opened.cases:
        scan = nifti.read(two_scans / "imagesTr" / f"{case.id}_0000.nii.gz")
        on_grid = to_grid(scan, config.preprocess.spacing).voxels
        assert case.window == intensity.intensity_window(on_grid, other.preprocess)
        assert case.window != intensity.intensity_window(on_grid, config.preprocess)


def test_a_store_of_another_modality_grid_or_region_is_refused_and_not_overwritten(
    two_scans, tiny_config, tmp_path, contents
):
    store = tmp_path / "store"
    prepare(two_scans, store, tiny_config, quiet=True)
    before = contents(store)
    for other, message in (
        (
            _with(tiny_config, spacing=(9.0, 9.0, 9.0)),
            r"preprocess.spacing \(8.0, 8.0, 8.0\), now \(9.0, 9.0, 9.0\)",
        ),
        (_with(tiny_config, modality="mr"), "preprocess.modality ct, now mr"),
        (_with(tiny_config, target=Target(region="reference")), "target.region scan, now reference"),
    ):
        with pytest.raises(InputError, match=f"{message}.*; choose another folder"):
            prepare(two_scans, store, other, quiet=True)
        with pytest.raises(ConfigError, match=message):
            open_store(store, other.preprocess, other.target)
    assert contents(store) == before
    # Without a region the margin changes nothing, nor do the labels.
    open_store(store, tiny_config.preprocess, Target(margin_mm=5.0))


# --- the region ---------------------------------------------------------------------------------------------


def test_a_store_of_the_region_holds_the_box_around_it_with_the_margin(two_scans, tiny_config, tmp_path):
    boxed = _with(
        tiny_config, target=dataclasses.replace(tiny_config.target, region="reference", margin_mm=16.0)
    )
    cases = prepare(two_scans, tmp_path / "boxes", boxed, quiet=True).cases
    whole = prepare(two_scans, tmp_path / "whole", tiny_config, quiet=True).cases
    for box, scan in zip(cases, whole, strict=True):
        # Scan and grid have voxels of 8 mm, so that 16 mm are two voxels on each side.
        labels = from_stack(np.asarray(scan.labels("axial")), "axial")
        places = [np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        crop = tuple(slice(max(p[0] - 2, 0), p[-1] + 3) for p in places)
        for view in VIEWS:
            for found, stored in ((box.image(view), scan.image(view)), (box.labels(view), scan.labels(view))):
                inside, everywhere = (from_stack(np.asarray(stack), view) for stack in (found, stored))
                np.testing.assert_array_equal(inside, everywhere[crop])
        assert box.window == scan.window


def test_the_window_of_a_box_is_that_of_the_whole_mr_scan(two_scans, tiny_config, tmp_path):
    config = _with(tiny_config, modality="mr")
    boxed = _with(config, target=Target(region="reference"))
    whole = prepare(two_scans, tmp_path / "whole", config, quiet=True).cases
    box = prepare(two_scans, tmp_path / "box", boxed, quiet=True).cases
    assert [case.window for case in whole] == [case.window for case in box]


def test_training_on_boxes(two_scans, tiny_config, tmp_path):
    target = dataclasses.replace(tiny_config.target, region="reference", margin_mm=8.0)
    split = dataclasses.replace(tiny_config.split, fold=-1, validation=1)
    config = dataclasses.replace(
        tiny_config, target=target, split=split, store=str(tmp_path / "store"), views=("axial",)
    )
    prepare(two_scans, config.store, config, quiet=True)
    progress = train(config, tmp_path / "run", quiet=True)
    assert progress["axial"].finished
    with pytest.raises(ConfigError, match="target.margin_mm 8.0, now 9.0"):
        other = dataclasses.replace(config, target=dataclasses.replace(target, margin_mm=9.0))
        train(other, tmp_path / "other", quiet=True)


def test_a_scan_without_liver_has_no_box(two_scans, tiny_config, tmp_path):
    path = two_scans / "labelsTr" / "phantom_002.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)
    config = _with(tiny_config, target=Target(region="reference"))
    with pytest.raises(InputError, match=r"phantom_002.nii.gz: holds no liver, expected one"):
        prepare(two_scans, tmp_path / "store", config, quiet=True)


# --- repair and refusal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_whatever_is_deleted_or_cut_off_is_made_again(two_scans, tiny_config, tmp_path, modality, contents):
    config, store = _with(tiny_config, modality=modality), tmp_path / "store"
    prepare(two_scans, store, config, quiet=True)
    fresh = contents(store)
    assert len(fresh) == 1 + 2 * 7
    for name in fresh:
        if "phantom_001" in name:
            continue  # as the other case
        (store / name).unlink()
        prepare(two_scans, store, config, quiet=True)
        assert contents(store) == fresh, f"{name} deleted"
        (store / name).write_bytes((store / name).read_bytes()[:-3])
        prepare(two_scans, store, config, quiet=True)
        assert contents(store) == fresh, f"{name} cut off"
    shutil.rmtree(store / "cases" / "phantom_001")
    (store / "cases" / "phantom_002" / "case.json").write_text("[]")
    (store / ".prepare-partial" / "tmpx" / "new").mkdir(parents=True)
    (store / ".prepare-partial" / "tmpx" / "new" / "axial.npy").write_bytes(b"begun")
    (store / ".prepare-partial" / "index.json").write_bytes(b"begun")
    prepare(two_scans, store, config, quiet=True)
    assert contents(store) == fresh


def test_a_store_of_another_format_is_made_again(two_scans, tiny_config, tmp_path, contents):
    store = tmp_path / "store"
    prepare(two_scans, store, tiny_config, quiet=True)
    fresh = contents(store)
    for path in (store / "index.json", *store.glob("cases/*/case.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(InputError, match="store of format 1, expected 2; run `liverjax prepare` again"):
        open_store(store, tiny_config.preprocess, tiny_config.target)
    prepare(two_scans, store, tiny_config, quiet=True)
    assert contents(store) == fresh


def test_a_patient_that_cases_json_states_later_is_taken_over(two_scans, tiny_config, tmp_path):
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    (two_scans / "cases.json").write_text('{"patients": {"phantom_001": "p", "phantom_002": "p"}}')
    store = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert [case.patient for case in store.cases] == ["p", "p"]


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
    assert not (tmp_path / "store" / ".prepare-partial").exists()
    assert not (tmp_path / "store" / "cases" / "phantom_002").exists()


def test_a_folder_without_a_store_and_a_store_of_the_future_are_refused(tiny_config, tmp_path):
    options = tiny_config.preprocess, tiny_config.target
    with pytest.raises(InputError, match=r"index.json does not exist; `liverjax prepare` makes a store"):
        open_store(tmp_path, *options)
    (tmp_path / "index.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="store of format 99, expected 2"):
        open_store(tmp_path, *options)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"index.json: holds .., expected a JSON object, .*; run `liverjax prepare` again"
    ):
        open_store(tmp_path, *options)


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
    assert "do not distinguish tumours from the liver: phantom_002" in caplog.text


def test_a_store_of_any_modality_holds_each_scan_as_a_store_of_its_own_does(tmp_path, tiny_config):
    options = {"shape": (48, 40, 36), "spacing": (8.0, 8.0, 8.0)}
    configs = {name: _with(tiny_config, modality=name) for name in ("ct", "mr", "any")}
    for modality, seed in (("ct", 0), ("mr", 1)):
        write_dataset(tmp_path / modality, [seed], modality=modality, **options)
        for part in ("imagesTr", "labelsTr"):
            (tmp_path / "any" / part).mkdir(parents=True, exist_ok=True)
            for file in (tmp_path / modality / part).iterdir():
                shutil.copy(file, tmp_path / "any" / part)
    stores = {
        name: prepare(tmp_path / name, tmp_path / f"{name}_store", config, quiet=True)
        for name, config in configs.items()
    }
    both = stores["any"].cases
    alone = (*stores["ct"].cases, *stores["mr"].cases)
    assert [case.window[:2] == configs["any"].preprocess.window for case in both] == [True, False]
    for case, own in zip(both, alone, strict=True):
        assert (case.id, case.window, case.scale, case.doubts) == (own.id, own.window, own.scale, ())
        for view in VIEWS:
            np.testing.assert_array_equal(case.image(view), own.image(view))
    again = open_store(tmp_path / "any_store", configs["any"].preprocess, tiny_config.target)
    assert [case.window for case in again.cases] == [case.window for case in both]
    with pytest.raises(ConfigError, match="preprocess.modality any, now ct"):
        open_store(tmp_path / "any_store", configs["ct"].preprocess, tiny_config.target)


def test_values_that_are_not_as_the_data_set_says_are_doubted_in_a_store_of_any_modality(
    two_scans, tiny_config, tmp_path, caplog
):
    facts = json.loads((two_scans / "dataset.json").read_text(encoding="utf-8"))
    facts["channel_names"] = {"0": "MR"}
    (two_scans / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    store = prepare(two_scans, tmp_path / "store", _with(tiny_config, modality="any"), quiet=True)
    assert [len(case.doubts) for case in store.cases] == [1, 1]
    assert "is MR by its data set, but its values are as of CT and scaled as such" in caplog.text
    facts["channel_names"] = {"0": "CT"}
    (two_scans / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    again = prepare(two_scans, tmp_path / "again", _with(tiny_config, modality="any"), quiet=True)
    assert [case.doubts for case in again.cases] == [(), ()]
