"""NIfTI files: what any reader finds in ours, what we find in others', and what is refused."""

import gzip
import itertools
import logging
import os
import struct

import hypothesis
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st

from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.scans.volume import Volume

AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.8, 0, -120], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
# Offsets of fields in a NIfTI-1 header, from nifti1.h.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTER, UNITS = 40, 70, 72, 76, 108, 112, 116, 123
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X, MAGIC = 252, 254, 256, 280, 344


def voxels_of(dtype=np.int16, shape=(5, 4, 3)):
    return (np.arange(np.prod(shape)).reshape(shape) % 101).astype(dtype)


def sitk_affine(image):
    """(4, 4) RAS affine of a SimpleITK image, whose own coordinates are LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.fixture
def scan(tmp_path):
    """A sound file of int16 voxels."""
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of(), AFFINE), path)
    return path


def patched(path, *changes):
    """Overwrites fields of a file, each given as (offset, struct format, values)."""
    data = bytearray(path.read_bytes())
    for offset, layout, *values in changes:
        struct.pack_into("<" + layout, data, offset, *values)
    path.write_bytes(data)
    return path


def zipped(path, data=None):
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes() if data is None else data))
    return target


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_reads_what_nibabel_wrote(tmp_path, suffix, image_class, order, dtype):
    path = tmp_path / f"scan{suffix}"
    image = image_class(voxels_of(dtype), AFFINE, image_class.header_class(endianness=order))
    image.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image.to_filename(path)

    volume = nifti.read(path)
    assert np.array_equal(volume.voxels, voxels_of(dtype))
    assert volume.voxels.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))  # native byte order
    assert np.array_equal(volume.affine, nib.load(path).affine)
    assert volume.affine.dtype == np.float64


def test_scales_to_float32(scan):
    patched(scan, (SLOPE, "f", 0.5), (INTER, "f", -1000.0))
    volume = nifti.read(scan)
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, voxels_of() * 0.5 - 1000)


def test_a_slope_of_zero_is_no_scaling(scan):
    patched(scan, (SLOPE, "f", 0.0), (INTER, "f", 7.0))
    volume = nifti.read(scan)
    assert np.array_equal(volume.voxels, voxels_of())
    assert volume.voxels.dtype == np.int16


def test_skips_extensions(tmp_path):
    image = nib.Nifti1Image(voxels_of(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark of forty bytes " * 4))
    nib.save(image, tmp_path / "scan.nii.gz")
    assert np.array_equal(nifti.read(tmp_path / "scan.nii.gz").voxels, voxels_of())


def test_reads_gzip_of_several_members(scan):
    data = scan.read_bytes()
    path = scan.with_name("scan.nii.gz")
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert np.array_equal(nifti.read(path).voxels, voxels_of())


def test_distances_in_metres_become_mm(scan):
    patched(scan, (UNITS, "B", 1))
    assert np.allclose(nifti.read(scan).affine[:3], AFFINE[:3] * 1000, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (1, 4, 3), (1, 1, 1), (5, 4, 3, 1)])
def test_flat_and_singleton_shapes(tmp_path, shape):
    nib.save(nib.Nifti1Image(voxels_of(shape=shape), AFFINE), tmp_path / "scan.nii")
    expected = voxels_of(shape=shape).reshape((*shape, 1)[:3])
    assert np.array_equal(nifti.read(tmp_path / "scan.nii").voxels, expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_phase_of_a_series(tmp_path, suffix):
    path = tmp_path / f"series{suffix}"
    nib.save(nib.Nifti1Image(voxels_of(shape=(5, 4, 3, 6)), AFFINE), path)
    for phase, index in ((0, 0), ("4", 4), ("last", 5)):
        volume = nifti.read(path, phase=phase)
        assert np.array_equal(volume.voxels, voxels_of(shape=(5, 4, 3, 6))[..., index])
    with pytest.raises(InputError, match=r"series.*holds 6 phases.*expected 0 to 5 or 'last'"):
        nifti.read(path)
    for wrong in (6, -1, "late", 1.5):
        with pytest.raises(InputError, match=f"phase {wrong} is chosen, expected 0 to 5"):
            nifti.read(path, phase=wrong)


def test_the_sform_comes_before_the_qform(tmp_path, caplog):
    image = nib.Nifti1Image(voxels_of(), AFFINE)
    other = AFFINE.copy()
    other[0, 3] += 0.09
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "close.nii")
    other[0, 3] += 0.02
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "apart.nii")

    with caplog.at_level(logging.WARNING, "liverjax"):
        nifti.read(tmp_path / "close.nii")
        assert not caplog.records
        volume = nifti.read(tmp_path / "apart.nii")
    assert "apart.nii: sform and qform lie up to 0.11 mm apart" in caplog.text
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)


def test_a_qform_alone(tmp_path):
    image = nib.Nifti1Image(voxels_of(), None)
    image.set_qform(AFFINE, code=1)
    nib.save(image, tmp_path / "scan.nii")
    assert np.allclose(nifti.read(tmp_path / "scan.nii").affine, AFFINE, atol=1e-5)


def test_missing_geometry_is_warned_of_and_can_be_stated(tmp_path, caplog):
    image = nib.Nifti1Image(voxels_of(), None)
    image.header.set_zooms((0.8, 0.9, 3))
    nib.save(image, tmp_path / "codes_zero.nii")
    nib.save(nib.Nifti1Image(voxels_of(), np.eye(4)), tmp_path / "identity.nii")
    for name, bare in (("codes_zero", [0.8, 0.9, 3, 1]), ("identity", [1, 1, 1, 1])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "liverjax"):
            volume = nifti.read(tmp_path / f"{name}.nii")
        assert f"{name}.nii: holds no geometry" in caplog.text
        assert np.allclose(volume.affine, np.diag(bare))
        stated = nifti.read(tmp_path / f"{name}.nii", spacing=(0.7, 0.7, 5))
        assert np.allclose(stated.affine, np.diag([0.7, 0.7, 5, 1]), rtol=1e-7)


def test_a_stated_spacing_keeps_directions_and_origin(scan):
    volume = nifti.read(scan, spacing=(1, 2, 3))
    assert np.allclose(volume.affine, [[-1, 0, 0, 90], [0, 2, 0, -120], [0, 0, 3, 30], [0, 0, 0, 1]])
    for wrong in ((1, 2), (1, 2, 0), (1, np.nan, 1)):
        with pytest.raises(InputError, match="expected three sizes in mm above 0"):
            nifti.read(scan, spacing=wrong)


# --- what is refused ----------------------------------------------------------------------------------------


def fails(path, message, **arguments):
    with pytest.raises(InputError) as caught:
        nifti.read(path, **arguments)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


def test_missing_and_unfit_files(tmp_path):
    fails(tmp_path / "none.nii.gz", "no such file")
    for name, message in (
        ("scan.hdr", "header and voxels in two files"),
        ("scan.img.gz", "header and voxels in two files"),
        ("scan.nrrd", "ends in .nii or .nii.gz"),
        ("empty.nii", "the file is empty"),
        ("empty.nii.gz", "the file is empty"),
        ("text.nii", "no NIfTI file"),
    ):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"Dear reader")
        fails(tmp_path / name, message)
    (tmp_path / "folder.nii").mkdir()
    fails(tmp_path / "folder.nii", "cannot be read")


def test_every_truncation_is_noticed(scan):
    data = scan.read_bytes()
    whole = gzip.compress(data)
    cut, packed = scan.with_name("cut.nii"), scan.with_name("cut.nii.gz")
    for length in (1, 3, 100, 347, 348, 352, 400, len(data) - 1):
        cut.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut.nii: "):
            nifti.read(cut)
    for length in range(1, len(whole)):
        packed.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut.nii.gz: "):
            nifti.read(packed)


def test_every_flipped_byte_of_a_gzip_file_is_noticed_or_harmless(scan):
    whole = bytearray(gzip.compress(scan.read_bytes(), mtime=0))
    packed = scan.with_name("flipped.nii.gz")
    accepted = []
    for position in range(len(whole)):
        damaged = whole.copy()
        damaged[position] ^= 0x10
        packed.write_bytes(damaged)
        try:
            volume = nifti.read(packed)
        except InputError as error:
            assert "flipped.nii.gz" in str(error)
        else:
            assert np.array_equal(volume.voxels, voxels_of())
            accepted.append(position)
    # Bytes 4 to 9 are the time, extra flags and system, under no checksum. In the data a few may have two
    # encodings, as when a run of zeros is copied from another place in it.
    assert set(accepted) >= {4, 5, 6, 7, 8, 9}
    assert len(accepted) < 12


def test_surplus_data(scan):
    data = scan.read_bytes()
    longer = scan.with_name("longer.nii")
    longer.write_bytes(data + b"\0")
    fails(longer, "holds more data than the voxels of shape (5, 4, 3)")
    packed = zipped(scan)
    packed.write_bytes(packed.read_bytes() + b"surplus")
    fails(packed, "the gzip stream is damaged")


def test_misnamed_compression(scan):
    plain = scan.with_name("plain.nii.gz")
    plain.write_bytes(scan.read_bytes())
    fails(plain, "holds plain data, expected a name that ends in .nii")
    packed = scan.with_name("packed.nii")
    packed.write_bytes(gzip.compress(scan.read_bytes()))
    fails(packed, "holds gzip data, expected a name that ends in .nii.gz")


def test_a_header_without_voxels(scan):
    packed = zipped(scan, scan.read_bytes()[:352])
    fails(packed, "ends after 0 bytes of voxels, expected 120")
    scan.write_bytes(scan.read_bytes()[:352])
    fails(scan, "more than a file of 352 bytes can hold")


def test_huge_declared_sizes_are_refused_before_memory_is_taken(scan):
    patched(scan, (DIM, "4h", 3, 32000, 32000, 32000))
    fails(scan, "6.55e+13 bytes")
    fails(zipped(scan), "6.55e+13 bytes")
    patched(scan, (DIM, "4h", 3, 1000, 1000, 1000))
    fails(scan, "can hold: it is truncated")
    fails(zipped(scan), "can hold: it is truncated")


def test_sizes_that_overflow_64_bits(tmp_path):
    header = nib.Nifti2Header()
    header["dim"][:4] = 3, 2**40, 2**40, 2**40
    header["vox_offset"] = 544
    (tmp_path / "scan.nii").write_bytes(header.binaryblock + bytes(100))
    fails(tmp_path / "scan.nii", "expected at most")


def test_a_gzip_bomb_is_not_unpacked(scan):
    bomb = zipped(scan, scan.read_bytes() + bytes(50_000_000))
    fails(bomb, "holds more data")
    patched(scan, (VOX_OFFSET, "f", 4e12))
    fails(zipped(scan), "expected at most")
    fails(zipped(scan), "bytes (dim", max_bytes=10**13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(DIM, "h", 9)], "dim[0] is 9"),
        ([(DIM, "h", 0)], "dim[0] is 0"),
        ([(DIM, "h", -3)], "dim[0] is -3"),
        ([(DIM + 4, "h", 0)], "dimensions [5, 0, 3]"),
        ([(DIM + 4, "h", -4)], "dimensions [5, -4, 3]"),
        ([(DIM, "6h", 5, 5, 4, 1, 1, 3)], "dimensions [5, 4, 1, 1, 3]"),
        ([(SLOPE, "f", np.nan)], "scl_slope is nan"),
        ([(SLOPE, "f", np.inf)], "scl_slope is inf"),
        ([(INTER, "f", np.nan)], "scl_inter nan"),
        ([(SLOPE, "f", 1e38)], "59 voxels hold no intensity"),
        ([(DATATYPE, "h", 32), (BITPIX, "h", 64)], "complex64"),
        ([(DATATYPE, "h", 1792), (BITPIX, "h", 128)], "complex128"),
        ([(DATATYPE, "h", 128), (BITPIX, "h", 24)], "voxels of type"),
        ([(DATATYPE, "h", 2304), (BITPIX, "h", 32)], "voxels of type"),
        ([(DATATYPE, "h", 1536), (BITPIX, "h", 128)], "voxels of type"),
        ([(DATATYPE, "h", 1), (BITPIX, "h", 1)], "voxels of type"),
        ([(DATATYPE, "h", 0)], "voxels of type"),
        ([(DATATYPE, "h", 77)], "voxels of type code 77"),
        ([(VOX_OFFSET, "f", 0)], "vox_offset is 0"),
        ([(VOX_OFFSET, "f", -352)], "vox_offset is -352"),
        ([(VOX_OFFSET, "f", np.nan)], "vox_offset is nan"),
        ([(VOX_OFFSET, "f", np.inf)], "vox_offset is inf"),
        ([(VOX_OFFSET, "f", 352.5)], "vox_offset is 352.5"),
        ([(UNITS, "B", 7)], "xyzt_units is 7"),
        ([(MAGIC, "4s", b"ni1")], "header of a file pair"),
        ([(MAGIC, "4s", b"nope")], "no NIfTI file (magic"),
        ([(SROW_X, "f", np.nan)], "expected three independent axes"),
        ([(SROW_X + 12, "f", np.inf)], "expected three independent axes"),
        ([(SROW_X, "4f", 0, 0, 0, 0)], "expected three independent axes"),
        ([(SROW_X, "4f", 0, 0.8, 0, 0)], "expected three independent axes"),
        ([(SROW_X + 8, "f", 0.1)], "is sheared by 2.3 degrees"),
        ([(SFORM_CODE, "h", 0), (QFORM_CODE, "h", 1), (QUATERN_B, "f", 3)], "its qform cannot be read"),
        ([(SFORM_CODE, "h", 0), (QFORM_CODE, "h", 0), (PIXDIM + 4, "f", 0)], "three independent axes"),
    ],
)
def test_headers_that_are_refused(scan, changes, message):
    patched(scan, *changes)
    fails(scan, message)
    fails(zipped(scan), message)


def test_cosines_rounded_to_two_decimals_pass(tmp_path):
    turned = np.eye(4)
    turned[:2, :2] = [[0.97, -0.26], [0.26, 0.97]]  # 15 degrees
    turned[2, 1] = 0.009
    nib.save(nib.Nifti1Image(voxels_of(), turned), tmp_path / "scan.nii")
    assert np.allclose(nifti.read(tmp_path / "scan.nii").affine, turned, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_voxels_that_are_no_intensities(tmp_path, value):
    for dtype in ("f4", "f8"):
        voxels = voxels_of(dtype)
        voxels[2, 1, 0] = value
        nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "scan.nii")
        fails(
            tmp_path / "scan.nii",
            f"1 voxels hold no intensity (the first, (2, 1, 0), is {np.float32(value):g})",
        )


@hypothesis.given(st.binary(max_size=700), st.booleans())
@hypothesis.settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_volume_or_an_input_error(tmp_path_factory, data, with_start):
    path = tmp_path_factory.mktemp("any") / "scan.nii"
    path.write_bytes((struct.pack("<i", 348) if with_start else b"") + data)
    with pytest.raises(InputError, match=r"scan\.nii"):
        nifti.read(path)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12),
)
@hypothesis.settings(max_examples=400, deadline=None)
def test_any_altered_header_gives_a_volume_or_an_input_error(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any") / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of(), AFFINE), path)
    patched(path, *((offset, "B", value) for offset, value in changes))
    try:
        volume = nifti.read(path, max_bytes=10**6)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert volume.voxels.nbytes <= 10**6
        assert np.isfinite(volume.affine).all()
        assert np.isfinite(volume.voxels).all()


# --- masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8", "f4", "f8"])
def test_masks_of_any_type_become_uint8(tmp_path, dtype):
    labels = (np.arange(60).reshape(5, 4, 3) % 3).astype(dtype)
    nib.save(nib.Nifti1Image(labels, AFFINE, dtype=dtype), tmp_path / "mask.nii.gz")
    mask = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert mask.voxels.dtype == np.uint8
    assert np.array_equal(mask.voxels, labels)


@pytest.mark.parametrize(
    ("dtype", "values", "shown"),
    [
        ("u1", [3], "label values 3 in 1 voxels, expected [0, 1, 2]"),
        ("i2", [-1, 256], "label values -1, 256 in 2 voxels"),  # 256 is 0 and -1 is 255 as uint8
        ("i4", [2**31 - 1], "label values 2.14748e+09 in 1 voxels"),
        ("f4", [0.7], "label values 0.7 in 1 voxels"),
        ("f4", [-1, 257, 4e9], "label values -1, 257, 4e+09 in 3 voxels"),
        ("u1", [9, 8, 7, 6, 5, 4], "label values 4, 5, 6, 7, 8, ... in 6 voxels"),
    ],
)
def test_values_outside_the_set_are_named(tmp_path, dtype, values, shown):
    labels = np.ones((5, 4, 3), dtype)
    labels.ravel()[: len(values)] = values
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "mask.nii")
    with pytest.raises(InputError) as caught:
        nifti.read_mask(tmp_path / "mask.nii")
    assert f"{tmp_path / 'mask.nii'}: {shown}" in str(caught.value)


def test_the_set_of_labels_can_be_chosen(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 2, np.uint8), AFFINE), tmp_path / "mask.nii")
    with pytest.raises(InputError, match=r"label values 2 in 8 voxels, expected \[0, 1\]"):
        nifti.read_mask(tmp_path / "mask.nii", labels=(0, 1))


# --- writing ------------------------------------------------------------------------------------------------


def orientations():
    """The 48 ways in which the axes of an image can run along those of the patient."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, order] * signs


OBLIQUE = np.array(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5).GetMatrix()).reshape(3, 3)


@pytest.mark.parametrize("source_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_both_readers_find_the_geometry_of_the_scan_in_its_mask(tmp_path, source_class, turn):
    for directions in orientations():
        affine = np.eye(4)
        affine[:3, :3] = turn @ directions * (0.7, 1.3, 4.1)
        affine[:3, 3] = 12.3, -45.6, 78.9
        nib.save(source_class(voxels_of(), affine), tmp_path / "scan.nii.gz")
        scan = nifti.read(tmp_path / "scan.nii.gz")
        labels = (voxels_of() % 3).astype(np.uint8)
        nifti.write(tmp_path / "mask.nii.gz", scan.with_voxels(labels))

        first, second = (nib.load(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert type(second) is source_class
        assert np.array_equal(first.affine, second.affine)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert first.header[field] == second.header[field]
        assert np.array_equal(first.get_qform(), second.get_qform())
        assert second.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(second.dataobj), labels)

        if source_class is nib.Nifti2Image:  # which SimpleITK does not read
            continue
        first, second = (sitk.ReadImage(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert first.GetDirection() == second.GetDirection()
        assert first.GetSpacing() == second.GetSpacing()
        assert first.GetOrigin() == second.GetOrigin()
        assert np.allclose(sitk_affine(second), scan.affine, atol=1e-3)
        assert np.array_equal(sitk.GetArrayFromImage(second), labels.T)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (2, 0), (1, 4)])
def test_codes_units_and_byte_order_of_the_scan(tmp_path, codes):
    image = nib.Nifti1Image(voxels_of(), AFFINE, nib.Nifti1Header(endianness=">"))
    image.set_qform(AFFINE, code=codes[0])
    image.set_sform(AFFINE, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii")
    nifti.write(tmp_path / "again.nii", nifti.read(tmp_path / "scan.nii"))
    first, second = nib.load(tmp_path / "scan.nii"), nib.load(tmp_path / "again.nii")
    assert np.array_equal(first.affine, second.affine)
    assert (second.header["qform_code"], second.header["sform_code"]) == codes
    assert second.header.get_xyzt_units() == ("mm", "sec")
    assert np.array_equal(np.asarray(second.dataobj), voxels_of())


def test_a_mask_of_a_phase_and_of_an_image_of_two_dimensions(tmp_path):
    for shape, expected in (((5, 4, 3, 6), (5, 4, 3)), ((5, 4, 3, 1), (5, 4, 3)), ((5, 4), (5, 4))):
        nib.save(nib.Nifti1Image(voxels_of(shape=shape), AFFINE), tmp_path / "scan.nii")
        scan = nifti.read(tmp_path / "scan.nii", phase="last")
        nifti.write(tmp_path / "mask.nii", scan.with_voxels(np.ones(scan.shape, np.uint8)))
        written = nib.load(tmp_path / "mask.nii")
        assert written.shape == expected
        assert np.array_equal(written.affine, nib.load(tmp_path / "scan.nii").affine)


def test_without_a_header_the_affine_goes_into_both_forms(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (1, 2, 3)
    nifti.write(tmp_path / "made.nii.gz", Volume(voxels_of(np.float32), affine))
    written = nib.load(tmp_path / "made.nii.gz")
    assert np.allclose(written.get_sform(), affine, atol=1e-6)
    assert np.allclose(written.get_qform(), affine, atol=1e-5)
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
    assert np.allclose(sitk_affine(sitk.ReadImage(tmp_path / "made.nii.gz")), affine, atol=1e-5)
    assert np.array_equal(nifti.read(tmp_path / "made.nii.gz").voxels, voxels_of(np.float32))


def test_long_axes_are_written_as_nifti_2(tmp_path):
    nifti.write(tmp_path / "long.nii", Volume(np.ones((40000, 1, 1), np.uint8), np.diag([2.0, 1, 1, 1])))
    assert nifti.read(tmp_path / "long.nii").shape == (40000, 1, 1)


def test_types_on_disk(tmp_path):
    path = tmp_path / "x.nii"
    for voxels, dtype, stored in (
        (np.ones((2, 2, 2), bool), None, "u1"),
        (np.ones((2, 2, 2), np.float16), None, "f4"),
        (np.ones((2, 2, 2), np.int64), np.uint8, "u1"),
        (np.full((2, 2, 2), 0.25), np.float32, "f4"),
    ):
        nifti.write(path, Volume(voxels, np.eye(4)), dtype=dtype)
        assert nib.load(path).get_data_dtype() == stored
        assert np.array_equal(nib.load(path).get_fdata(), voxels)
    for voxels in (np.full((2, 2, 2), 256), np.full((2, 2, 2), 0.5), np.full((2, 2, 2), -1)):
        with pytest.raises(ValueError, match="do not fit into uint8"):
            nifti.write(path, Volume(voxels, np.eye(4)), dtype=np.uint8)
    with pytest.raises(ValueError, match="complex128"):
        nifti.write(path, Volume(np.ones((2, 2, 2), complex), np.eye(4)))


def test_equal_volumes_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write(tmp_path / name, Volume(voxels_of(), AFFINE))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_names_that_are_hard(tmp_path):
    folder = tmp_path / "Größe & Ort" / "肝臓 ü"
    folder.mkdir(parents=True)
    for name in (f"{'n' * 247}.nii.gz", "Fall 1 (spät).nii.gz", "a.b.c.nii"):
        nifti.write(folder / name, Volume(voxels_of(), AFFINE))
        assert np.array_equal(nifti.read(folder / name).voxels, voxels_of())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "mask.nii.gz"
    nifti.write(path, Volume(voxels_of(), AFFINE))
    before = path.read_bytes()

    class Breaking(np.ndarray):
        def tobytes(self, order=None):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"mask\.nii\.gz: cannot be written \(No space left on device\)"):
        nifti.write(path, Volume(voxels_of().view(Breaking), AFFINE))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mask.nii.gz"]
    with pytest.raises(InputError, match=r"expected a name that ends in \.nii or \.nii\.gz"):
        nifti.write(tmp_path / "mask.png", Volume(voxels_of(), AFFINE))


# --- one geometry -------------------------------------------------------------------------------------------


def test_float32_rounding_is_one_geometry_and_a_tenth_of_a_voxel_is_not():
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (0.5, 0.5, 0.8)
    affine[:3, 3] = -301.234567, 512.345678, -1033.456789
    scan = Volume(np.zeros((512, 512, 400), np.uint8), affine, name="scan.nii")
    nifti.require_same_geometry(scan, Volume(scan.voxels, affine.astype(np.float32).astype(float)))

    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, 0] * 0.1
    with pytest.raises(InputError, match=r"scan\.nii and mask\.nii lie up to 0\.05 mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, shifted, name="mask.nii"))
    spread = affine.copy()
    spread[:3, 0] *= 1.0005  # same first corner: 511 * 0.5 mm * 0.0005
    with pytest.raises(InputError, match=r"lie up to 0\.128 mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, spread))
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    with pytest.raises(InputError, match="mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, flipped))
    with pytest.raises(
        InputError, match=r"scan\.nii has shape \(512, 512, 400\) but other has \(512, 512, 399\)"
    ):
        nifti.require_same_geometry(scan, Volume(scan.voxels[..., 1:], affine, name="other"))
    with pytest.raises(InputError, match="mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, affine * np.nan))


def test_real_scans_and_their_masks(real_data):
    for scan, mask in (
        ("lits/volume-1.nii.gz", "lits/segmentation-1.nii.gz"),
        ("chaos_mr/imagesTr/mr21_0000.nii.gz", "chaos_mr/labelsTr/mr21.nii.gz"),
    ):
        volume, labels = nifti.read(real_data / scan), nifti.read_mask(real_data / mask)
        nifti.require_same_geometry(volume, labels)
        reference = nib.load(real_data / scan)
        assert np.array_equal(volume.voxels, np.asarray(reference.dataobj))
        assert np.array_equal(volume.affine, reference.affine)
