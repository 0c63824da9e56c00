"""Intensity windows: of a CT the one asked for, of an MR scan that of its body."""

import dataclasses

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
    assert window == (-160, 240, 1)
    normalised = intensity.normalise(voxels, *window)
    assert normalised.dtype == np.float32
    assert normalised.tolist() == [-1, -1, 0, 1, 1]


def test_gamma_is_of_mr_alone():
    voxels = np.array([-10, 0, 25, 100, 200], np.float32)
    # sqrt(1/4) = 1/2, which is the middle of -1 and 1; the ends stay, and what is beyond is clipped.
    assert intensity.normalise(voxels, 0, 100, 0.5).tolist() == [-1, -1, 0, 1, 1]
    for modality, gamma in (("ct", 1.0), ("mr", 0.5), ("any", 0.5)):
        options = Preprocess(modality=modality, gamma=0.5)
        assert intensity.intensity_window(abdomen(), intensity.for_scan(options, abdomen())).gamma == gamma
        if modality != "ct":
            quantiles = intensity.body_quantiles(abdomen())
            assert intensity.window_from_quantiles(quantiles, options).gamma == gamma


def abdomen():
    """An MR-like image: dark noisy air, and a body that fills 48 % with intensities from 20 to 520."""
    rng = np.random.default_rng(0)
    voxels = rng.rayleigh(3, (40, 40, 20))
    voxels[8:32, 4:36] = rng.uniform(20, 520, (24, 32, 20))
    return voxels.astype(np.float32)


def test_the_window_of_an_mr_scan_is_of_its_body():
    low, high, _ = intensity.intensity_window(abdomen(), Preprocess(modality="mr", percentiles=(1, 99)))
    # A quarter of the mean is (0.48 * 270 + 0.52 * 3.8) / 4 = 33; above it the body is uniform up to 520.
    assert low == pytest.approx(33 + 0.01 * 487, abs=3)
    assert high == pytest.approx(33 + 0.99 * 487, abs=3)


def test_the_window_of_ordinary_scans_is_that_of_the_plain_mean(real_data):
    """The limit for artefacts changes no bit of scans that have none."""
    scans = [abdomen()]
    for folder in ("chaos_mr", "mr_hbp"):
        scans += [
            nifti.read(path).voxels
            for path in sorted((real_data / folder / "imagesTr").glob("*.nii.gz"))[::5]
        ]
    for voxels in scans:
        darkest = float(voxels.min())
        body = voxels[voxels >= darkest + (voxels.mean(dtype=np.float64) - darkest) / 4]
        expected = np.percentile(body, (0.5, 99.5))
        assert intensity.intensity_window(voxels, Preprocess(modality="mr")) == (*expected, 1)


@pytest.mark.parametrize("artefact", [1e5, 1e9, 4e9])
def test_a_bright_artefact_does_not_move_the_window(artefact):
    options = Preprocess(modality="mr")
    voxels = abdomen()
    expected = intensity.intensity_window(voxels, options)
    voxels[0, 0, 0] = artefact
    np.testing.assert_allclose(intensity.intensity_window(voxels, options), expected, rtol=0.02)


@hypothesis.given(
    low=st.one_of(st.sampled_from([0, 0.5, 0.03, 1, 5, 12.3]), st.floats(0, 49)),
    high=st.one_of(st.sampled_from([100, 99.5, 99.97, 99, 95, 87.6]), st.floats(51, 100)),
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_quantiles_give_the_window_of_any_percentiles(low, high):
    options = Preprocess(modality="mr", percentiles=(low, high))
    expected = intensity.intensity_window(abdomen(), options)
    quantiles = intensity.body_quantiles(abdomen())
    for q, ours, exact in zip(
        (low, high), intensity.window_from_quantiles(quantiles, options)[:2], expected[:2], strict=True
    ):
        place = np.searchsorted(intensity.PERCENTILES, q)
        if q in intensity.PERCENTILES:
            assert ours == exact
        else:
            assert abs(ours - exact) <= quantiles[place] - quantiles[place - 1]


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
    window = intensity.intensity_window(voxels, Preprocess(modality=modality))
    normalised = intensity.normalise(voxels, *window)
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


def thorax_and_air():
    """A CT-like image in HU: air around a body of fat, soft tissue, lung and bone, int16."""
    rng = np.random.default_rng(0)
    voxels = rng.normal(-1000, 15, (64, 64, 40))
    for box, value in (((8, 56), -100), ((12, 52), 50), ((16, 24), -850), ((40, 44), 900)):
        part = voxels[box[0] : box[1], box[0] : box[1]]
        part[...] = rng.normal(value, 20, part.shape)
    return voxels.astype(np.int16)


AS_CT = {
    "hu": lambda hu: hu,
    "float64": lambda hu: hu.astype(np.float64),
    "clipped": lambda hu: hu.clip(-160, 240),
    "steps of 5": lambda hu: hu.clip(-160, 240) // 5 * 5,
    "padded": lambda hu: np.pad(hu, ((20, 20), (20, 20), (0, 0)), constant_values=-3024),
    "padded less": lambda hu: np.pad(hu, ((20, 20), (20, 20), (0, 0)), constant_values=-2000),
    "metal": lambda hu: np.where(np.arange(40) == 20, np.int16(30000), hu),
    "mirrored": lambda hu: hu[::-1, :, ::-1],
}
NOT_IN_HU = {
    "unsigned": (lambda hu: (hu + 1024).clip(0).astype(np.uint16), "values from 0 to "),
    "stored values": (lambda hu: np.where(hu < -1020, -2000, hu + 1024), "values from -2000 to "),
    "shifted twice": (lambda hu: hu - 1024, "0.0% within 0 to 100"),
    "unit": (lambda hu: (hu.clip(-1000, 1000) / 2000 + 0.5).astype(np.float32), "values from 0 to "),
    "bytes": (lambda hu: ((hu.clip(-160, 240) + 160) / 400 * 255).astype(np.uint8), "values from 0 to 255"),
    "wrapped": (lambda hu: hu.astype(np.uint16), "values from 0 to 655"),
}


@pytest.mark.parametrize("change", AS_CT)
def test_a_ct_in_hounsfield_units_is_one(change):
    voxels = AS_CT[change](thorax_and_air())
    assert intensity.doubts(voxels, "ct") == []
    (doubt,) = intensity.doubts(voxels, "mr")
    assert "as Hounsfield units have them" in doubt
    assert doubt.endswith("use a model for CT")


@pytest.mark.parametrize("change", [*AS_CT, *NOT_IN_HU])
def test_the_modality_of_any_scan_is_told_by_its_values(change):
    voxels = (AS_CT.get(change) or NOT_IN_HU[change][0])(thorax_and_air())
    options = Preprocess(modality="any", window=(-100, 200), percentiles=(1, 99))
    told = intensity.for_scan(options, voxels)
    assert told == dataclasses.replace(options, modality="ct" if change in AS_CT else "mr")
    assert intensity.doubts(voxels, told.modality) == []
    for fixed in ("ct", "mr"):
        assert intensity.for_scan(Preprocess(modality=fixed), voxels) == Preprocess(modality=fixed)


@pytest.mark.parametrize("change", NOT_IN_HU)
def test_a_ct_in_other_units_is_doubted(change):
    make, values = NOT_IN_HU[change]
    voxels = make(thorax_and_air())
    (doubt,) = intensity.doubts(voxels, "ct")
    assert values in doubt
    assert doubt.endswith("convert them to Hounsfield units, or use a model for MR")
    assert intensity.doubts(voxels, "mr") == []


def test_following_the_remedies_of_a_doubt_ends_it():
    unsigned = (thorax_and_air() + 1024).clip(0).astype(np.uint16)
    assert intensity.doubts(unsigned, "ct")
    assert intensity.doubts(unsigned.astype(np.float32) - 1024, "ct") == []
    assert intensity.doubts(abdomen(), "ct")
    assert intensity.doubts(abdomen(), "mr") == []


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_constants_and_masks_are_no_scans(modality):
    assert intensity.doubts(np.full((90, 90, 90), 40, np.int16), modality) == ["every voxel is 40"]
    mask = np.zeros((90, 90, 90), np.uint8)
    mask[20:60, 20:60] = 1
    mask[30:40, 30:40] = 2
    (doubt,) = intensity.doubts(mask, modality)
    assert doubt.startswith("next to nothing but the values 0, 1, 2, as in a mask")


@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    scale=st.sampled_from([0, 1e-6, 1, 1e9]),
    seed=st.integers(0, 99),
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_any_array_can_be_doubted(shape, scale, seed):
    voxels = np.random.default_rng(seed).normal(0, scale, shape)
    for values in (voxels, voxels.astype(np.int64), voxels.astype(np.float32).T):
        for modality in ("ct", "mr"):
            assert all("\n" not in doubt for doubt in intensity.doubts(values, modality))


@pytest.mark.parametrize(
    ("folder", "modality"), [("ct", "ct"), ("lits", "ct"), ("chaos_mr", "mr"), ("mr_hbp", "mr")]
)
def test_real_scans_are_doubted_as_the_other_modality_alone(real_data, folder, modality):
    if not (real_data / folder).is_dir():
        pytest.skip(f"{folder} is not among the real scans")
    other = {"ct": "mr", "mr": "ct"}[modality]
    for case in find_cases(real_data / folder, labelled=True):
        voxels = nifti.read(case.image).voxels
        assert intensity.doubts(voxels, modality) == [], case.image
        assert len(intensity.doubts(voxels, other)) == 1, case.image
        assert intensity.for_scan(Preprocess(modality="any"), voxels).modality == modality, case.image
        mask = nifti.read(case.label).voxels
        assert "as in a mask" in intensity.doubts(mask, modality)[0]
        if modality == "ct":
            unsigned = (voxels.astype(np.int32) + 1024).clip(0).astype(np.uint16)
            assert intensity.doubts(unsigned, "ct"), case.image
