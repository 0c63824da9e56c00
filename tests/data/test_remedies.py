"""Remedies of splits and stores: what the messages advise is done, and there is a split, or a store."""

import dataclasses
import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.data.splits import split_cases
from liverjax.data.store import StoredCase, open_store, prepare
from liverjax.errors import ConfigError, InputError
from liverjax.options import Preprocess, Split, Target
from liverjax.scans.grid import working_grid
from liverjax.volume import Volume

THREE = [
    StoredCase(f"c{number}", f"c{number}", pathlib.Path(), 1.0, (0, 1), ("", ""), False, {}, {})
    for number in range(3)
]


@pytest.mark.parametrize(
    ("wrong", "message", "remedies"),
    [
        (
            {"folds": 5, "fold": 4, "validation": 1},
            "none is held out for the test; expected a smaller fold, or -1",
            [{"fold": 2}, {"fold": -1}],
        ),
        (
            {"folds": 3, "fold": 0, "validation": 2},
            "split.validation is 2, but only 2 of 3 patients are not held out .*; expected at least one more",
            [{"validation": 1}],
        ),
        ({"test_cases": ("c9",), "validation": 1}, "no case 'c9' in the store", [{"test_cases": ("c1",)}]),
    ],
)
def test_a_split_of_few_patients_is_made_as_the_message_says(wrong, message, remedies):
    with pytest.raises(ConfigError, match=message):
        split_cases(THREE, Split(**wrong))
    for remedy in remedies:
        subsets = split_cases(THREE, Split(**{**wrong, **remedy}))
        assert subsets.train and subsets.validation
        assert bool(subsets.test) == (remedy.get("fold") != -1)


def _rewrite(scans, part, change, number=1):
    path = next((scans / part).glob(f"phantom_00{number}*"))
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)
    return path


def test_a_case_without_liver_is_left_out_or_scans_are_stored(two_scans, tiny_config, tmp_path):
    before = {path: path.read_bytes() for path in two_scans.rglob("*.nii.gz")}
    mask = _rewrite(two_scans, "labelsTr", lambda labels: np.zeros(labels.shape, np.uint8))
    boxes = dataclasses.replace(tiny_config, target=Target(region="reference"))
    message = "leave the case out, or store scans .target.region=scan"
    with pytest.raises(InputError, match=f"{mask.name}: holds no liver, .*; {message}"):
        prepare(two_scans, tmp_path / "boxes", boxes, quiet=True)
    assert len(prepare(two_scans, tmp_path / "scans_store", tiny_config, quiet=True).cases) == 2
    for path in before:
        if "phantom_001" in path.name:
            path.unlink()
    assert [case.id for case in prepare(two_scans, tmp_path / "boxes", boxes, quiet=True).cases] == [
        "phantom_002"
    ]


def test_a_scan_and_a_mask_are_copied_again(two_scans, tiny_config, tmp_path, caplog):
    scan = next((two_scans / "imagesTr").glob("phantom_001*"))
    source = scan.read_bytes()
    _rewrite(two_scans, "imagesTr", lambda voxels: np.full(voxels.shape, 40, np.int16))
    with pytest.raises(InputError, match="every voxel is 40, expected a scan; copy it again from its source"):
        prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    scan.write_bytes(source)
    assert not any(
        case.doubts for case in prepare(two_scans, tmp_path / "store", tiny_config, quiet=True).cases
    )
    mask = next((two_scans / "labelsTr").glob("phantom_001*"))
    source = mask.read_bytes()
    _rewrite(two_scans, "labelsTr", lambda labels: (labels == 0).astype(np.uint8))
    doubted = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True).cases[0]
    assert doubted.doubts[0].endswith("verify the mask and its voxel size")
    mask.write_bytes(source)
    assert not prepare(two_scans, tmp_path / "store", tiny_config, quiet=True).cases[0].doubts


def test_of_equal_cases_one_is_kept(two_scans, tiny_config, tmp_path, caplog):
    for part in ("imagesTr", "labelsTr"):
        same = next((two_scans / part).glob("phantom_001*"))
        shutil.copy(same, str(same).replace("001", "003"))
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert "phantom_001 and phantom_003 hold the same voxels; keep one" in caplog.text
    caplog.clear()
    for path in two_scans.glob("*/phantom_003*"):
        path.unlink()
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert not caplog.records


def test_a_config_of_the_modality_of_the_data_set_is_chosen(two_scans, tiny_config, tmp_path, caplog):
    mr = dataclasses.replace(tiny_config, preprocess=Preprocess(modality="mr", spacing=(8.0, 8.0, 8.0)))
    prepare(two_scans, tmp_path / "mr", mr, quiet=True)
    assert "choose a config for CT" in caplog.text
    caplog.clear()
    prepare(two_scans, tmp_path / "ct", tiny_config, quiet=True)
    assert not caplog.records


def test_a_damaged_or_missing_index_names_its_file_and_the_command_that_makes_it(
    two_scans, tiny_config, tmp_path, capsys
):
    store = tmp_path / "store"
    words = [
        "prepare",
        "-i",
        str(two_scans),
        "-o",
        str(store),
        "--config=demo",
        "--config.preprocess.spacing=8,8,8",
    ]
    options = Preprocess(spacing=(8.0, 8.0, 8.0)), tiny_config.target
    damages = ("", "[]", json.dumps({"format": 1}), json.dumps({"format": 2}), None)
    for damage in damages:
        if store.exists():
            (store / "index.json").unlink() if damage is None else (store / "index.json").write_text(damage)
            message = r"index\.json.*`liverjax prepare` (again|makes a store)"
            with pytest.raises(InputError, match=message):
                open_store(store, *options)
        assert main([*words, "--quiet"]) == 0
        assert len(open_store(store, *options).cases) == 2
    assert capsys.readouterr().err == ""


def test_a_working_grid_that_is_too_large_is_made_coarser_or_the_scan_is_cropped():
    def scan(size):
        return Volume(np.broadcast_to(np.int16(0), (size, size, size)), np.diag([1.0, 1, 1, 1]), name="scan")

    with pytest.raises(
        InputError, match=r"choose a larger spacing .*\(preprocess\.spacing\), or crop the scan"
    ):
        working_grid(scan(1400), (1, 1, 1))
    assert working_grid(scan(1400), (2, 2, 2)).shape == (700, 700, 700)
    assert working_grid(scan(1200), (1, 1, 1)).shape == (1200, 1200, 1200)
