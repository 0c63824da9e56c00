"""Remedies of refusals to read a scan: the file is converted, or read, as the message says."""

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.errors import InputError, LiverjaxError, printable
from liverjax.scans import nifti, read
from liverjax.scans.grid import check_voxel_sizes
from tests.scans.dicom_series import add, image_of, write_series
from tests.scans.nifti_files import AFFINE, UNITS, patched, voxels_of


def test_header_and_voxels_in_two_files_are_put_into_one(tmp_path):
    nib.save(nib.Nifti1Pair(voxels_of(), AFFINE), tmp_path / "scan.img")
    for name in ("scan.img", "scan.hdr"):
        with pytest.raises(InputError, match="in two files, expected one .nii or .nii.gz file"):
            nifti.read(tmp_path / name)
    pair = nib.load(tmp_path / "scan.img")
    for name in ("scan.nii", "scan.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(pair.dataobj), pair.affine), tmp_path / name)
        assert np.array_equal(nifti.read(tmp_path / name).voxels, voxels_of())


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_voxels_of_another_type_are_converted(tmp_path, dtype):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of().astype(dtype), AFFINE, dtype=dtype), path)
    with pytest.raises(InputError, match="expected integers or floats of at most 64 bits"):
        nifti.read(path)
    for wanted in (np.int16, np.float64):
        nib.save(nib.Nifti1Image(voxels_of().astype(wanted), AFFINE), path)
        assert np.array_equal(nifti.read(path).voxels, voxels_of())


def test_a_phase_is_chosen_among_those_that_are_named(tmp_path):
    path = tmp_path / "scan.nii"
    voxels = np.stack([voxels_of(), voxels_of() + 1], axis=-1)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    for wrong in (None, 2, "late"):
        with pytest.raises(
            InputError, match="expected 0 to 1 or 'last'; choose with --phase, or phase in cases.json"
        ):
            read(path, phase=wrong)
    for right, index in ((0, 0), ("1", 1), ("last", 1)):
        assert np.array_equal(read(path, phase=right).voxels, voxels[..., index])


def test_a_wrong_unit_is_corrected_by_the_flag(tmp_path, capsys):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of(), np.diag([4.0, 4, 4, 1])), path)
    patched(path, (UNITS, "B", 1))
    with pytest.raises(InputError, match=r"or read it with the right spacing \(--spacing\)$"):
        check_voxel_sizes(read(path))
    main(["check", "-i", str(path), "--quiet"])
    assert "error (scan)" in capsys.readouterr().out
    main(["check", "-i", str(path), "--quiet", "--spacing=4,4,4"])
    assert "error (scan)" not in capsys.readouterr().out


def test_one_of_several_series_is_chosen_by_the_flag(tmp_path, capsys):
    image = image_of(np.eye(3))
    write_series(tmp_path / "a", image, **{"0020|0011": "3"})
    add(tmp_path / "a", image[:, :, :4] + 1000, **{"0020|0011": "5", "0020|000e": "1.2.3.4"})
    assert main(["check", "-i", str(tmp_path / "a"), "--quiet"]) == 1
    assert "none is chosen; expected --series=NUMBER|UID|largest, one of: number 3" in capsys.readouterr().out
    for choice, depth in (("3", 6), ("1.2.3.4", 4), ("largest", 6)):
        assert main(["check", "-i", str(tmp_path / "a"), "--quiet", f"--series={choice}"]) == 0
        assert read(tmp_path / "a", series=choice).shape[2] == depth


def test_every_message_is_one_line_whatever_it_quotes(tmp_path):
    path = tmp_path / "two\nlines\x1b[2J\udcff.nii"
    for refused in (lambda: read(path), lambda: nifti.read_mask(path)):
        with pytest.raises(LiverjaxError) as caught:
            refused()
        assert str(caught.value).isprintable()
        assert str(caught.value).startswith(printable(path)) and "two\\nlines\\x1b[2J\\udcff.nii" in str(
            caught.value
        )
