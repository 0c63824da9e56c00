"""Augmentation: keys, ranges, and labels that go with their images."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.data.augment import AIR, augment, draw_keys, normalise, step_keys
from liverjax.data.store import OUTSIDE
from liverjax.options import Augment
from liverjax.scans import intensity

OFF = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment) if field.name != "own"})
#: All on at once.
FULL = Augment(
    flip=0.5, elastic=6.0, blur=1.5, low_resolution=1.5, bias_field=0.5, curve=1.0, random_network=1.0
)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    labels = np.zeros((4, 32, 40), np.uint8)
    labels[:, 8:20, 10:30] = 1
    images = np.where(labels, 0.5, -0.5)[..., None] + 0.1 * random.standard_normal((4, 32, 40, 1))
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels)


@pytest.mark.parametrize(
    "window",
    [(-160, 240, 1), (-31_999.5, 32_000, 0.35), (0.25, 0.75, 1), (40, 40, 0.5), (-32_000, -32_000, 2)],
)
def test_the_device_normalises_as_prediction_does(window):
    stored = np.arange(-32_000, 32_001, dtype=np.int16).reshape(1, 1, -1)
    expected = intensity.normalise(stored, *window)
    windows = np.float32([window])
    found = jax.jit(normalise)(stored, windows)
    assert found.dtype == jnp.float32
    # At the lower end a power below 1 makes much of the last bit.
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6 if window[2] == 1 else 1e-4)
    assert (normalise(np.full((1, 2, 3), OUTSIDE, np.int16), windows) == AIR).all()


def test_everything_off_changes_nothing(batch):
    images, labels = augment(jax.random.key(0), *batch, OFF)
    np.testing.assert_allclose(images, np.clip(batch[0], -1, 1), atol=1e-6)
    np.testing.assert_array_equal(labels, batch[1])


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Augment) if field.name != "own"])
def test_each_range_has_an_influence(batch, name):
    options = dataclasses.replace(OFF, **{name: getattr(FULL, name)})
    images, labels = augment(jax.random.key(1), *batch, options)
    assert np.abs(images - batch[0]).max() > 1e-3
    geometric = name in ("rotation", "scale", "shift", "flip", "elastic")
    assert (labels != batch[1]).any() == geometric


def test_a_row_depends_on_its_place_and_not_on_its_neighbours(batch):
    images, _ = augment(jax.random.key(3), *batch, FULL)
    alone, _ = augment(jax.random.key(3), batch[0][:2], batch[1][:2], FULL)
    # XLA sums the mean of a body in another order where it computes fewer rows at once.
    np.testing.assert_allclose(images[:2], alone, atol=1e-5)
    exact = dataclasses.replace(FULL, random_network=0.0)
    alone, _ = augment(jax.random.key(3), batch[0][:2], batch[1][:2], exact)
    np.testing.assert_array_equal(augment(jax.random.key(3), *batch, exact)[0][:2], alone)
    same = jnp.broadcast_to(batch[0][:1], batch[0].shape)
    images, _ = augment(jax.random.key(3), same, batch[1], FULL)
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_no_two_keys_of_a_run_are_equal():
    run, rows = jax.random.key(7), 3
    keys = [run]
    for step in range(3):
        augmentation, dropout = step_keys(run, step)
        keys += [jax.random.fold_in(run, step), augmentation, dropout, *jax.random.split(dropout)]
        for row in range(rows):
            of_row = jax.random.fold_in(augmentation, row)
            drawn = draw_keys(of_row)
            assert len(drawn) == 19
            keys += [of_row, *drawn.values()]
    assert (
        len({tuple(jax.random.key_data(key).tolist()) for key in keys})
        == len(keys)
        == 1 + 3 * (5 + rows * 20)
    )


def test_the_draws_of_the_default_ranges_are_those_of_earlier_versions():
    """A run that goes on with another version must see the slices that it would have seen."""
    key = jax.random.key(11)
    affine, intensity_key = jax.random.split(key)
    expected = [*jax.random.split(affine, 3), *jax.random.split(intensity_key, 5)]
    names = ("rotation", "scale", "shift", "contrast", "brightness", "gamma", "noise_level", "noise")
    for name, there in zip(names, expected, strict=True):
        np.testing.assert_array_equal(*map(jax.random.key_data, (draw_keys(key)[name], there)))


def test_what_is_drawn_for_one_change_tells_nothing_of_another():
    """The draws of 500 slices, read off their images: none of the changes follows another, nor itself inverted."""
    image = jnp.full((500, 4, 4, 1), 0.3)
    labels = jnp.zeros((500, 4, 4), jnp.uint8)
    drawn = {}
    for name in ("contrast", "brightness", "gamma", "bias_field", "noise"):
        options = dataclasses.replace(OFF, **{name: 0.2})
        images, _ = jax.jit(augment, static_argnums=3)(jax.random.key(0), image, labels, options)
        drawn[name] = np.asarray(images)[:, 1, 1, 0] - 0.3
    for first, second in itertools.combinations(drawn, 2):
        # By chance a correlation of 500 pairs reaches 5 / sqrt(500) in one of a million.
        assert abs(np.corrcoef(drawn[first], drawn[second])[0, 1]) < 5 / 500**0.5, (first, second)


def test_a_rotation_keeps_distances_and_right_angles():
    # Two discs 22 pixels from the centre, at a right angle: labels 1 (down) and 2 (to the right).
    rows, columns = np.mgrid[:65, :65] - 32
    labels = ((rows - 22) ** 2 + columns**2 <= 25) + 2 * (rows**2 + (columns - 22) ** 2 <= 25)
    labels = jnp.broadcast_to(jnp.asarray(labels, jnp.uint8), (16, 65, 65))
    images = jnp.where(labels == 1, 1.0, -1.0)[..., None]
    options = dataclasses.replace(OFF, rotation=90.0)
    images, moved = augment(jax.random.key(4), images, labels, options)
    angles = []
    for label, image in zip(np.asarray(moved), np.asarray(images[..., 0]), strict=True):
        down, right = (np.argwhere(label == value).mean(0) - 32 for value in (1, 2))
        for place in (down, right):
            assert np.hypot(*place) == pytest.approx(22, abs=0.4)
        assert abs(down @ right) < 22 * 0.5  # at most half a pixel from the right angle
        # Turned, not mirrored, and still discs of radius 5.
        assert down[0] * right[1] - down[1] * right[0] == pytest.approx(22**2, rel=0.05)
        for value in (1, 2):
            assert (label == value).sum() == pytest.approx(81, abs=6)
            assert np.argwhere(label == value).std(0) == pytest.approx(2.5, abs=0.2)
        weight = (image + 1) / 2
        centre = [(weight * place).sum() / weight.sum() for place in (rows, columns)]
        assert np.hypot(*(centre - down)) < 0.5
        angles.append(np.degrees(np.arctan2(-down[1], down[0])))
    # 16 draws within 90 degrees either way: half of the range is left out with a probability of 2 ** -16.
    assert min(angles) < 0 < max(angles) and 45 < np.abs(angles).max() < 91


def test_labels_move_with_the_image(batch):
    # An image that is its own label: after any affine map, linear and nearest sampling agree off the borders.
    labels = batch[1]
    options = dataclasses.replace(OFF, rotation=30.0, scale=0.3, shift=5.0)
    images, moved = augment(jax.random.key(1), 2.0 * labels[..., None] - 1, labels, options)
    images = (np.asarray(images[..., 0]) + 1) / 2
    certain = (images < 0.01) | (images > 0.99)
    assert certain.mean() > 0.7
    np.testing.assert_array_equal(np.asarray(moved)[certain], images[certain] > 0.5)


def test_what_comes_from_outside_is_air_and_background(batch):
    options = dataclasses.replace(OFF, shift=30.0)
    images, labels = augment(jax.random.key(2), jnp.ones_like(batch[0]), jnp.ones_like(batch[1]), options)
    outside = np.asarray(images[..., 0]) == AIR
    assert outside.any()
    assert not np.asarray(labels)[outside].any()


def test_intensities_stay_in_the_window(batch):
    images, _ = augment(jax.random.key(5), *batch, FULL)
    assert images.min() >= -1 and images.max() <= 1


def test_a_certain_flip_mirrors_both_axes_and_leaves_values(batch):
    images, labels = augment(jax.random.key(0), *batch, dataclasses.replace(OFF, flip=1.0))
    np.testing.assert_array_equal(images, np.clip(batch[0], -1, 1)[:, ::-1, ::-1])
    np.testing.assert_array_equal(labels, batch[1][:, ::-1, ::-1])


@pytest.mark.parametrize("name", ["blur", "low_resolution"])
def test_smoothing_keeps_a_constant_and_lessens_noise(name):
    options = dataclasses.replace(OFF, **{name: 2.0})
    labels = jnp.zeros((4, 64, 64), jnp.uint8)
    images, _ = augment(jax.random.key(0), jnp.full((4, 64, 64, 1), 0.25), labels, options)
    np.testing.assert_allclose(images, 0.25, atol=1e-5)
    noise = 0.2 * jax.random.normal(jax.random.key(1), (4, 64, 64, 1))
    images, _ = augment(jax.random.key(0), noise, labels, options)
    assert (jnp.abs(jnp.diff(images, axis=1)).mean() < 0.8 * jnp.abs(jnp.diff(noise, axis=1)).mean()).all()


def test_a_bias_field_is_smooth_and_within_its_range():
    options = dataclasses.replace(OFF, bias_field=0.4)
    images, _ = augment(
        jax.random.key(0), jnp.full((2, 96, 96, 1), -0.5), jnp.zeros((2, 96, 96), jnp.uint8), options
    )
    logarithm = np.log((np.asarray(images) + 1) / 0.5)
    assert np.abs(logarithm).max() <= 0.4 + 1e-5 and np.ptp(logarithm) > 0.01
    # The slope of a uniform cubic B-spline is at most the largest step of its control values, 0.8 per 128 pixels.
    assert np.abs(np.diff(logarithm, axis=1)).max() <= 0.8 / 128 + 1e-5


def test_noise_is_white_and_normal():
    # An odd number of rows.
    options = dataclasses.replace(OFF, noise=0.05)
    images, _ = augment(
        jax.random.key(0), jnp.zeros((3, 301, 256, 1)), jnp.zeros((3, 301, 256), jnp.uint8), options
    )
    several = np.asarray(images[..., 0], np.float64)
    for noise in several:
        level = noise.std()
        assert 0 < level <= 0.05 and abs(noise.mean()) < 4 * level / noise.size**0.5
        # Of a normal deviate, 68.27 %, 95.45 % and 99.73 % lie within one, two and three standard deviations; by its
        # kurtosis of -0.15, 0.6 % less of the sum of eight bytes lie within one (Edgeworth's series).
        for multiple, share in ((1, 0.6766), (2, 0.9545), (3, 0.9973)):
            assert (np.abs(noise) < multiple * level).mean() == pytest.approx(share, abs=0.005)
    # No pixel tells of another at any distance, in the same image or another. By chance a correlation of n pairs
    # reaches 6 / sqrt(n) at one of 5e8 distances.
    waves = [np.fft.rfft2(noise / noise.std()) for noise in several]
    for first, second in itertools.combinations_with_replacement(range(3), 2):
        correlation = np.fft.irfft2(waves[first] * waves[second].conj(), several[0].shape) / several[0].size
        if first == second:
            assert correlation[0, 0] == pytest.approx(1, abs=0.01)
            correlation[0, 0] = 0
        assert np.abs(correlation).max() < 6 / several[0].size ** 0.5


@pytest.mark.parametrize("name", ["curve", "random_network"])
def test_another_contrast_keeps_air_and_edges(name):
    """Three organs in air: each becomes another grey, the same at each of its pixels, and air stays air."""
    organs = np.zeros((60, 60), int)
    organs[10:50, 10:50], organs[20:40, 12:28], organs[20:40, 32:48] = 1, 2, 3
    image = np.array([AIR, -0.4, 0.1, 0.6], np.float32)[organs][None, ..., None]
    options = dataclasses.replace(OFF, **{name: 1.0})
    fell = 0
    for seed in range(40):
        changed = np.asarray(
            augment(jax.random.key(seed), jnp.asarray(image), jnp.asarray(organs[None]), options)[0]
        )
        changed = changed[0, ..., 0]
        assert (changed[organs == 0] == AIR).all() and np.abs(changed).max() <= 1
        # Away from edges, which kernels of 3 x 3 pixels blur four times.
        inside = [changed[14:16, 14:46], changed[25:35, 17:23], changed[25:35, 37:43]]
        for organ in inside:
            assert np.ptp(organ) < 1e-5
        fell += inside[0].mean() > inside[2].mean()
    # Contrasts are inverted often: of fair coins, 5 or fewer of 40 fall so in one case of a million.
    assert 6 <= fell <= 34


def test_a_random_network_keeps_mean_and_deviation_of_the_body():
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 64, 64, 1)).astype(np.float32)
    labels = jnp.zeros((1, 64, 64), jnp.uint8)
    changed, _ = augment(
        jax.random.key(0), jnp.asarray(image), labels, dataclasses.replace(OFF, random_network=1.0)
    )
    assert float(changed.mean()) == pytest.approx(float(image.mean()), abs=0.02)
    # Mixed with the slice by a random share, the deviation is at most as large.
    assert 0.3 * image.std() < float(changed.std()) < 1.01 * image.std()
