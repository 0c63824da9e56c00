"""What can be a volume, and what cannot: voxels, affines, label ids."""

import dataclasses

import hypothesis
import nibabel as nib
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.errors import InputError
from liverjax.scans.grid import to_grid
from liverjax.volume import (
    LARGEST_INTENSITY,
    Volume,
    check_axes,
    check_voxels,
    label_voxels,
    require_volume,
)

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def refused(message, call, *arguments, **named):
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- voxels -------------------------------------------------------------------------------------------------


def reversed_in_memory():
    return np.ascontiguousarray(VOXELS[::-1])[::-1]


def read_only():
    voxels = VOXELS.copy()
    voxels.flags.writeable = False
    return voxels


@pytest.mark.parametrize(
    "voxels",
    [
        *(VOXELS.astype(t) for t in ("i1", "u1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f4")),
        np.asfortranarray(VOXELS),
        reversed_in_memory(),
        read_only(),
        np.ma.MaskedArray(VOXELS),
        np.ma.masked_less(VOXELS, -5),
        VOXELS.tolist(),
        nib.Nifti1Image(VOXELS, AFFINE).dataobj,
        VOXELS.view(np.memmap),
    ],
    ids=lambda voxels: getattr(getattr(voxels, "dtype", None), "str", type(voxels).__name__),
)
def test_sound_voxels_of_any_kind(voxels):
    volume = Volume(voxels, AFFINE)
    check_voxels(volume)
    assert isinstance(volume.voxels, np.ndarray) and volume.shape == (5, 4, 3)
    assert np.array_equal(to_grid(volume, (2, 3, 4)).voxels, VOXELS)
    assert not isinstance(volume.voxels, np.ma.MaskedArray)


def test_arrays_are_not_copied():
    affine = AFFINE.copy()
    volume = Volume(VOXELS, affine)
    assert volume.voxels is VOXELS and volume.affine is affine
    assert dataclasses.replace(volume, name="other").affine is affine


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (
            VOXELS[:, :, 0],
            "scan: voxels of shape (5, 4), expected three dimensions (x, y, z); voxels[..., None]",
        ),
        (
            VOXELS[..., None],
            "scan: voxels of shape (5, 4, 3, 1), expected three dimensions (x, y, z); choose one",
        ),
        (
            np.zeros((2, 2, 2, 2, 2)),
            "scan: voxels of shape (2, 2, 2, 2, 2), expected three dimensions (x, y, z)",
        ),
        (VOXELS[:0], "scan: voxels of shape (0, 4, 3), expected at least one along each axis"),
        (
            VOXELS.astype(complex),
            "scan: voxels of type complex128, expected integers or floats of at most 64 bits",
        ),
        (VOXELS.astype(object), "scan: voxels of type object"),
        (VOXELS.astype(str), "scan: voxels of type <U6"),
        (VOXELS.astype("M8[s]"), "scan: voxels of type datetime64[s]"),
        (VOXELS.astype(np.longdouble), "scan: voxels of type float128"),
        (nib.Nifti1Image(VOXELS, AFFINE), "scan: voxels of type Nifti1Image"),
        ("scan.nii", "scan: voxels of type str"),
        (None, "scan: voxels of type NoneType"),
        ([[[1, 2], [3]]], "scan: voxels of type list"),
        (np.ma.masked_less(VOXELS, 5), "scan: 5 voxels are masked, expected a value of each; give them one"),
    ],
)
def test_what_cannot_be_voxels(voxels, message):
    refused(message, Volume, voxels, AFFINE, name="scan")
    refused(message, Volume(VOXELS, AFFINE, name="scan").with_voxels, voxels)


def test_the_remedies_of_the_messages():
    flat, many, masked = VOXELS[:, :, 0], np.stack([VOXELS, VOXELS], -1), np.ma.masked_less(VOXELS, 5)
    assert Volume(flat[..., None], AFFINE).shape == (5, 4, 1)
    assert Volume(many[..., 0], AFFINE).shape == (5, 4, 3)
    assert Volume(masked.filled(-1024), AFFINE).voxels.min() == -1024
    image = nib.Nifti1Image(VOXELS, AFFINE)
    with pytest.raises(InputError, match=r"a Nifti1Image was given, .*: liverjax\.Volume\(voxels, affine\)"):
        require_volume(image)
    assert np.array_equal(require_volume(Volume(image.dataobj, image.affine)).voxels, VOXELS)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *((value, dtype) for value in (np.nan, np.inf, -np.inf) for dtype in ("f2", "f4", "f8", ">f4")),
        *((value, "f4") for value in (1e30, -1e30, 2.0**32 * (1 + 1e-7))),
        (9 * 10**18, "i8"),
        (-(2**63), "i8"),
        (2**64 - 1, "u8"),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_that_no_scanner_measures(value, dtype, order):
    voxels = np.array(VOXELS, dtype, order=order)
    voxels[1, 2, 0] = voxels[3, 0, 2] = value
    shown = str(np.array(value, dtype)[()])
    message = (
        f"scan: 2 voxels hold no intensity (the first, (1, 2, 0), is {shown}), expected finite numbers up to"
    )
    refused(message, check_voxels, Volume(voxels, AFFINE, name="scan"))
    refused(message, check_voxels, Volume(voxels[:, ::-1][:, ::-1], AFFINE, name="scan"))


def test_a_signalling_nan_is_one_too():
    voxels = VOXELS.astype(np.float32)
    voxels.view(np.uint32)[1, 2, 0] = 0x7F800001
    refused("1 voxels hold no intensity (the first, (1, 2, 0), is nan)", check_voxels, Volume(voxels, AFFINE))


@pytest.mark.parametrize("dtype", ["i8", "u8", "f4", "f8"])
def test_the_largest_intensity_is_one(dtype):
    check_voxels(Volume(np.full((2, 2, 2), LARGEST_INTENSITY).astype(dtype), AFFINE))


def test_a_volume_keeps_its_shape():
    volume = Volume(VOXELS, AFFINE, name="scan")
    refused("scan: voxels of shape (4, 4, 3), expected (5, 4, 3)", volume.with_voxels, VOXELS[1:])
    refused("scan: voxels of shape (4, 4, 3), expected (5, 4, 3)", volume.millilitres, VOXELS[1:])
    assert volume.millilitres(VOXELS > 29) == pytest.approx(30 * 24 / 1000)


# --- affines ------------------------------------------------------------------------------------------------


def changed(row, column, value):
    affine = AFFINE.copy()
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "scan: affine of shape (3, 3), expected (4, 4)"),
        (AFFINE[:3], "scan: affine of shape (3, 4), expected (4, 4)"),
        (2.0, "scan: affine of shape (), expected (4, 4)"),
        (None, "scan: affine of type NoneType, expected (4, 4) real numbers"),
        ([[1, 0], [0]], "scan: affine of type list, expected (4, 4) real numbers"),
        (AFFINE.astype(complex), "scan: affine of type complex128, expected (4, 4) real numbers"),
        (AFFINE.astype(str), "scan: affine of type <U32"),
        (AFFINE * np.nan, "scan: affine [[nan, nan, nan, nan], [nan,"),
        (changed(0, 3, np.inf), "expected three independent axes and finite numbers"),
        (np.zeros((4, 4)), "expected three independent axes and finite numbers"),
        (np.ones((4, 4)), "expected three independent axes and finite numbers"),
        (changed(0, 0, 0), "expected three independent axes and finite numbers"),
        (changed(0, 1, 0.5), "is sheared by 9.5 degrees, expected axes at right angles; resample it"),
        (changed(0, 0, 2e-308), "voxels of 2e-308 x 3 x 4 mm, expected 1e-06 to 1e+06 mm"),
        (changed(0, 0, 1e300), "voxels of 1e+300 x 3 x 4 mm, expected 1e-06 to 1e+06 mm"),
        (changed(0, 3, 1e12), "and an origin within 1e+09 mm"),
        (changed(3, 3, 2), "scan: the affine's last row is [0.0, 0.0, 0.0, 2.0], expected [0, 0, 0, 1]"),
        (AFFINE.T @ changed(3, 0, 1), "the affine's last row is"),
    ],
)
def test_what_cannot_be_an_affine(affine, message):
    refused(message, Volume, VOXELS, affine, name="scan")


@pytest.mark.parametrize(
    "affine",
    [
        AFFINE.tolist(),
        AFFINE.astype(np.float32),
        AFFINE.astype(int),
        np.asfortranarray(AFFINE),
        AFFINE.astype(">f8"),
    ],
)
def test_numbers_of_any_kind_are_an_affine(affine):
    volume = Volume(VOXELS, affine)
    assert volume.affine.dtype == np.float64 and np.array_equal(volume.affine, AFFINE)
    assert volume.spacing.tolist() == [2, 3, 4]


def test_a_sheared_volume_can_be_used_when_it_is_resampled():
    from nibabel.processing import resample_to_output

    sheared = nib.Nifti1Image(VOXELS.astype(np.float32), changed(0, 1, 0.5))
    with pytest.raises(InputError, match="resample it to such axes first"):
        Volume(sheared.dataobj, sheared.affine)
    resampled = resample_to_output(sheared)
    assert Volume(resampled.dataobj, resampled.affine).spacing.tolist() == [1, 1, 1]


@hypothesis.given(
    hnp.arrays(np.float64, (4, 4), elements=st.floats(width=64)), st.integers(0, 2), st.floats(-308, 308)
)
@hypothesis.settings(deadline=None)
def test_any_numbers_are_an_affine_or_refused_without_a_warning(affine, axis, exponent):
    affine[3] = 0, 0, 0, 1
    scaled = AFFINE.copy()
    scaled[axis, axis] = 10.0**exponent
    for given in (affine, scaled):
        try:
            check_axes(given, "scan")
        except InputError as error:
            assert str(error).startswith("scan: affine [[")
        else:
            sizes = np.linalg.norm(given[:3, :3], axis=0)
            assert sizes.min() >= 1e-6 and sizes.max() <= 1e6
            assert np.allclose(np.linalg.inv(given) @ given, np.eye(4), atol=1e-3)


# --- labels -------------------------------------------------------------------------------------------------


@hypothesis.given(
    hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 2)),
    st.sampled_from(["u1", "i1", "i4", "u8", "f2", "f4", "f8", ">f4"]),
    st.floats(-9e-4, 9e-4),
    st.permutations(range(3)),
)
@hypothesis.settings(deadline=None)
def test_labels_of_any_type_and_order_come_back_also_when_rounded(labels, dtype, error, order):
    stored = labels.astype(dtype) if dtype[-2] != "f" or dtype == "f2" else (labels + error).astype(dtype)
    given = Volume(np.asfortranarray(stored).transpose(order)[::-1], np.eye(4))
    found = label_voxels(given, range(3))
    assert found.dtype == np.uint8
    assert np.array_equal(found, labels.transpose(order)[::-1])


@pytest.mark.parametrize("value", [0.5, 1.0011, -0.0011, -1, 3, 255, 256, 1e9, np.nan, np.inf])
def test_no_value_between_labels_is_one(value):
    voxels = VOXELS % 2 + 0.0
    voxels[4, 3, 2] = value
    with pytest.raises(InputError) as caught:
        label_voxels(Volume(voxels, AFFINE, name="mask"), range(3))
    shown = {256: "256", 255: "255", 3: "3", -1: "-1", 1e9: "1000000000"}.get(value, str(value))
    assert str(caught.value) == f"mask: label values {shown} in 1 voxels, expected [0, 1, 2]"


def test_the_smallest_wrong_values_are_listed_of_many():
    voxels = np.arange(60_000, dtype=np.int32).reshape(30, 40, 50)[::-1]
    with pytest.raises(
        InputError, match=r"label values 3, 4, 5, 6, 7, \.\.\. in 59997 voxels, expected \[0, 1, 2\]"
    ):
        label_voxels(Volume(voxels, AFFINE), range(3))
