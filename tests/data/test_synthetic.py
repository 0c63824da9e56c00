"""Synthetic tumours: where they lie, what they change, that they are reproducible, and that only training sees them."""

import numpy as np
import pytest

from liverjax.config import override
from liverjax.data.splits import split_cases, validated_on_real
from liverjax.data.store import open_store, prepare
from liverjax.data.synthetic import add_tumors, generator, vessels
from liverjax.errors import ConfigError, InputError
from liverjax.objects import components
from liverjax.views import VIEWS, from_stack

SPACING = np.array([2.0, 2.0, 2.5])


def _liver(noise=5.0):
    """A ball of liver of 100 HU in fat of -80 HU, with a bright tube along z."""
    x, y, z = np.meshgrid(
        *(np.arange(n) * s for n, s in zip((60, 60, 48), SPACING, strict=True)), indexing="ij"
    )
    labels = ((x - 60) ** 2 + (y - 60) ** 2 + (z - 60) ** 2 < 45**2).astype(np.uint8)
    tube = (x - 50) ** 2 + (y - 60) ** 2 < 5**2
    image = np.where(labels, np.where(tube, 170.0, 100.0), -80.0)
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return image.astype(np.float32), labels, tube & (labels > 0)


def test_vessels_are_found_and_the_border_of_the_liver_is_none():
    image, labels, tube = _liver()
    found = vessels(image, labels > 0, SPACING)
    assert found[tube].mean() > 0.9
    assert found[(labels > 0) & ~tube].mean() < 0.2
    assert not vessels(image, np.zeros_like(labels, bool), SPACING).any()


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_lesions_lie_in_the_liver_away_from_vessels_and_differ_from_it(modality):
    image, labels, tube = _liver()
    diameters, found = (8.0, 16.0), 0
    for copy in range(1, 7):
        random = generator(0, "case", copy)
        new, marked = add_tumors(image, labels, SPACING, random, modality=modality, diameters_mm=diameters)
        assert new.dtype == np.float32 and marked.dtype == np.uint8
        tumor = marked == 2
        np.testing.assert_array_equal(marked > 0, labels > 0)
        np.testing.assert_array_equal(new[labels == 0], image[labels == 0])
        assert (tumor & tube).sum() <= 0.02 * tube.sum()
        ids = components.label(tumor)
        for lesion in components.lesions(ids, SPACING):
            found += 1
            # Distorted, and of the drawn volume within what the distortion and the voxels allow.
            assert 0.5 * diameters[0] < lesion.diameter_mm < 1.4 * diameters[1]
            core = ids == lesion.id
            assert abs(new[core].mean() - image[core].mean()) > 8
    assert found >= 8


def test_a_copy_is_a_function_of_seed_case_and_number():
    image, labels, _ = _liver()

    def made(*which):
        return add_tumors(image, labels, SPACING, generator(*which), modality="ct", diameters_mm=(6.0, 15.0))[
            0
        ]

    first = made(0, "a", 1)
    np.testing.assert_array_equal(first, made(0, "a", 1))
    for other in ((1, "a", 1), (0, "b", 1), (0, "a", 2)):
        assert (first != made(*other)).any()


BOXES = ("target.region=reference", "target.labels=background,tumor", "target.margin_mm=24")


def test_copies_of_healthy_scans_are_stored_and_train_alone(some_scans, tiny_config, tmp_path, contents):
    scans = some_scans((1, 2, 3))  # phantom_003 has no tumour
    plain = override(tiny_config, BOXES)
    config = override(plain, ("target.synthetic=2", "target.synthetic_mm=20,40"))
    store = prepare(scans, tmp_path / "store", config, quiet=True)
    before = contents(tmp_path / "store")
    assert [case.id for case in store.cases[3:]] == ["phantom_003_synthetic1", "phantom_003_synthetic2"]
    assert [case.synthetic for case in store.cases] == [False, False, False, True, True]
    real, first, second = store.cases[2:]
    assert not real.lesions_mm3 and first.lesions_mm3 and first.patient == real.patient
    volumes = [from_stack(np.asarray(first.image(view)), view) for view in VIEWS]
    for volume in volumes[1:]:  # The views show the same lesions.
        np.testing.assert_array_equal(volume, volumes[0])
    assert (np.asarray(first.image("axial")) != np.asarray(second.image("axial"))).any()
    # The same call keeps what is there, to the byte; of other lesions, it is another store.
    prepare(scans, tmp_path / "store", config, quiet=True)
    assert contents(tmp_path / "store") == before
    for other in ("target.synthetic=3", "target.synthetic_seed=1", "target.synthetic=0"):
        with pytest.raises(InputError, match=r"target.synthetic\w* .*; choose another folder"):
            prepare(scans, tmp_path / "store", override(config, (other,)), quiet=True)
    with pytest.raises(ConfigError, match="target.synthetic 2, now None"):
        open_store(tmp_path / "store", plain.preprocess, plain.target)
    # Patient 3 validates: with the scan itself, and none of its copies trains.
    split = override(config, ("split.test_cases=phantom_001", "split.validation=1")).split
    subsets = validated_on_real(split_cases(store.cases, split))
    assert [case.id for case in subsets.validation] == ["phantom_003"]
    assert [case.id for case in subsets.train] == ["phantom_002"]


def test_synthetic_tumours_of_a_whole_scan_are_refused_and_the_remedy_works(tiny_config):
    with pytest.raises(
        ConfigError, match="target.synthetic is 2, expected 0 to 100, and 0 in the whole scan"
    ):
        override(tiny_config, ("target.synthetic=2",))
    assert override(tiny_config, ("target.synthetic=2", *BOXES)).target.synthetic == 2
