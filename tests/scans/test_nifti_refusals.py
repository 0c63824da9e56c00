"""NIfTI files that are damaged, or are no scans: what is refused, and how it is said."""

import gzip
import struct

import hypothesis
import nibabel as nib
import numpy as np
import pytest
from hypothesis import strategies as st

from liverjax.errors import InputError
from liverjax.scans import nifti
from tests.scans.nifti_files import (
    AFFINE,
    BITPIX,
    DATATYPE,
    DIM,
    INTER,
    MAGIC,
    PIXDIM,
    QFORM_CODE,
    QUATERN_B,
    SFORM_CODE,
    SLOPE,
    SROW_X,
    UNITS,
    VOX_OFFSET,
    patched,
    voxels_of,
    zipped,
)


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
