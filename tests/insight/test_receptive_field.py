"""Receptive fields, of networks for which they are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.errors import ConfigError
from liverjax.insight import receptive_field
from liverjax.insight.receptive_field import effective_field, seen_by, theoretical
from liverjax.insight.seen import Seen
from liverjax.models import UNet
from liverjax.scans.grid import Grid
from liverjax.volume import Volume

THREE_BOXES = np.outer([1, 3, 6, 7, 6, 3, 1], [1, 3, 6, 7, 6, 3, 1])


def scan(voxels, labels=None, spacing=(1.0, 2.0, 3.0), multiple=8):
    affine = np.diag([*spacing, 1.0])
    labels = np.ones(voxels.shape, np.uint8) if labels is None else labels
    probabilities = np.stack([labels == 0, labels == 1], -1).astype(np.float32)
    volume = Volume(voxels, affine)
    return Seen(volume, voxels, labels, probabilities, Grid(voxels.shape, affine), multiple, 1.0)


def test_three_boxes_are_exact(boxes):
    network, variables = boxes
    labels = np.zeros((24, 32, 16), np.uint8)
    labels[4:-4, 4:-4, 4:-4] = 1  # no path leaves the slice, whose padding would end it
    seen = scan(np.random.default_rng(0).uniform(0.1, 1, (24, 32, 16)).astype(np.float32), labels)
    for view, spacing in {"axial": (2, 1), "coronal": (3, 1), "sagittal": (3, 2)}.items():
        field = effective_field(network, variables, [seen], view, samples=12)
        assert theoretical(1) == field.theoretical == (7, 7)
        np.testing.assert_allclose(field.mean, 2 * THREE_BOXES, rtol=1e-6)
        # Above 4.55 % of 49 = 2.23: all but 1 and the products 1 * 1; the corners' 1, nothing else. 49 - 4 = 45.
        assert field.side == np.sqrt(45)
        assert field.spacing == spacing
        assert field.side_mm == pytest.approx(np.sqrt(45 * spacing[0] * spacing[1]))
    half = effective_field(network, variables, [seen], "axial", label=0, samples=4)
    assert half.side == 0 and half.reaching == 0  # its logit is always 0


def test_a_pooled_pixel_sees_its_window_whatever_its_phase(pooled):
    network, variables = pooled
    # Equal pixels share the gradient of a maximum: 1/4 each. By phase a pixel is first or second of its window, so
    # along an axis the offsets -1, 0, 1 are within it with 1/2, 1, 1/2.
    seen = scan(np.full((32, 32, 16), 0.5, np.float32))
    field = effective_field(network, variables, [seen], "axial", samples=400)
    middle = field.mean[len(field.mean) // 2 + np.arange(-1, 2)][:, len(field.mean) // 2 + np.arange(-1, 2)]
    np.testing.assert_allclose(middle, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]) / 4, atol=0.03)
    assert field.mean.sum() == pytest.approx(middle.sum(), rel=1e-6)
    assert middle[1, 1] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(("levels", "widths"), [(1, (7, 7)), (4, (94, 102))])
def test_widths_known_from_the_papers(levels, widths):
    assert theoretical(levels) == widths


@pytest.mark.parametrize("tap", ["", "encoder_0", "encoder_1", "encoder_2", "decoder_1"])
def test_the_theoretical_field_is_what_a_network_without_zeros_depends_on(tap):
    network = UNet(classes=2, features=(2, 2, 2), norm="none", dropout=0.0)
    variables = jax.tree.map(
        lambda a: np.abs(a) + 0.1, network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    )
    slices = np.full((8, 96, 96), 0.5, np.float32)
    stride = network.taps.get(tap, 1)
    places = np.array([(48 // stride + k % (8 // stride), 40 // stride) for k in range(8)])
    gradients = receptive_field._gradients(network, variables, slices, places, np.zeros(8, int), tap)
    for gradient, (row, _) in zip(np.asarray(gradients), places, strict=True):
        rows = np.flatnonzero(gradient.any(1))
        assert (rows[0], rows[-1]) == seen_by(3, int(row), int(row), tap)


def test_pixels_at_the_border_do_not_shrink_the_field(boxes):
    network, variables = boxes
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[0, 0] = 1  # the corner: three quarters of the field lie outside
    labels[4, 4] = 1
    seen = scan(np.full((8, 8, 8), 0.5, np.float32), labels)
    field = effective_field(network, variables, [seen], "axial", samples=40)
    # Zero padding cuts the paths that leave the slice, so that single samples differ; means by offset stay near.
    assert field.side == pytest.approx(np.sqrt(45), rel=0.05)


def test_same_seed_same_field_and_unknown_taps(boxes):
    network, variables = boxes
    seen = scan(np.random.default_rng(1).uniform(-1, 1, (16, 16, 8)).astype(np.float32))
    first, second = (effective_field(network, variables, [seen], "axial", samples=9, seed=3) for _ in "ab")
    assert np.array_equal(first.mean, second.mean) and first.samples == 9
    with pytest.raises(ConfigError, match="tap is 'encoder_7'; did you mean 'encoder_0'"):
        effective_field(network, variables, [seen], "axial", tap="encoder_7")
    assert effective_field(network, variables, [seen], "axial", tap="encoder_0", samples=3).samples == 3
