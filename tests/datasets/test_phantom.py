"""Phantoms: one patient on every grid, exact volumes, and no threshold that finds the liver."""

import json
import math

import cc3d
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from liverjax.datasets.phantom import make_phantom, write_dataset
from liverjax.datasets.phantom.anatomy import Patient, Tumor
from liverjax.datasets.phantom.implicit import Waves, grid_points
from liverjax.errors import ConfigError, InputError

COARSE = {"shape": (64, 64, 48), "spacing": (6.0, 6.0, 6.0)}


def test_waves_on_a_grid_are_the_sum_of_plane_waves_at_its_points():
    rng = np.random.default_rng(0)
    waves = Waves(rng, (20, 90), 5)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4)) * 4
    field = waves.on_grid(affine, (4, 5, 6))
    point = affine[:3, :3] @ (3, 1, 5) + affine[:3, 3]
    expected = sum(
        np.exp(1j * (v @ point + phase)) for v, phase in zip(waves.vectors, waves.phases, strict=True)
    )
    np.testing.assert_allclose(field[3, 1, 5], expected * math.sqrt(2 / 5), rtol=1e-5)


def test_same_seed_same_voxels_other_seed_other_patient():
    first, again, other = (make_phantom(seed, **COARSE) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image.voxels, again.image.voxels)
    np.testing.assert_array_equal(first.label.voxels, again.label.voxels)
    assert first.truth == again.truth
    overlap = np.sum((first.label.voxels > 0) & (other.label.voxels > 0))
    assert overlap < 0.9 * np.sum(first.label.voxels > 0)


def test_image_and_mask_types_and_values():
    for modality in ("ct", "mr"):
        phantom = make_phantom(1, modality=modality, **COARSE)
        assert phantom.image.voxels.dtype == np.int16
        assert phantom.label.voxels.dtype == np.uint8
        assert set(np.unique(phantom.label.voxels)) <= {0, 1, 2}
        np.testing.assert_array_equal(phantom.image.affine, phantom.label.affine)


def test_ct_is_in_hounsfield_units():
    # Erosion keeps to the middle of the liver, away from edges that other tissues blur.
    phantom = make_phantom(2, **COARSE)
    liver = ndimage.binary_erosion(phantom.label.voxels == 1, iterations=2)
    assert 40 < np.median(phantom.image.voxels[liver]) < 130
    assert -1024 <= np.median(phantom.image.voxels[:2]) < -950


def test_both_modalities_show_one_patient_and_differ_only_in_the_image():
    ct, mr = (make_phantom(5, modality=modality, **COARSE) for modality in ("ct", "mr"))
    np.testing.assert_array_equal(ct.label.voxels, mr.label.voxels)
    assert ct.truth == mr.truth
    assert ct.image.voxels.min() < -900
    assert mr.image.voxels.min() >= 0


def test_twice_as_fine_a_grid_meets_the_same_patient_at_the_shared_points():
    coarse = make_phantom(6, shape=(33, 33, 25), spacing=(9, 9, 9))
    fine = make_phantom(6, shape=(65, 65, 49), spacing=(4.5, 4.5, 4.5))
    np.testing.assert_allclose(coarse.image.affine[:3, 3], fine.image.affine[:3, 3])
    different = fine.label.voxels[::2, ::2, ::2] != coarse.label.voxels
    # Points within rounding of a surface may fall on either side.
    assert different.mean() < 1e-4


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "PIL"])
def test_orientation_reorders_the_same_voxels(orientation):
    shape = np.array([40, 44, 30])
    axes = nib.orientations.axcodes2ornt(orientation)[:, 0].astype(int)
    reference = make_phantom(7, shape=tuple(shape), spacing=(9, 8, 10))
    spacing = np.array([9, 8, 10])[axes]
    turned = make_phantom(7, shape=tuple(shape[axes]), spacing=tuple(spacing), orientation=orientation)
    assert "".join(nib.aff2axcodes(turned.label.affine)) == orientation
    back = nib.as_closest_canonical(nib.Nifti1Image(turned.label.voxels, turned.label.affine))
    np.testing.assert_allclose(back.affine, reference.label.affine, atol=1e-9)
    assert (np.asarray(back.dataobj) != reference.label.voxels).mean() < 1e-4


def test_oblique_grid_places_the_liver_at_the_same_world_coordinates():
    def centroid_and_volume(label):
        index = np.argwhere(label.voxels > 0)
        world = index @ label.affine[:3, :3].T + label.affine[:3, 3]
        return world.mean(0), len(index) * abs(np.linalg.det(label.affine[:3, :3])) / 1000

    straight, volume = centroid_and_volume(make_phantom(8, **COARSE).label)
    oblique = make_phantom(8, shape=(80, 80, 60), spacing=(5, 4.6, 6), rotation=(10, -15, 20)).label
    turned, turned_volume = centroid_and_volume(oblique)
    assert not np.allclose(oblique.affine[0, 1], 0)
    np.testing.assert_allclose(turned, straight, atol=0.3)
    assert turned_volume == pytest.approx(volume, rel=0.005)


def test_liver_lies_on_the_right_below_the_lung():
    phantom = make_phantom(9, **COARSE)
    index = np.argwhere(phantom.label.voxels > 0)
    center = index.mean(0) @ phantom.label.affine[:3, :3].T + phantom.label.affine[:3, 3]
    assert center[0] > 20  # RAS+: x grows towards the patient's right
    x, y = index[:, :2].mean(0).astype(int)
    above = phantom.image.voxels[x, y, index[:, 2].max() + 4]
    assert above < -600


def test_a_tumor_has_the_volume_of_its_sphere_whatever_its_shape():
    # 20 mm: 4/3 pi 10^3 mm3 = 4.18879 ml, by hand; counted on a lattice of 0.25 mm.
    tensor = np.array([[0.3, 0.05, 0.1], [0.05, -0.2, 0.0], [0.1, 0.0, -0.1]])
    tumor = Tumor((0.0, 0.0, 0.0), 20.0, "hypodense", 1.0, (tensor, 0.8))
    assert tumor.volume == pytest.approx(4.18879, rel=1e-5)
    affine = np.diag([0.25, 0.25, 0.25, 1.0])
    affine[:3, 3] = -12.6
    inside = tumor.distance(grid_points(affine, (102, 102, 102))) < 0
    assert inside.sum() * 0.25**3 / 1000 == pytest.approx(4.18879, rel=1e-3)
    assert not inside[0].any() and not inside[:, -1].any() and not inside[..., 0].any()
    radii = np.linalg.norm(np.argwhere(inside) * 0.25 - 12.6, axis=1)
    assert radii.max() > 11  # it is no sphere


@pytest.mark.parametrize("seed", [8, 12])
def test_voxel_count_on_a_fine_grid_is_the_stated_volume(seed):
    # An oblique grid: nothing in common with the lattice on which the truth is counted.
    phantom = make_phantom(seed, shape=(160, 116, 124), spacing=(2.1, 2.1, 2.1), rotation=(7, 3, -5))
    mask = phantom.label.voxels
    assert not any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1))
    assert (mask > 0).sum() * 2.1**3 / 1000 == pytest.approx(phantom.truth.liver_ml, rel=1e-3)
    assert phantom.truth.tumor_ml > 20
    assert (mask == 2).sum() * 2.1**3 / 1000 == pytest.approx(phantom.truth.tumor_ml, rel=1e-2)


def test_tumors_lie_inside_the_liver_apart_from_each_other():
    for seed in (4, 6, 12):
        phantom = make_phantom(seed, shape=(112, 84, 88), spacing=(3, 3, 3))
        mask = phantom.label.voxels
        around = ndimage.binary_dilation(mask == 2, np.ones((3, 3, 3)))
        assert (mask[around] > 0).all()
        assert cc3d.connected_components(mask == 2, return_N=True)[1] == len(phantom.truth.tumors)
        for tumor in phantom.truth.tumors:
            index = np.linalg.solve(phantom.label.affine, [*tumor.center, 1])[:3]
            assert mask[tuple(np.round(index).astype(int))] == 2


def test_patients_vary():
    patients = [Patient(seed) for seed in range(10)]
    volumes = [p.liver_volume for p in patients]
    assert 900 < min(volumes) < 1450 < 1800 < max(volumes) < 2600
    assert {0, 1} < {len(p.tumors) for p in patients}
    diameters = [t.diameter for p in patients for t in p.tumors]
    assert min(diameters) < 15 and max(diameters) > 35
    kinds = [t.kind for p in patients for t in p.tumors]
    assert set(kinds) == {"hypodense", "hyperdense", "rim"}
    assert kinds.count("hypodense") > len(kinds) / 2


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def best_interval(image, liver):
    """Dice of the best of all intensity intervals between 100 percentiles, chosen with the reference."""
    edges = np.unique(np.percentile(image, np.linspace(30, 100, 101)))
    every = np.append(0, np.histogram(image, edges)[0].cumsum())
    true = np.append(0, np.histogram(image[liver], edges)[0].cumsum())
    chosen, hits = (counts[None, :] - counts[:, None] for counts in (every, true))
    return np.max(2 * hits / np.maximum(chosen + liver.sum(), 1))


def best_component(image, liver):
    """Dice of the best largest component over intervals between percentiles of the reference liver."""
    low, high = (np.percentile(image[liver], q) for q in ((1, 3, 7, 12, 20), (80, 90, 95, 98, 99.7)))
    masks = ((image >= a) & (image <= b) for a in low for b in high)
    return max(dice(cc3d.largest_k(mask, k=1, connectivity=6) > 0, liver) for mask in masks)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_no_threshold_finds_the_liver(modality):
    intervals, components = [], []
    for seed in range(6):
        phantom = make_phantom(seed, modality=modality, shape=(76, 56, 48), spacing=(5, 5, 5))
        liver = phantom.label.voxels > 0
        intervals.append(best_interval(phantom.image.voxels, liver))
        components.append(best_component(phantom.image.voxels, liver))
    assert max(intervals) < 0.8
    assert np.mean(components) < 0.8
    assert max(components) < 0.9


def test_noise_depends_on_the_grid_and_on_nothing_else():
    plain = make_phantom(1, **COARSE).image.voxels
    nudged = make_phantom(1, shape=COARSE["shape"], spacing=(6.0, 6.0, 6.002)).image.voxels
    # The grids differ by less than 0.05 mm, so that what differs is noise.
    assert np.std(plain.astype(float) - nudged) > 9


def test_dataset_is_what_outside_readers_expect(tmp_path):
    truths = write_dataset(
        tmp_path / "raw", [1, 12], spacing=(6, 6, 7), shape=(64, 60, 40), orientation="LPS"
    )
    assert list(truths) == ["phantom_001", "phantom_012"]
    files = sorted(str(p.relative_to(tmp_path / "raw")) for p in (tmp_path / "raw").rglob("*") if p.is_file())
    assert files == [
        "dataset.json",
        "imagesTr/phantom_001_0000.nii.gz",
        "imagesTr/phantom_012_0000.nii.gz",
        "labelsTr/phantom_001.nii.gz",
        "labelsTr/phantom_012.nii.gz",
    ]
    description = json.loads((tmp_path / "raw" / "dataset.json").read_text(encoding="utf-8"))
    assert description == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    phantom = make_phantom(12, spacing=(6, 6, 7), shape=(64, 60, 40), orientation="LPS")
    image = nib.load(tmp_path / "raw" / "imagesTr" / "phantom_012_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), phantom.image.voxels)
    np.testing.assert_allclose(image.affine, phantom.image.affine, atol=1e-4)
    label = sitk.ReadImage(str(tmp_path / "raw" / "labelsTr" / "phantom_012.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label).T, phantom.label.voxels)


def test_unknown_modality_and_orientation_are_refused():
    with pytest.raises(ConfigError, match="modality is 'mri'; did you mean 'mr'"):
        make_phantom(1, modality="mri")
    for wrong in ("RAR", "RA", "XYZ", ""):
        with pytest.raises(ConfigError, match="orientation is"):
            make_phantom(1, orientation=wrong)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/raw: phantoms cannot be written there \(Not a directory\)"):
        write_dataset(tmp_path / "file" / "raw", [1], **COARSE)
