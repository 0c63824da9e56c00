"""What several tests of scans use."""

import nibabel as nib
import pytest

from tests.scans.nifti_files import AFFINE, voxels_of


@pytest.fixture
def scan(tmp_path):
    """A sound file of int16 voxels."""
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of(), AFFINE), path)
    return path
