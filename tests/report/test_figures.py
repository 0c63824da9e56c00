"""Pictures: orientation, proportions, and what is drawn where."""

import io
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread
from scipy import ndimage

from liverjax.errors import InputError
from liverjax.report import figures
from liverjax.report.figures import canvas
from liverjax.volume import Volume


def pixels(png):
    """(row, column, 3) in 0-1."""
    return imread(io.BytesIO(png), format="png")[..., :3]


def has_color(image, color, tolerance=0.12):
    return np.abs(image - colors.to_rgb(color)).max(-1) < tolerance


def bluish(image):
    return image[..., 2] - image[..., 0] > 0.2


def panels(image):
    """The axial, coronal and sagittal panels of a preview of a scan as wide as deep, without its title row."""
    return np.array_split(image[65:], 3, axis=1)


def span(mask):
    """((first row, last row), (first column, last column)) of a mask."""
    return [(hit.min(), hit.max()) for hit in np.nonzero(mask)]


def scan_with_ball(center, radius, spacing, size_mm=240.0, value=200):
    """A RAS scan in HU whose origin is its corner, and the mask of a ball; all lengths in mm."""
    shape = tuple(int(size_mm / s) for s in spacing)
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    ball = sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) < radius**2
    voxels = np.where(ball, value, -1000).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    return Volume(voxels, affine), Volume(ball.astype(np.uint8), affine)


def reoriented(volume, codes):
    image = nib.Nifti1Image(volume.voxels, volume.affine)
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    image = image.as_reoriented(change)
    return Volume(np.asarray(image.dataobj), image.affine)


def test_the_patients_right_is_on_the_left_and_front_and_head_are_up():
    # 60 of 240 mm from the left, back and foot: the ball is in the patient's left, back and lower half.
    image, mask = scan_with_ball((60, 70, 60), 30, (2, 2, 2))
    for panel, across in zip(panels(pixels(figures.preview(image, mask))), ("x", "x", "y"), strict=True):
        (top, bottom), (left, right) = span(has_color(panel, canvas.BLUE))
        height, width = panel.shape[:2]
        assert (left + right) / 2 > 0.55 * width, f"{across} grows to the left"
        assert (top + bottom) / 2 > 0.55 * height


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL", "ALI"])
def test_the_picture_does_not_depend_on_how_the_scan_is_stored(codes):
    image, mask = scan_with_ball((90, 100, 70), 40, (3, 4, 5))
    expected = pixels(figures.preview(image, mask))
    turned = pixels(figures.preview(reoriented(image, codes), reoriented(mask, codes)))
    np.testing.assert_allclose(turned, expected, atol=0.02)


def test_a_ball_is_round_and_its_outline_lies_on_its_edge_whatever_the_spacing():
    radius = 60
    image, mask = scan_with_ball((120, 120, 120), radius, (1.5, 2, 8))
    for panel in panels(pixels(figures.preview(image, mask))):
        # A panel is 240 mm wide; a voxel of 8 mm may be missing at either end.
        mm = 240 / panel.shape[1]
        for first, last in span(has_color(panel, canvas.BLUE)):
            assert (last - first) * mm == pytest.approx(2 * radius, abs=9)
        outline = span(bluish(panel))
        ids = ndimage.label(panel.min(-1) > 0.85)[0]  # the ball, and letters
        bright = span(ids == np.bincount(ids.flat)[1:].argmax() + 1)
        np.testing.assert_allclose(outline[1], bright[1], atol=5)


def test_slices_go_through_most_liver_and_the_reference_has_a_color_of_its_own():
    image, mask = scan_with_ball((120, 120, 120), 50, (4, 4, 4))
    labels = mask.voxels.copy()
    labels[28:32, 28:32, 28:32] = 2  # tumour in the middle of the ball
    picture = pixels(figures.preview(image, labels))[65:]
    assert has_color(picture, canvas.BLUE).any() and has_color(picture, canvas.RED).any()
    assert not has_color(picture, canvas.YELLOW).any()
    whole = pixels(figures.preview(image, mask))  # Of a liver alone the legend names no tumour.
    assert not has_color(whole, canvas.RED).any()
    both = pixels(figures.preview(image, np.zeros_like(labels), reference=labels))[65:]
    assert has_color(both, canvas.YELLOW).any()
    assert not has_color(both, canvas.BLUE).any() and not has_color(both, canvas.RED).any()


def test_outlines_close_at_the_border_of_the_scan():
    image, _ = scan_with_ball((120, 120, 120), 50, (8, 8, 8))
    everything = np.ones(image.shape, np.uint8)
    for panel in panels(pixels(figures.preview(image, everything))):
        (_, _), (left, right) = span(bluish(panel))
        assert right - left > 0.95 * panel.shape[1]


def test_windows():
    image, mask = scan_with_ball((120, 120, 120), 60, (4, 4, 4), value=40)
    mr = np.where(mask.voxels, 900, 300)
    mr[0, 0, :5] = -110  # Stray voxels, as resampling leaves them, make no CT.
    mr = image.with_voxels(mr)
    # 40 HU is the middle of -160..240; the MR window goes from its dark to its bright half.
    for scan, window, gray in (
        (image, None, 0.5),
        (image, (40, 240), 0),
        (image, (-160, 40), 1),
        (mr, None, 1),
    ):
        axial = panels(pixels(figures.preview(scan, np.zeros(scan.shape, int), window=window)))[0]
        row, column = axial.shape[0] // 2, axial.shape[1] // 2
        assert axial[row, column, 0] == pytest.approx(gray, abs=0.02), window


@pytest.mark.parametrize(
    "voxels",
    [
        np.zeros((20, 30, 1), np.int16),
        np.full((20, 30, 4), 7.0, np.float32),
        np.full((2, 2, 2), np.nan, np.float32),
        np.zeros((1, 1, 1), np.uint8),
        np.zeros((2, 2, 400), np.int16),
    ],
)
def test_scans_without_liver_or_contrast_are_drawn(voxels):
    image = Volume(voxels, np.diag([2.0, 1.0, 5.0, 1.0]))
    for labels in (np.zeros(voxels.shape, np.uint8), np.ones(voxels.shape, np.uint8)):
        assert pixels(figures.preview(image, labels)).shape[1] == 1300


def test_file_and_bytes_are_the_same_and_titles_are_not_markup(tmp_path):
    image, mask = scan_with_ball((120, 120, 120), 50, (8, 8, 8))
    path = tmp_path / "new folder" / "preview.png"
    png = figures.preview(image, mask, path, title=r"$\frac{ <b> 肝 _{")
    assert path.read_bytes() == png
    assert [p.name for p in path.parent.iterdir()] == ["preview.png"]


def test_mask_of_another_shape_is_refused():
    image, mask = scan_with_ball((120, 120, 120), 50, (8, 8, 8))
    with pytest.raises(InputError, match="voxels of shape"):
        figures.preview(image, mask.voxels[1:])


def test_a_contact_sheet_outlines_each_label_in_its_own_place(tmp_path):
    images = np.full((2, 3, 40, 40), -1.0)
    labels = np.zeros((2, 3, 40, 40), np.uint8)
    labels[0, 1, 5:15, 5:15] = 1  # the patient's left and foot: right and low in the picture
    labels[1, 2, 10:30, 10:30] = 1
    labels[1, 2, 18:22, 18:22] = 2
    path = tmp_path / "new" / "sheet.png"
    names = {"rows": ["a_$", "b"], "columns": ["as stored", "x", "y"]}
    png = figures.contact_sheet(images, labels, **names, path=path, view="coronal", title="title\nranges")
    assert path.read_bytes() == png and [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    # Margins of 110 pixels on the left and above; tiles of 190.
    tiles = [np.array_split(row, 3, axis=1) for row in np.array_split(pixels(png)[110:, 110:], 2)]
    drawn = [[(bluish(tile).any(), has_color(tile, canvas.RED).any()) for tile in row] for row in tiles]
    assert drawn == [
        [(False, False), (True, False), (False, False)],
        [(False, False), (False, False), (True, True)],
    ]
    (top, bottom), (left, right) = span(has_color(tiles[0][1], canvas.BLUE))
    mm = 190 / 40
    np.testing.assert_allclose((left, right), (25 * mm, 35 * mm), atol=4)
    np.testing.assert_allclose((top, bottom), (25 * mm, 35 * mm), atol=4)


def test_import_is_light_and_pyplot_stays_out():
    code = (
        "import sys, numpy as np\n"
        "from liverjax.report import figures\n"
        "assert 'matplotlib' not in sys.modules and 'jax' not in sys.modules\n"
        "figures.training_curves({'axial': [{'step': 1, 'loss': 2.0}]})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_distribution_draws_every_finite_score_once():
    # Few scores, far apart, so that no line crosses a dot.
    png = figures.score_distribution({"a_$": [0.1, np.nan, 0.9], "b": [np.inf]}, "Dice")
    assert ndimage.label(bluish(pixels(png)))[1] == 2
    assert not bluish(pixels(figures.score_distribution({"a": [np.nan, np.nan]}, "Dice"))).any()


def test_bland_altman_draws_bias_and_limits():
    # Differences 0 and 2: bias 1, sample sd sqrt 2, limits 1 +- 2.77; 0 is drawn in grey.
    image = pixels(figures.bland_altman([10, 22, np.nan], [10, 20, 5], "ml"))
    rows = np.flatnonzero(has_color(image, canvas.RED, 0.25).sum(1) > 100)
    lines = [group.mean() for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)]
    assert len(lines) == 3
    upper, bias, lower = lines
    assert bias == pytest.approx((upper + lower) / 2, abs=1)
    dot_rows = np.nonzero(has_color(image, canvas.PALETTE[0], 0.1))[0]
    # From one difference to the other, 2 units; from bias to limit, 2.77.
    assert (bias - upper) / (np.ptp(dot_rows) - 6) == pytest.approx(2.772 / 2, rel=0.1)
    one_pair = pixels(figures.bland_altman([1], [2], "ml"))
    assert (
        has_color(one_pair, canvas.PALETTE[0], 0.1).any() and not has_color(one_pair, canvas.RED, 0.25).any()
    )


def test_detection_bars_have_the_height_of_the_share():
    # Small: 1 of 1. Medium: 1 of 2. Large: 0 of 1.
    image = pixels(
        figures.detection_by_size(["small", "medium", "medium", "large"], [True, True, False, False])
    )
    blue = has_color(image, canvas.PALETTE[0], 0.02)
    bars, count = ndimage.label(blue)
    heights = [np.ptp(np.nonzero(bars == bar)[0]) + 1 for bar in range(1, count + 1)]
    assert count == 2
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.03)


def test_curves_have_a_line_per_run():
    records = [{"step": step, "loss": 1 / step} for step in range(1, 20)]
    validations = [{"step": 10, "validation_dice": 0.5}, {"step": 20, "validation_dice": 0.8}]
    image = pixels(figures.training_curves({"axial": records + validations, "coronal": records}))
    left, right = np.array_split(image, 2, axis=1)
    assert has_color(left, canvas.PALETTE[1]).any()  # drawn last
    assert has_color(right, canvas.PALETTE[0]).sum() > 100
    empty = pixels(figures.training_curves({"axial": []}))
    assert not has_color(np.array_split(empty, 2, axis=1)[0], canvas.PALETTE[0]).any()


def _variant(mean, difference, p_holm):
    ends = {"ci_low": mean - 0.1, "ci_high": mean + 0.1}
    ends |= {"difference_low": difference - 0.1, "difference_high": difference + 0.1}
    return {"mean": mean, "difference": difference, "p_holm": p_holm, **ends}


def test_variants_are_drawn_to_scale_and_in_red_where_their_difference_is_clear(tmp_path):
    scores = {"base_$": {"a": 0.4, "b": 0.6, "c": np.nan}, "new": {"a": 0.6, "b": 0.8}}
    rows = [_variant(0.5, np.nan, np.nan), _variant(0.7, 0.2, 0.049)]
    image = pixels(figures.variants(scores, rows, "Dice", tmp_path / "liver.png"))
    assert (image == pixels((tmp_path / "liver.png").read_bytes())).all()
    red = has_color(image, canvas.RED, 0.05)
    (_, _), (first, last) = span(red)
    zero = np.flatnonzero(has_color(image, "0.6", 0.02).sum(0) > 0.5 * image.shape[0]).mean()
    # From 0.1 to 0.3, twice as far as from 0 to 0.1.
    assert (last - first) / (first - zero) == pytest.approx(2, rel=0.05)
    assert ndimage.label(bluish(image) & ~red)[1] >= 4

    unclear = figures.variants(scores, [rows[0], _variant(0.7, 0.2, 0.051)], "Dice")
    assert not has_color(pixels(unclear), canvas.RED, 0.05).any()
    nothing = {"base": {"a": np.nan}, "new": {}}
    assert pixels(figures.variants(nothing, [_variant(np.nan, np.nan, np.nan)] * 2, "Dice")).any()


def test_reliability_is_drawn_to_scale(tmp_path):
    curves = {"sure": (np.array([0.4, 0.9]), np.array([0.5, 0.8])), "other": (np.array([]), np.array([]))}
    image = pixels(figures.reliability(curves, tmp_path / "a.png"))
    assert (image == pixels((tmp_path / "a.png").read_bytes())).all()
    # Below the legend the curve goes from (0.4, 0.5) to (0.9, 0.8), and axes are as long as they are high.
    (top, bottom), (left, right) = span(has_color(image[60:], canvas.PALETTE[0], 0.05))
    marker = 4 / 72 * 100
    assert (bottom - top - marker) / 3 == pytest.approx((right - left - marker) / 5, rel=0.08)
    assert has_color(image, "0.8", 0.02).any()


def test_preview_of_real_scans(real_data):
    from liverjax.scans import nifti

    for scan, mask in (
        ("lits/volume-1.nii.gz", "lits/segmentation-1.nii.gz"),
        ("chaos_mr/imagesTr/mr01_0000.nii.gz", "chaos_mr/labelsTr/mr01.nii.gz"),
    ):
        image, labels = nifti.read(real_data / scan), nifti.read_mask(real_data / mask)
        picture = pixels(figures.preview(image, labels))[65:]
        # Both scans are as wide as deep, so that the three panels are equally wide.
        for panel in np.array_split(picture, 3, axis=1)[:2]:
            columns = np.nonzero(has_color(panel, canvas.BLUE))[1]
            assert columns.mean() < 0.5 * panel.shape[1]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_strips_show_the_patient_as_previews_do_with_outlines_where_masks_end(codes):
    image, mask = scan_with_ball((60, 70, 80), 30, (2, 3, 4))
    image, mask = reoriented(image, codes), reoriented(mask, codes)
    axial, coronal, sagittal = figures.slice_strips(image, {"ball": mask.voxels > 0}, slices=9)
    assert (axial.letters, coronal.letters, sagittal.letters) == (("R", "A"), ("R", "S"), ("A", "S"))
    assert [len(strip.captions) for strip in (axial, coronal, sagittal)] == [9, 9, 9]
    # The slice through the ball's centre comes first: 80 mm of slices of 4 mm, 70 of 3 mm, 60 of 2 mm.
    firsts = [int(strip.captions[strip.start].split()[2]) for strip in (axial, coronal, sagittal)]
    np.testing.assert_allclose(firsts, (21, 24, 31), atol=1)
    for strip in (axial, coronal, sagittal):
        # In units of 0.2 mm: 30 mm of margin on each side of a ball of 60, cut off at the scan's edge 0 mm away.
        start = strip.start * strip.pitch
        (path,) = (outline.path for outline in strip.outlines)
        points = []
        for piece in path.split("M")[1:]:
            corner, moves = piece.rstrip("z").split("l")
            steps = [[int(v) for v in corner.split()], *np.reshape([int(v) for v in moves.split()], (-1, 2))]
            points.append(np.cumsum(steps, axis=0))
        (shown,) = (p for p in points if start <= p[:, 1].min() and p[:, 1].max() <= start + strip.size[1])
        np.testing.assert_allclose(np.ptp(shown, axis=0) / 5, 60, atol=6)
        grey = imread(io.BytesIO(strip.picture.data), format="jpeg")
        across, down = strip.size[0] / grey.shape[1], strip.pitch * len(strip.captions) / grey.shape[0]
        window = grey[round(start / down) : round((start + strip.size[1]) / down)]
        (top, bottom), (left, right) = span(window > 128)
        edges = (left * across, (right + 1) * across, top * down + start, (bottom + 1) * down + start)
        (x0, y0), (x1, y1) = shown.min(0), shown.max(0)
        np.testing.assert_allclose(edges, (x0, x1, y0, y1), atol=15)  # 3 mm
