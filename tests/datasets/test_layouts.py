"""Data sets in every layout, and what is wrong with some."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import Reading


def put(root, *names, voxels=None):
    """Writes small NIfTI files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8) if voxels is None else voxels, np.eye(4) * 2)
        nib.save(image, root / name)


def ids(cases):
    return [case.id for case in cases]


@pytest.fixture(params=["plain", "nnunet", "msd", "lits"])
def data_set(request, tmp_path):
    """A data set of three cases in each layout: its name, root, and expected ids."""
    pattern = {
        "plain": ("images/p{}.nii.gz", "labels/p{}.nii", "p{}"),
        "nnunet": ("imagesTr/p{}_0000.nii.gz", "labelsTr/p{}.nii.gz", "p{}"),
        "msd": ("imagesTr/p{}.nii.gz", "labelsTr/p{}.nii.gz", "p{}"),
        "lits": ("volume-{}.nii", "segmentation-{}.nii", "volume-{}"),
    }[request.param]
    for number in (10, 9, 1):
        put(tmp_path, *(name.format(number) for name in pattern[:2]))
    return request.param, tmp_path, [pattern[2].format(n) for n in (1, 9, 10)]


@pytest.mark.parametrize("labelled", [True, False])
def test_every_layout_is_found_and_sorted(data_set, labelled):
    layout, root, expected = data_set
    for name in (layout, "auto"):
        cases = find_cases(root, name, labelled=labelled)
        assert ids(cases) == expected
        for case in cases:
            assert case.id == case.patient
            assert case.image.is_file()
            assert case.label.is_file()
            assert case.image != case.label


def test_a_missing_mask_and_a_missing_scan_are_listed_together(data_set):
    _, root, expected = data_set
    cases = find_cases(root, labelled=True)
    cases[0].label.unlink()
    cases[2].label.unlink()
    cases[1].image.unlink()
    with pytest.raises(InputError) as caught:
        find_cases(root, labelled=True)
    assert f"no mask for {expected[0]}, {expected[2]}; no scan for {expected[1]}" in str(caught.value)
    assert [(case.id, case.label) for case in find_cases(root)] == [(expected[0], None), (expected[2], None)]


def test_test_sets_are_for_prediction(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz")
    assert ids(find_cases(tmp_path, labelled=True)) == ["a"]
    cases = find_cases(tmp_path)
    assert ids(cases) == ["a", "b"]
    assert cases[1].label is None


def test_a_single_file_and_a_flat_folder(tmp_path):
    put(tmp_path, "x.nii.gz", "y.nii", ".hidden.nii", "._y.nii")
    (tmp_path / "notes.txt").write_text("")
    assert find_cases(tmp_path / "x.nii.gz")[0].id == "x"
    assert ids(find_cases(tmp_path)) == ["x", "y"]
    with pytest.raises(InputError, match="is a file, expected a folder"):
        find_cases(tmp_path / "y.nii", labelled=True)
    with pytest.raises(InputError, match="holds 2 scans and no masks"):
        find_cases(tmp_path, labelled=True)


def test_lits_in_batches(tmp_path):
    put(tmp_path, "Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii")
    put(tmp_path, "Training Batch 2/volume-28.nii", "Training Batch 2/segmentation-28.nii")
    assert ids(find_cases(tmp_path, labelled=True)) == ["volume-0", "volume-28"]


def test_msd_by_its_list(tmp_path):
    put(tmp_path, "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTr/unlisted.nii.gz")
    (tmp_path / "imagesTr/._liver_0.nii.gz").write_bytes(b"what a file system left behind")
    pair = {"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}
    labels = {"0": "background", "1": "liver", "2": "cancer"}
    facts = {"training": [pair], "labels": labels, "test": ["./imagesTs/liver_1.nii.gz"]}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    assert ids(find_cases(tmp_path, labelled=True)) == ["liver_0"]

    facts["training"].append({"image": "./imagesTr/liver_5.nii.gz", "label": "./labelsTr/liver_5.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(
        InputError, match=r"imagesTr/liver_5\.nii\.gz, labelsTr/liver_5\.nii\.gz cannot be opened"
    ):
        find_cases(tmp_path, labelled=True)
    for hostile in ("../outside.nii.gz", "/etc/passwd", "imagesTr/../../x.nii"):
        (tmp_path / "dataset.json").write_text(
            json.dumps({"training": [{"image": hostile, "label": hostile}]})
        )
        with pytest.raises(InputError, match=r"dataset\.json: .* leads out of the folder"):
            find_cases(tmp_path, labelled=True)
    for wrong in (5, ["a"], [{"label": "a.nii"}], [{"image": 5}], {"image": "a"}):
        (tmp_path / "dataset.json").write_text(json.dumps({"training": wrong}))
        with pytest.raises(InputError, match=r"dataset\.json: 'training' is not a list"):
            find_cases(tmp_path, labelled=True)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_dataset_json_that_is_none(tmp_path, text):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json: "):
        find_cases(tmp_path)


def test_a_case_without_mask_says_so(tmp_path):
    put(tmp_path, "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: case 'a' has no mask"):
        find_cases(tmp_path)[0].read_mask()


def test_an_id_that_occurs_twice(tmp_path):
    put(tmp_path, "images/a.nii", "images/a.nii.gz", "images/b.nii", "images/b_0000.nii", "images/c.nii")
    with pytest.raises(
        InputError, match=r"the same case id for images/a\.nii and images/a\.nii\.gz; expected"
    ):
        find_cases(tmp_path)


def test_folders_without_scans(tmp_path):
    with pytest.raises(InputError, match="holds no scans in any known layout, expected images/"):
        find_cases(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        find_cases(tmp_path / "nowhere")
    put(tmp_path, "a.nii")
    with pytest.raises(InputError, match="holds no scans in the lits layout"):
        find_cases(tmp_path, "lits")
    with pytest.raises(InputError, match=r"layout is 'nnunett'; did you mean 'nnunet'\?"):
        find_cases(tmp_path, "nnunett")


def test_links(tmp_path):
    put(tmp_path, "elsewhere/a.nii")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.nii").symlink_to(tmp_path / "elsewhere/a.nii")
    assert ids(find_cases(tmp_path / "data")) == ["a"]
    (tmp_path / "data/b.nii").symlink_to(tmp_path / "data/b.nii")
    (tmp_path / "data/c.nii").symlink_to(tmp_path / "nowhere.nii")
    with pytest.raises(InputError, match=r"data: b\.nii, c\.nii cannot be opened"):
        find_cases(tmp_path / "data")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="loop: is a loop of links, expected a folder or a file"):
        find_cases(tmp_path / "loop")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dead: is a broken link, expected a folder or a file"):
        find_cases(tmp_path / "dead")
    (tmp_path / "round").mkdir()
    put(tmp_path, "round/volume-1.nii")
    (tmp_path / "round/down").symlink_to(tmp_path / "round")
    with pytest.raises(InputError, match=r"the same case id for volume-1\.nii and down/volume-1\.nii"):
        find_cases(tmp_path / "round")


def test_names_that_are_hard(tmp_path):
    names = ["Größe ü.nii.gz", "肝臓 1.nii", f"{'n' * 240}.nii.gz", "a.b (c).nii"]
    put(tmp_path / "mit Leerzeichen", *names)
    assert len(find_cases(tmp_path / "mit Leerzeichen")) == 4


def test_ids_that_are_no_file_names(tmp_path):
    put(tmp_path / "a", "x\ny.nii")
    with pytest.raises(InputError, match="expected a plain file name"):
        find_cases(tmp_path / "a")
    put(tmp_path / "b", "imagesTr/x\\y.nii")
    with pytest.raises(InputError, match="expected a plain file name"):
        find_cases(tmp_path / "b")


def test_patients_and_masks_without_tumours(tmp_path):
    put(tmp_path, *(f"images/{name}.nii" for name in "abc"), *(f"labels/{name}.nii" for name in "abc"))
    (tmp_path / "cases.json").write_text('{"patients": {"a": "p1", "c": "p1"}, "liver_only": ["b"]}')
    cases = find_cases(tmp_path, labelled=True)
    assert [(case.patient, case.liver_only) for case in cases] == [("p1", False), ("b", True), ("p1", False)]
    for wrong, message in (
        ('{"patients": {"d": "p1"}}', "no case 'd'"),
        ('{"patient": {}}', "'patient' is unknown; did you mean 'patients'"),
        ('{"patients": {"a": 1}}', "expected {case: patient}"),
        ('{"liver_only": "b"}', "expected a list of cases"),
    ):
        (tmp_path / "cases.json").write_text(wrong)
        with pytest.raises(InputError) as caught:
            find_cases(tmp_path)
        assert message in str(caught.value)


def test_a_mask_that_is_said_to_fit_takes_the_place_of_its_scan(tmp_path):
    voxels, moved = np.ones((3, 4, 5), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])
    for folder, affine, shape in (("images", np.eye(4), (3, 4, 5)), ("labels", moved, (3, 4, 5))):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(voxels[: shape[0]], affine), tmp_path / folder / "a.nii")
    np.testing.assert_array_equal(find_cases(tmp_path)[0].read_mask().affine, moved)
    (tmp_path / "cases.json").write_text('{"voxel_on_voxel": ["a"]}')
    mask = find_cases(tmp_path)[0].read_mask()
    np.testing.assert_array_equal(mask.affine, np.eye(4))
    np.testing.assert_array_equal(mask.voxels, voxels)
    nib.save(nib.Nifti1Image(voxels[:2], moved), tmp_path / "labels" / "a.nii")
    with pytest.raises(InputError, match=r"a.nii: \(2, 4, 5\) voxels, expected \(3, 4, 5\) as"):
        find_cases(tmp_path)[0].read_mask()


def test_a_pair_lies_voxel_on_voxel_or_is_refused(tmp_path):
    voxels = np.ones((3, 4, 5), np.uint8)
    for folder, affine in (("images", np.eye(4)), ("labels", np.diag([2.0, 2.0, 2.0, 1.0]))):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / folder / "a.nii")
    with pytest.raises(InputError, match="mm apart"):
        find_cases(tmp_path)[0].read_pair()
    (tmp_path / "cases.json").write_text('{"voxel_on_voxel": ["a"]}')
    scan, mask = find_cases(tmp_path)[0].read_pair()
    np.testing.assert_array_equal(mask.affine, scan.affine)


def test_the_phase_of_a_pair(tmp_path):
    phases = np.arange(3 * 4 * 5 * 2, dtype=np.int16).reshape(3, 4, 5, 2)
    put(tmp_path, "images/a.nii", voxels=phases)
    put(tmp_path, "labels/a.nii", voxels=np.ones((3, 4, 5), np.uint8))
    (case,) = find_cases(tmp_path)
    np.testing.assert_array_equal(
        dataclasses.replace(case, reading=Reading(phase="last")).read_pair()[0].voxels, phases[..., 1]
    )
    with pytest.raises(InputError, match="holds 2 phases and none is chosen"):
        case.read_pair()


def test_the_real_data_sets(real_data):
    """Whatever data sets lie there: each is found by its layout, and a case of each is a scan and a mask that fit."""
    layouts_found = {}
    for folder in sorted(entry for entry in real_data.iterdir() if entry.is_dir()):
        if (folder / "imagesTr").is_dir() or any(folder.glob("volume-*")):
            cases = find_cases(folder, labelled=True)
            layouts_found[folder.name] = len(cases)
            scan, mask = cases[0].read_pair()
            assert scan.shape == mask.shape and mask.voxels.any()
    if not layouts_found:
        pytest.skip("no data set in nnU-Net's or LiTS's layout among the real scans")
    assert all(layouts_found.values())


def test_cases_json_states_how_scans_are_read(tmp_path):
    phases = np.arange(2 * 24, dtype=np.int16).reshape(2, 3, 4, 2)
    for id in "ab":
        put(tmp_path, f"images/{id}.nii.gz", voxels=phases)
    facts = {"phase": {"a": "last"}, "spacing": {"a": [0.5, 0.5, 4]}}
    (tmp_path / "cases.json").write_text(json.dumps(facts))
    a, b = find_cases(tmp_path, reading=Reading(phase=0))
    assert a.reading == Reading(phase="last", spacing=(0.5, 0.5, 4.0)) and b.reading == Reading(phase=0)
    assert np.array_equal(a.read_image().voxels, phases[..., 1]) and a.read_image().spacing[2] == 4
    assert np.array_equal(b.read_image().voxels, phases[..., 0])


@pytest.mark.parametrize("facts", [{"phase": ["a"]}, {"spacing": {"a": [1, 2]}}, {"series": {"a": None}}])
def test_a_choice_of_another_kind_is_refused(tmp_path, facts):
    put(tmp_path, "images/a.nii.gz")
    (tmp_path / "cases.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=rf"cases.json: '{next(iter(facts))}' is .*, expected {{case: "):
        find_cases(tmp_path)
