"""Maps of networks for which they are known in closed form, and whether they pass their sanity checks."""

import numpy as np
import pytest

from liverjax import insight
from liverjax.errors import ConfigError
from liverjax.insight import attribution, sanity
from liverjax.insight.attribution import grad_cam, gradient, integrated_gradients, occlusion
from liverjax.pretrained.load import load_model

THREE_BOXES = np.outer([1, 3, 6, 7, 6, 3, 1], [1, 3, 6, 7, 6, 3, 1])


def positive(rows=24, columns=32):
    return np.random.default_rng(0).uniform(0.1, 1, (rows, columns)).astype(np.float32)


def one_pixel(row=12, column=16, shape=(24, 32)):
    pixels = np.zeros(shape, bool)
    pixels[row, column] = True
    return pixels


def weights():
    """d y / d x of the logit 1 of the pixel (12, 16) of `boxes`: the field, and nothing elsewhere."""
    expected = np.zeros((24, 32))
    expected[9:16, 13:20] = 2 * THREE_BOXES
    return expected


def test_gradient_is_exact_and_adds_up_over_the_set(boxes):
    image = positive()
    np.testing.assert_allclose(gradient(*boxes, image, one_pixel(), 1).values, weights(), rtol=1e-5)
    two = one_pixel() | one_pixel(5, 5)
    both = gradient(*boxes, image, two, 1).values
    alone = gradient(*boxes, image, one_pixel(5, 5), 1).values
    np.testing.assert_allclose(both, weights() + alone, rtol=1e-5)


def test_smoothgrad_of_a_linear_network_is_its_gradient_and_needs_a_seed(boxes):
    # The noise is small enough that all stays positive.
    smooth = gradient(*boxes, positive() + 1, one_pixel(), 1, smooth=5, noise=0.01)
    np.testing.assert_allclose(smooth.values, weights(), rtol=1e-5)
    assert smooth.method == "SmoothGrad, 5 draws, noise 1%"
    noisy = [
        gradient(*boxes, positive(), one_pixel(), 1, smooth=3, noise=0.5, seed=s).values for s in (1, 1, 2)
    ]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])


@pytest.mark.parametrize("baseline", ["blurred", "mean"])
def test_integrated_gradients_of_a_linear_network_are_exact(boxes, baseline):
    image = positive()
    found = integrated_gradients(*boxes, image, one_pixel(), 1, baseline)
    expected = weights() * (image - attribution.baseline_of(image, baseline))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-3)
    assert found.error < 1e-4 and found.method.startswith(
        f"integrated gradients, baseline {baseline}, 16 steps"
    )


def test_integrated_gradients_from_air_meet_a_known_kink(pooled):
    # One 2x2 window of 0.5, below it y = max(x, 0): along the way from -1 to 0.5 the unit opens at x = 0, after 2/3.
    # Completeness: 0.5 in all, shared by four equal pixels: 1.5 * (1/3) * 1/4 = 1/8 each.
    image = np.full((8, 8), 0.5, np.float32)
    pixels = one_pixel(2, 4, (8, 8))
    found = integrated_gradients(*pooled, image, pixels, 1, "air")
    assert found.error <= 0.01
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = 1 / 8
    np.testing.assert_allclose(found.values, expected, atol=0.125 * 0.01)
    coarse = integrated_gradients(*pooled, image, pixels, 1, "air", most_steps=16)
    assert coarse.error > 0.01 and "16 steps, completeness error 3" in coarse.method  # said, not hidden


def test_occlusion_falls_by_the_weights_of_the_square(boxes):
    image = positive()
    other = attribution.baseline_of(image, "mean")
    found = occlusion(*boxes, image, one_pixel(), 1, "mean", patch=4)
    expected = weights() * (image - other)
    for row, column in np.ndindex(6, 8):
        square = slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
        np.testing.assert_allclose(found.values[square], expected[square].sum(), rtol=1e-3, atol=1e-3)


def test_occlusion_leaves_out_nothing_that_matters(boxes):
    squares = attribution.patches(boxes[0], one_pixel(), 4)
    inside = np.zeros((24, 32), bool)
    for square in squares:
        inside[square] = True
    assert inside[weights() > 0].all() and len(squares) == 4  # rows 9..15, columns 13..19 touch 2 x 2 squares


def test_grad_cam_of_one_map_is_that_map(pooled):
    # d y / d A of the bottleneck is 1 at one pixel of 16: alpha = 1/16, and the map is alpha A, A the window's maximum.
    image = positive(8, 8)
    windows = image.reshape(4, 2, 4, 2).max((1, 3))
    found = grad_cam(*pooled, image, one_pixel(2, 4, (8, 8)), 1, "encoder_1")
    assert found.values.shape == (8, 8) and found.method == "Seg-Grad-CAM at encoder_1"
    # Linear interpolation by 2 keeps the sum but for the border: compare where four equal pixels meet.
    constant = grad_cam(*pooled, np.full((8, 8), 0.5, np.float32), one_pixel(2, 4, (8, 8)), 1)
    np.testing.assert_allclose(constant.values, 0.5 / 16, rtol=1e-6)
    # Centres of windows lie between pixels, with weights 3/4 and 1/4: rows 2k, 2k + 1 mix with the neighbours.
    first = 0.75 * windows[0, 0] + 0.25 * windows[0, 1]
    np.testing.assert_allclose(found.values[0, 1], first / 16, rtol=1e-5)
    nothing = grad_cam(*pooled, image, one_pixel(2, 4, (8, 8)), 0)
    assert not nothing.values.any()  # the background's logit is always 0


def test_wrong_names_name_the_right_ones(boxes):
    with pytest.raises(ConfigError, match="baseline is 'blured'; did you mean 'blurred'"):
        integrated_gradients(*boxes, positive(), one_pixel(), 1, "blured")
    with pytest.raises(ConfigError, match="tap is 'stem'; expected one of encoder_0"):
        grad_cam(*boxes, positive(), one_pixel(), 1, "stem")


def test_curves_of_a_linear_network_are_best_for_its_own_map(boxes):
    network, variables = boxes
    image = positive() + 0.5
    variables = {
        "params": {
            **variables["params"],
            "head": {"kernel": np.full((1, 1, 1, 2), (0, 0.01), np.float32), "bias": np.zeros(2, np.float32)},
        }
    }
    found = occlusion(network, variables, image, one_pixel(), 1, "air", patch=2)
    curves = sanity.curves(network, variables, image, one_pixel(), 1, {"own": found}, baseline="air", patch=2)
    own, random = curves["own"], curves["random"]
    assert random["deletion"].shape == (8, len(sanity.SHARES))
    assert sanity.area(own["deletion"]) < sanity.area(random["deletion"]).min()
    assert sanity.area(own["insertion"]) > sanity.area(random["insertion"]).max()
    # Nothing and all are the same whatever the order.
    np.testing.assert_allclose(random["deletion"][:, [0, -1]] - own["deletion"][[0, -1]], 0, atol=1e-6)
    np.testing.assert_allclose(own["insertion"][[0, -1]], own["deletion"][[-1, 0]], atol=1e-6)


def test_the_cascade_makes_all_layers_random_in_order_and_unmasks_a_map_without_weights(pooled):
    network, variables = pooled
    image, pixels = positive(16, 16), one_pixel(4, 4, (16, 16))
    seen = []

    def edges(weights):
        seen.append(
            [name for name in weights["params"] if weights["params"][name] is not variables["params"][name]]
        )
        return attribution.Map(np.hypot(*np.gradient(image)), "edges", signed=False)

    found = sanity.cascade(network, variables, pixels, edges)
    order = ["head", "decoder_0", "up_0", "encoder_1", "encoder_0", "stem"]
    assert list(found) == ["trained", *order]
    assert [set(names) for names in seen] == [set(order[:k]) for k in range(len(order) + 1)]
    assert set(found.values()) == {1.0}  # an edge detector passes no such check (Adebayo 2018)


def test_random_weights_destroy_the_map_of_a_trained_network(tiny_run, phantom_scans):
    model = load_model(tiny_run)
    seen = insight.look(model, phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz")
    network, variables = model.trained("axial")
    question = insight.at(seen, tuple((seen.grid.affine @ [24, 20, 18, 1])[:3]), "axial", label=1)
    image = seen.stack("axial")[question.index]
    found = sanity.cascade(
        network, variables, question.pixels, lambda v: grad_cam(network, v, image, question.pixels, 1)
    )
    assert found["trained"] == 1 and abs(found["stem"]) < 0.5
