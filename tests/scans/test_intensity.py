"""Intensity windows: of a CT the one asked for, of an MR scan that of its body."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from liverjax.datasets.layouts import find_cases
from liverjax.options import Preprocess
from liverjax.scans import intensity, nifti


def test_the_window_of_a_ct_is_the_one_asked_for():
    voxels = np.array([-1024, -160, 40, 240, 3000], np.float32)
    window = intensity.intensity_window(voxels, Preprocess())
    assert window == (-160, 240)
    normalised = intensity.normalise(voxels, *window)
    assert normalised.dtype == np.float32
    assert normalised.tolist() == [-1, -1, 0, 1, 1]


def abdomen():
    """An MR-like image: dark noisy air, and a body that fills 48 % with intensities from 20 to 520."""
    rng = np.random.default_rng(0)
    voxels = rng.rayleigh(3, (40, 40, 20))
    voxels[8:32, 4:36] = rng.uniform(20, 520, (24, 32, 20))
    return voxels.astype(np.float32)


def test_the_window_of_an_mr_scan_is_of_its_body():
    low, high = intensity.intensity_window(abdomen(), Preprocess(modality="mr", percentiles=(1, 99)))
    # A quarter of the mean is (0.48 * 270 + 0.52 * 3.8) / 4 = 33; above it the body is uniform up to 520.
    assert low == pytest.approx(33 + 0.01 * 487, abs=3)
    assert high == pytest.approx(33 + 0.99 * 487, abs=3)


@hypothesis.given(scale=st.floats(1e-3, 1e3), offset=st.floats(-500, 500))
@hypothesis.settings(deadline=None, max_examples=25)
def test_scale_and_offset_of_an_mr_scan_do_not_matter(scale, offset):
    options = Preprocess(modality="mr")
    reference = intensity.normalise(abdomen(), *intensity.intensity_window(abdomen(), options))
    changed = ((abdomen().astype(np.float64) + offset) * scale).astype(np.float32)
    result = intensity.normalise(changed, *intensity.intensity_window(changed, options))
    assert np.abs(result - reference).max() < 5e-3


@pytest.mark.parametrize("value", [0, -5, 7.25])
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_constant_image_is_finite(value, modality):
    voxels = np.full((3, 3, 3), value, np.float32)
    low, high = intensity.intensity_window(voxels, Preprocess(modality=modality))
    normalised = intensity.normalise(voxels, low, high)
    assert np.isfinite(normalised).all()
    assert np.abs(normalised).max() <= 1
    if modality == "mr":
        assert (normalised == 0).all()


def test_real_livers_lie_inside_the_window(real_data):
    if not (real_data / "chaos_mr").is_dir():
        pytest.skip("chaos_mr is not among the real scans")
    for case in find_cases(real_data / "chaos_mr", labelled=True)[::4]:
        voxels = nifti.read(case.image).voxels
        window = intensity.intensity_window(voxels, Preprocess(modality="mr"))
        liver = intensity.normalise(voxels, *window)[case.read_mask().voxels > 0]
        assert -0.9 < np.median(liver) < 0.5
        assert (np.abs(liver) == 1).mean() < 0.05
