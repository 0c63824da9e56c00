"""Remedies of findings and refusals about data sets: each is followed, and the finding is gone."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.data.store import prepare
from liverjax.datasets.check import check_data_set
from liverjax.datasets.findings import KINDS
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import Reading
from tests.datasets.test_chaos import put as put_chaos
from tests.datasets.test_check import AFFINE, SHAPE, make_case, put, save
from tests.scans.dicom_series import image_of, write_series


def kinds(root, **settings):
    return [finding.kind for finding in check_data_set(root, **settings).findings]


# --- each kind of finding -----------------------------------------------------------------------------------

SCAN, MASK = "images/a.nii.gz", "labels/a.nii.gz"


def _sound(root):
    put(root, "a")


def _rewrite(name, change, affine=AFFINE):
    def apply(root):
        index = 0 if name == SCAN else 1
        save(root / name, change(make_case(1)[index]), affine)

    return apply


def _remove(*names):
    def apply(root):
        for name in names:
            (root / name).unlink()

    return apply


def _rename(name, other):
    return lambda root: (root / name).rename(root / other)


def _both(change):
    """Changes the affine of scan and mask alike."""

    def apply(root):
        for index, name in enumerate((SCAN, MASK)):
            save(root / name, make_case(1)[index], change)

    return apply


def _state(**facts):
    return lambda root: (root / "cases.json").write_text(json.dumps(facts))


def _copy(name, other):
    return lambda root: shutil.copy(root / name, root / other)


def _forms_that_disagree(root):
    image = nib.load(root / SCAN)
    image.set_qform(np.diag([5.0, 5, 6, 1]), code=1)
    image.set_sform(AFFINE, code=1)
    nib.save(image, root / SCAN)


def _cut(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:500])


def _twin(root):
    scan, mask = make_case(1)
    save(root / "images/b.nii.gz", scan.astype(np.float32))
    save(root / "labels/b.nii.gz", mask)
    save(root / "images/a.nii.gz", scan)


def _json(name, text):
    return lambda root: (root / name).write_text(text)


THICK = AFFINE @ np.diag([1, 1, 7, 1.0])
SHIFTED = AFFINE + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.6], [0, 0, 0, 0]])
#: Kind of finding -> what brings it into a sound data set of one case, and the remedies, each alone.
FAULTS = {
    "dataset_json": (_json("dataset.json", "{"), [_json("dataset.json", "{}"), _remove("dataset.json")]),
    "cases_json": (_state(voxel_on_voxel=["b"]), [_state(voxel_on_voxel=["a"]), _remove("cases.json")]),
    "case_id": (
        lambda root: [(root / name).rename(root / name.replace("/a", "/c\nd")) for name in (SCAN, MASK)],
        [lambda root: [(root / name.replace("/a", "/c\nd")).rename(root / name) for name in (SCAN, MASK)]],
    ),
    "duplicate_id": (
        lambda root: save(root / "images/a.nii", make_case(2)[0]),
        [
            _remove("images/a.nii"),
            lambda root: [
                _rename("images/a.nii", "images/b.nii")(root),
                _copy(MASK, "labels/b.nii.gz")(root),
            ],
        ],
    ),
    "missing_mask": (
        lambda root: save(root / "images/b.nii.gz", make_case(2)[0]),
        [
            lambda root: save(root / "labels/b.nii.gz", make_case(2)[1]),
            lambda root: _rename("images/b.nii.gz", "b.nii.gz.away")(root),
        ],
    ),
    "missing_scan": (
        lambda root: save(root / "labels/b.nii.gz", make_case(2)[1]),
        [lambda root: save(root / "images/b.nii.gz", make_case(2)[0]), _remove("labels/b.nii.gz")],
    ),
    "scan": (_cut(SCAN), [_sound]),
    "mask": (_cut(MASK), [_sound]),
    "label_values": (
        _rewrite(MASK, lambda mask: np.where(mask == 2, 3, mask).astype(np.uint8)),
        [_state(labels={"3": "tumor"}), _rewrite(MASK, lambda mask: mask)],
    ),
    "shape": (
        _rewrite(MASK, lambda mask: mask[:-1]),
        [lambda root: save(root / SCAN, make_case(1)[0][:-1]), _rewrite(MASK, lambda mask: mask)],
    ),
    "affine": (_rewrite(MASK, lambda mask: mask, SHIFTED), [_state(voxel_on_voxel=["a"])]),
    "constant": (_rewrite(SCAN, np.zeros_like), [_sound]),
    "duplicate_scan": (_twin, [_remove("images/b.nii.gz", "labels/b.nii.gz")]),
    "no_geometry": (_both(np.eye(4)), [_state(spacing={"a": [5, 5, 6]})]),
    "forms_disagree": (_forms_that_disagree, [_rewrite(SCAN, lambda scan: scan)]),
    "spacing": (_both(THICK), [_both(AFFINE)]),
    "intensities": (
        _rewrite(SCAN, lambda scan: (scan.clip(-1024) + 1024).astype(np.uint16)),
        [_rewrite(SCAN, lambda scan: scan)],
    ),
    "empty_mask": (_rewrite(MASK, np.zeros_like), [_sound]),
    "tiny_mask": (_rewrite(MASK, lambda mask: (mask == 2).astype(np.uint8)), [_sound]),
    "mirrored": (
        lambda root: [_rewrite(name, lambda voxels: voxels[::-1])(root) for name in (SCAN, MASK)],
        [
            lambda root: [_rewrite(name, lambda voxels: voxels)(root) for name in (SCAN, MASK)],
            lambda root: [
                save(root / name, voxels[::-1], _flipped())
                for name, voxels in zip((SCAN, MASK), make_case(1), strict=True)
            ],
        ],
    ),
}


def _flipped():
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, 0] * (SHAPE[0] - 1)
    affine[:3, 0] *= -1
    return affine


@pytest.mark.parametrize("kind", FAULTS)
def test_a_finding_ends_with_its_remedy(tmp_path, kind):
    plant, remedies = FAULTS[kind]
    for number, remedy in enumerate(remedies):
        root = tmp_path / str(number)
        _sound(root)
        settings = {"modality": "ct"} if kind == "intensities" else {}
        assert kinds(root, **settings) == []
        plant(root)
        assert kind in kinds(root, **settings) and kind in KINDS
        remedy(root)
        assert kind not in kinds(root, **settings), KINDS[kind]


def test_a_choice_that_a_scan_leaves_open_is_made_as_the_finding_says(tmp_path, capsys):
    save(tmp_path / "a.nii.gz", np.stack([make_case(0)[0]] * 3, -1))
    assert main(["check", "-i", str(tmp_path), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "none is chosen, expected 0 to 2 or 'last'; choose with --phase, or phase in cases.json" in printed
    assert "\n  do as the message says; where it names no remedy, copy the scan again" in printed
    assert main(["check", "-i", str(tmp_path), "--quiet", "--phase=2"]) == 0
    assert main(["check", "-i", str(tmp_path), "--quiet", "--phase=last"]) == 0
    (tmp_path / "cases.json").write_text('{"phase": {"a": 0}}')
    assert main(["check", "-i", str(tmp_path), "--quiet"]) == 0


def test_a_choice_that_a_scan_does_not_have_is_left_out(tmp_path):
    save(tmp_path / "files/a.nii.gz", make_case(0)[0])
    write_series(tmp_path / "series", image_of(np.eye(3)))
    for folder, choice, flag in (
        ("files/a.nii.gz", Reading(series="largest"), "--series"),
        ("series", Reading(spacing=(1, 1, 1)), "--spacing"),
    ):
        with pytest.raises(InputError, match=f"; leave {flag} out$"):
            choice.read(tmp_path / folder)
        assert Reading().read(tmp_path / folder).shape


# --- CHAOS: CT and MR in one folder -------------------------------------------------------------------------


@pytest.fixture
def chaos(tmp_path):
    """A CT in Hounsfield units and two MR scans."""
    for number, folder in enumerate(("CT/2", "MR/5/T2SPIR", "MR/7/T2SPIR")):
        scan = make_case(number, folder[:2].lower())[0][:, :, 10:14]
        # It writes values of 500 times what it is given, and a mask of all that is not 0.
        put_chaos(tmp_path / folder, scan / 500, grey=255 if number == 0 else 63)
    return tmp_path


def test_each_case_has_the_modality_of_its_folder(chaos):
    assert {case.id: case.modality for case in find_cases(chaos)} == {
        "CT_2": "ct",
        "MR_5_T2SPIR": "mr",
        "MR_7_T2SPIR": "mr",
    }
    report = check_data_set(chaos)
    assert report.modality == "ct and mr"
    (mixed,) = (finding for finding in report.findings if finding.kind == "modalities")
    assert mixed.message == f"{chaos}: holds 1 CT and 2 MR scans"
    assert "intensities" not in {finding.kind for finding in report.findings}
    # As the remedy says.
    for folder in ("CT", "MR"):
        report = check_data_set(chaos / folder)
        assert report.modality == folder.lower()
        assert "modalities" not in {finding.kind for finding in report.findings}
    # What the user says goes before the folder.
    as_ct = check_data_set(chaos, modality="ct").findings
    doubted = {finding.cases[0] for finding in as_ct if finding.kind == "intensities"}
    assert doubted == {"MR_5_T2SPIR", "MR_7_T2SPIR"} and "modalities" not in {found.kind for found in as_ct}


def test_a_store_is_of_one_modality(chaos, tiny_config, tmp_path, caplog):
    mr = dataclasses.replace(tiny_config.preprocess, modality="mr")
    config = dataclasses.replace(tiny_config, preprocess=mr)
    with pytest.raises(
        InputError, match="holds scans of CT and MR, expected one of them; give the folder of one"
    ):
        prepare(chaos, tmp_path / "store", config, quiet=True)
    assert not (tmp_path / "store").exists()
    either = dataclasses.replace(config, preprocess=dataclasses.replace(mr, modality="any"))
    assert len(prepare(chaos, tmp_path / "any", either, quiet=True).cases) > 2
    store = prepare(chaos / "MR", tmp_path / "store", config, quiet=True)
    assert [case.id for case in store.cases] == ["MR_5_T2SPIR", "MR_7_T2SPIR"]
    assert "choose a config" not in caplog.text
    prepare(chaos / "MR", tmp_path / "as_ct", tiny_config, quiet=True)
    assert f"the layout of {chaos / 'MR'} says that the scans are MR" in caplog.text
    assert "choose a config for MR" in caplog.text


# --- layouts and lists --------------------------------------------------------------------------------------


def test_a_folder_of_an_unknown_layout_is_arranged_as_the_message_says(tmp_path):
    save(tmp_path / "scans/a.nii.gz", make_case(1)[0])
    save(tmp_path / "masks/a.nii.gz", make_case(1)[1])
    with pytest.raises(InputError, match="expected images/ and labels/, imagesTr/ and labelsTr/"):
        find_cases(tmp_path, labelled=True)
    for names in (("images", "labels"), ("imagesTr", "labelsTr")):
        for old, new in zip(("scans", "masks"), names, strict=True):
            shutil.copytree(tmp_path / old, tmp_path / names[0] / "set" / new)
        assert [case.id for case in find_cases(tmp_path / names[0] / "set", labelled=True)] == ["a"]
    assert kinds(tmp_path, layout="plan") == ["layout"]
    with pytest.raises(InputError, match="layout is 'plan'; did you mean 'plain'"):
        find_cases(tmp_path / "images/set", "plan")
    assert find_cases(tmp_path / "images/set", "plain")


def test_scans_alone_are_no_training_set_until_masks_are_added(tmp_path):
    save(tmp_path / "images/a.nii.gz", make_case(1)[0])
    with pytest.raises(
        InputError, match=r"holds 1 scans and no masks, expected masks in labels/ or labelsTr/"
    ):
        find_cases(tmp_path, labelled=True)
    save(tmp_path / MASK, make_case(1)[1])
    assert [case.id for case in find_cases(tmp_path, labelled=True)] == ["a"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"pasients": {"a": "p"}}, {"patients": {"a": "p"}}),
        ({"liver_only": ["aa"]}, {"liver_only": ["a"]}),
        ({"liver_only": "a"}, {"liver_only": ["a"]}),
        ({"phase": {"a": [0]}}, {"phase": {"a": 0}}),
        ({"spacing": {"a": 5}}, {"spacing": {"a": [5, 5, 6]}}),
        ({"labels": {"2": "tumr"}}, {"labels": {"2": "tumor"}}),
        ({"labels": {"1": "background", "2": "background"}}, {"labels": {"1": "liver"}}),
    ],
)
def test_cases_json_is_corrected_as_the_message_says(tmp_path, wrong, right):
    _sound(tmp_path)
    _state(**wrong)(tmp_path)
    with pytest.raises(InputError, match=r"/cases\.json: .*(did you mean|expected)"):
        find_cases(tmp_path)
    _state(**right)(tmp_path)
    assert [case.id for case in find_cases(tmp_path)] == ["a"]


def test_a_label_that_is_to_be_ignored_is_relabelled(tmp_path):
    _sound(tmp_path)
    labels = {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match="which training cannot do; relabel its voxels"):
        find_cases(tmp_path)
    del labels["ignore"]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert find_cases(tmp_path)[0].read_mask().voxels.max() == 2


def test_a_path_of_two_lines_is_one_line_in_every_message(tmp_path):
    root = tmp_path / "two\nlines"
    _sound(root)
    (root / "cases.json").write_text("{")
    with pytest.raises(InputError) as caught:
        find_cases(root)
    assert "two\\nlines/cases.json: not JSON" in str(caught.value) and "\n" not in str(caught.value)
    assert kinds(root) == ["cases_json"]
    with pytest.raises(InputError, match=r"two\\nlines: no such folder|two\\nlines/none"):
        find_cases(root / "none")
