"""What the tests of NIfTI files share: a small sound image, and ways to spoil it."""

import gzip
import struct

import numpy as np
import SimpleITK as sitk

AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.8, 0, -120], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
# Offsets of fields in a NIfTI-1 header, from nifti1.h.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTER, UNITS = 40, 70, 72, 76, 108, 112, 116, 123
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X, MAGIC = 252, 254, 256, 280, 344
# A turn about all three axes.
OBLIQUE = np.array(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5).GetMatrix()).reshape(3, 3)


def voxels_of(dtype=np.int16, shape=(5, 4, 3)):
    return (np.arange(np.prod(shape)).reshape(shape) % 101).astype(dtype)


def sitk_affine(image):
    """(4, 4) RAS affine of a SimpleITK image, whose own coordinates are LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine


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
