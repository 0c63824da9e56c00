"""What speaks against scans and masks is told by `prepare` and noted in the store."""

import dataclasses
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.data.store import prepare
from liverjax.errors import InputError
from liverjax.scans import nifti


def _change(scans, part, change, number=1):
    """Changes the voxels of a scan or of a mask."""
    path = next((scans / part).glob(f"phantom_00{number}*"))
    scan = nib.load(path)
    voxels = change(np.asarray(scan.dataobj))
    nib.save(nib.Nifti1Image(voxels, scan.affine), path)
    return path


def test_a_sound_data_set_raises_no_doubt(two_scans, tiny_config, tmp_path, caplog):
    store = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert [case.doubts for case in store.cases] == [(), ()] and not caplog.records


def test_a_ct_that_is_not_in_hounsfield_units_is_told_once_and_noted(
    two_scans, tiny_config, tmp_path, caplog
):
    path = _change(two_scans, "imagesTr", lambda hu: (hu.clip(-1024) + 1024).astype(np.uint16))
    store = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    (record,) = caplog.records
    assert record.name == "liverjax" and record.getMessage().startswith(
        f"case phantom_001 is doubtful: {path}: values from"
    )
    assert "convert them to Hounsfield units" in record.getMessage()
    assert [len(case.doubts) for case in store.cases] == [1, 0]
    # Remedies: another config, or other units.
    mr = dataclasses.replace(tiny_config.preprocess, modality="mr")
    mr_store = prepare(
        two_scans, tmp_path / "mr", dataclasses.replace(tiny_config, preprocess=mr), quiet=True
    )
    assert not mr_store.cases[0].doubts
    _change(two_scans, "imagesTr", lambda values: values.astype(np.int16) - 1024)
    assert not prepare(two_scans, tmp_path / "store", tiny_config, quiet=True).cases[0].doubts


def test_a_ct_data_set_for_an_mr_config_is_doubted(two_scans, tiny_config, tmp_path, caplog):
    mr = dataclasses.replace(tiny_config.preprocess, modality="mr")
    store = prepare(two_scans, tmp_path / "mr", dataclasses.replace(tiny_config, preprocess=mr), quiet=True)
    assert all(case.doubts and "as Hounsfield units have them" in case.doubts[0] for case in store.cases)
    assert caplog.records[0].getMessage() == (
        f"{two_scans / 'dataset.json'} says that the scans are CT, but the config (preprocess.modality) is for MR; "
        "choose a config for CT"
    )
    assert len(caplog.records) == 1 + len(store.cases)


def test_a_constant_scan_is_refused(two_scans, tiny_config, tmp_path):
    path = _change(two_scans, "imagesTr", lambda hu: np.full_like(hu, 40))
    message = f"{path}: every voxel is 40, expected a scan; copy it again from its source"
    with pytest.raises(InputError) as caught:
        prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert str(caught.value) == message


def test_a_mask_of_an_impossible_volume_is_doubted(two_scans, tiny_config, tmp_path, caplog):
    path = _change(two_scans, "labelsTr", lambda labels: (labels == 0).astype(np.uint8))
    store = prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    mask = nifti.read_mask(path)
    volume, share = mask.millilitres(mask.voxels), np.mean(mask.voxels > 0)
    assert store.cases[0].doubts == (
        f"{path}: the liver has {volume:.0f} ml, {share:.0%} of the scan; a liver has 1000 to 2500 ml: "
        "verify the mask and its voxel size",
    )
    assert volume > 5000 and not store.cases[1].doubts


def test_cases_with_the_same_voxels_are_named(two_scans, tiny_config, tmp_path, caplog):
    for part in ("imagesTr", "labelsTr"):
        _change(two_scans, part, lambda voxels: voxels)  # written anew, without the header's text
        same = next((two_scans / part).glob("phantom_001*"))
        shutil.copy(same, str(same).replace("001", "003"))
        shutil.copy(same, str(same).replace("001", "004"))
    _change(two_scans, "imagesTr", lambda voxels: voxels.astype(np.int32), 4)  # equal voxels, another file
    prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    (record,) = caplog.records
    assert record.getMessage().startswith("phantom_001 and phantom_003 and phantom_004 hold the same voxels")
