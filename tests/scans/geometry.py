"""What the tests of grids share: affines in every orientation, and where their voxels lie."""

import itertools

import numpy as np
import SimpleITK as sitk

from liverjax.scans.grid import Grid

OBLIQUE = np.array(sitk.Euler3DTransform((0, 0, 0), 0.25, -0.15, 0.3).GetMatrix()).reshape(3, 3)


def orientations():
    """The 48 ways in which the axes of an image can run along those of the patient."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, order] * signs


def make_affine(directions=OBLIQUE, spacing=(0.8, 1.1, 4.3), origin=(-40.0, 25.5, 310.25)):
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = origin
    return affine


def world(affine, shape):
    """(x, y, z, 3) world coordinates of voxel centres, in mm."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return indices @ affine[:3, :3].T + affine[:3, 3]


def grid_of(volume):
    return Grid(volume.shape, volume.affine)
