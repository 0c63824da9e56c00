"""Pictures of segmentations, training and scores, as PNG bytes.

matplotlib is imported on use, with figures of their own: nothing here touches pyplot or its global state.
"""

from __future__ import annotations

import io
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from liverjax import files, labels
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that are told apart with any kind of colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, YELLOW, PURPLE = "#56b4e9", "#e69f00", "#009e73", "#d55e00", "#f0e442", "#cc79a7"

#: HU that a CT is shown between.
CT_WINDOW = (-160.0, 240.0)

# For each view: the axis of the canonical volume that the slice is taken across, then those that grow to the
# viewer's left and to the top, with their letters: the patient's right is on the left, as radiologists look.
_PANELS = {
    "axial": (2, (0, "R"), (1, "A")),
    "coronal": (1, (0, "R"), (2, "S")),
    "sagittal": (0, (1, "A"), (2, "S")),
}


def preview(
    image: Volume,
    mask: Volume | np.ndarray,
    path: str | os.PathLike | None = None,
    *,
    reference: Volume | np.ndarray | None = None,
    title: str = "",
    window: tuple[float, float] | None = None,
) -> bytes:
    """Draws the axial, coronal and sagittal slice with most liver, with contours, in true proportions.

    Args:
      image: the scan, in any orientation.
      mask: (x, y, z) label ids, voxel on voxel with the scan.
      path: also writes the PNG there.
      reference: label ids to compare with.
      title: a line above the picture.
      window: intensities shown black and white. By default `CT_WINDOW` for a scan that reaches -100, which MR
        does not, else percentiles 1 and 99.5 of what is not zero.

    Returns:
      The PNG.
    """
    scan = to_canonical(image)
    masks = [(_canonical_mask(image, mask), (BLUE, RED), ("liver", "tumour"), "solid")]
    if reference is not None:
        masks.append((_canonical_mask(image, reference), (YELLOW, YELLOW), ("reference", ""), "dashed"))
    low, high = window or _window(scan.voxels)
    extent = scan.spacing * scan.shape
    widths = [extent[left] for _, (left, _), _ in _PANELS.values()]
    # 13 inches wide, 0.65 for the title; one scale for all three panels, smaller for very long scans.
    height = 0.65 + min(13 * max(extent[1:]) / sum(widths), 16)
    figure = _figure(13, height, layout=None)
    figure.set_facecolor("black")
    panels = {"left": 0, "right": 1, "bottom": 0.01, "top": 1 - 0.65 / height, "wspace": 0.01}
    grid = figure.add_gridspec(1, 3, width_ratios=widths, **panels)
    liver = np.logical_or.reduce([voxels > labels.BACKGROUND for voxels, *_ in masks])
    for column, (across, (left, left_letter), (up, up_letter)) in enumerate(_PANELS.values()):
        axes = figure.add_subplot(grid[column])
        index = _fullest(liver, across)
        plane = np.nan_to_num(_slice(scan.voxels, across, index).astype(np.float32))
        place = {"origin": "lower", "extent": (0, extent[left], 0, extent[up])}
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, **place)
        for voxels, colors, _, style in masks:
            for ids, color in zip(labels.REGIONS.values(), colors, strict=True):
                region = np.isin(_slice(voxels, across, index), ids)
                _outline(axes, region, scan.spacing[[left, up]], color, style)
        axes.set(xlim=(extent[left], 0), ylim=(0, extent[up]))
        axes.axis("off")
        _letter(axes, 0.02, 0.5, left_letter)
        _letter(axes, 0.5, 0.97, up_letter)
        if column == 0 and extent[left] > 100:
            _scale_bar(axes, extent[left])
    title_style = {"color": "white", "fontsize": 12, "va": "top", "parse_math": False}
    figure.text(0.005, 1 - 0.12 / height, title, **title_style)
    _legend(figure, masks)
    return _png(figure, path)


def contact_sheet(
    images: np.ndarray,
    labels_: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | os.PathLike | None = None,
    *,
    view: str,
    title: str = "",
) -> bytes:
    """Draws slices in rows and columns with the outlines of their labels, oriented as `preview` does.

    Args:
      images: (rows, columns, H, W) in [-1, 1], H and W as a stack of ``view`` holds them.
      labels_: (rows, columns, H, W) label ids.
      rows: a name for each row, and ``columns`` for each column.
      path: also writes the PNG there.
      view: one of `liverjax.views.VIEWS`.
      title: a line above the picture, and smaller ones after it.

    Returns:
      The PNG.
    """
    _, (_, left_letter), (_, up_letter) = _PANELS[view]
    height, width = images.shape[2:]
    tile, margin, top = 1.9, 1.1, 1.1  # inches
    size = (margin + tile * len(columns), top + tile * height / width * len(rows))
    figure = _figure(*size, layout=None)
    figure.set_facecolor("black")
    grid = {
        "left": margin / size[0],
        "right": 1,
        "bottom": 0,
        "top": 1 - top / size[1],
        "wspace": 0.02,
        "hspace": 0.02,
    }
    panels = figure.subplots(len(rows), len(columns), squeeze=False, gridspec_kw=grid)
    place = {"origin": "lower", "extent": (0, width, 0, height)}
    for (row, column), axes in np.ndenumerate(panels):
        axes.imshow(images[row, column], cmap="gray", vmin=-1, vmax=1, **place)
        for ids, color in zip(labels.REGIONS.values(), (BLUE, RED), strict=True):
            _outline(axes, np.isin(labels_[row, column], ids), np.ones(2), color, "solid")
        axes.set(xlim=(width, 0), ylim=(0, height))
        axes.axis("off")
    style = {"color": "white", "parse_math": False}
    for axes, name in zip(panels[0], columns, strict=True):
        axes.set_title(name, fontsize=10, pad=4, **style)
    for axes, name in zip(panels[:, 0], rows, strict=True):
        axes.text(-0.04, 0.5, name, ha="right", va="center", fontsize=9, transform=axes.transAxes, **style)
    _letter(panels[0, 0], 0.03, 0.5, left_letter)
    _letter(panels[0, 0], 0.5, 0.95, up_letter)
    heading, _, subtitle = title.partition("\n")
    figure.text(0.005, 1 - 0.12 / size[1], heading, fontsize=12, va="top", **style)
    figure.text(0.005, 1 - 0.4 / size[1], subtitle, fontsize=9, va="top", **style)
    _legend(figure, [(None, (BLUE, RED), ("liver", "tumour" if labels.TUMOR in labels_ else ""), "solid")])
    return _png(figure, path)


def _canonical_mask(image: Volume, mask: Volume | np.ndarray) -> np.ndarray:
    return to_canonical(image.with_voxels(mask.voxels if isinstance(mask, Volume) else mask)).voxels


def _window(voxels: np.ndarray) -> tuple[float, float]:
    if np.fmin.reduce(voxels, axis=None) <= -100:  # fmin passes NaN over
        return CT_WINDOW
    shown = voxels[np.isfinite(voxels) & (voxels != 0)]
    if not shown.size:
        return 0.0, 1.0
    low, high = np.percentile(shown, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1


def _fullest(region: np.ndarray, axis: int) -> int:
    """Index along ``axis`` of the slice with most of the region; the middle one where there is none."""
    area = region.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(area.argmax()) if area.any() else region.shape[axis] // 2


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A slice as (row, column), rows along the later of the two axes."""
    return np.moveaxis(volume, axis, 0)[index].T


def _outline(axes: Axes, region: np.ndarray, spacing: np.ndarray, color: str, style: str) -> None:
    """Draws the edge of a (row, column) region; a rim of background closes contours at the border."""
    if not region.any():
        return
    padded = np.pad(region, 1).astype(np.float32)
    x, y = ((np.arange(n) - 0.5) * step for n, step in zip(padded.shape[::-1], spacing, strict=True))
    axes.contour(x, y, padded, levels=[0.5], colors=color, linestyles=style, linewidths=1.2)


def _letter(axes: Axes, x: float, y: float, letter: str) -> None:
    from matplotlib.patheffects import withStroke

    style = {"color": "white", "fontsize": 9, "ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(x, y, letter, path_effects=[withStroke(linewidth=2, foreground="black")], **style)


def _scale_bar(axes: Axes, width: float) -> None:
    start = 0.97 * width
    axes.plot([start, start - 50], [8, 8], color="white", linewidth=2, solid_capstyle="butt")
    axes.text(start - 25, 12, "5 cm", color="white", fontsize=8, ha="center", va="bottom")


def _legend(figure: Figure, masks: list) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=color, linestyle=style, label=name)
        for _, colors, names, style in masks
        for color, name in zip(colors, names, strict=True)
        if name
    ]
    figure.legend(handles=entries, loc="upper right", ncols=3, frameon=False, labelcolor="white", fontsize=10)


def training_curves(runs: Mapping[str, Sequence[Mapping]]) -> bytes:
    """Draws loss and validation Dice against the step.

    Args:
      runs: for each name (a view) its log records, with ``step`` and any of ``loss``, ``validation_dice``.
    """
    figure = _figure(10, 3.4)
    panels = {"loss": "training loss", "validation_dice": "validation Dice"}
    for axes, (key, name) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for (run, records), color in zip(runs.items(), _colors(len(runs)), strict=True):
            points = [(record["step"], record[key]) for record in records if key in record]
            axes.plot(*np.reshape(points, (-1, 2)).T, color=color, label=run, linewidth=1.4)
        axes.set(xlabel="step", ylabel=name)
        _plain(axes)
    axes.legend(frameon=False)
    return _png(figure)


def score_distribution(scores: Mapping[str, Sequence[float]], name: str) -> bytes:
    """Draws every score as a dot, with median and quartiles, one column per group.

    Args:
      scores: the scores of each group, one per case; those that are not finite are left out, and counted.
      name: what is scored, with its unit.
    """
    figure = _figure(1.6 + 1.5 * len(scores), 3.6)
    axes = figure.subplots()
    ticks = []
    for column, (group, values) in enumerate(scores.items()):
        values = np.asarray(values, float)
        shown = values[np.isfinite(values)]
        missing = len(values) - len(shown)
        ticks.append(f"{group}\nn = {len(shown)}" + (f" ({missing} not shown)" if missing else ""))
        # Dots are spread sideways by rank, so that equal scores stay visible.
        spread = (np.argsort(np.argsort(shown)) * 0.618 % 1 - 0.5) * 0.4
        axes.plot(column + spread, shown, "o", color=BLUE, markersize=5, alpha=0.75, markeredgewidth=0)
        if shown.size:
            low, median, high = np.percentile(shown, (25, 50, 75))
            axes.plot([column, column], [low, high], color="black", linewidth=1)
            axes.plot([column - 0.25, column + 0.25], [median, median], color="black", linewidth=2)
    axes.set(ylabel=name, xlim=(-0.6, len(scores) - 0.4))
    axes.set_xticks(range(len(scores)), ticks, parse_math=False)
    _plain(axes)
    return _png(figure)


def bland_altman(
    a: Sequence[float], b: Sequence[float], unit: str, names: tuple[str, str] = ("a", "b")
) -> bytes:
    """Draws the difference a - b against the mean of both, with bias and 95 % limits of agreement.

    The limits are bias +- 1.96 standard deviations of the differences (Bland and Altman 1986).
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    finite = np.isfinite(a) & np.isfinite(b)
    difference, mean = (a - b)[finite], ((a + b) / 2)[finite]
    figure = _figure(5.2, 3.8)
    axes = figure.subplots()
    axes.axhline(0, color="0.8", linewidth=1)
    axes.plot(mean, difference, "o", color=BLUE, markersize=5, markeredgewidth=0)
    bias, spread = (difference.mean(), difference.std(ddof=1)) if len(difference) > 1 else (np.nan, np.nan)
    for factor, style, name in (
        (0, "solid", "bias"),
        (1.96, "dashed", "+1.96 sd"),
        (-1.96, "dashed", "-1.96 sd"),
    ):
        value = bias + factor * spread
        if np.isfinite(value):
            axes.axhline(value, color=RED, linestyle=style, linewidth=1.2)
            beside = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
            axes.annotate(f"{name} {value:.3g}", (1, value), va="center", fontsize=8, **beside)
    axes.set_xlabel(f"mean of {names[0]} and {names[1]} [{unit}]", parse_math=False)
    axes.set_ylabel(f"{names[0]} - {names[1]} [{unit}]", parse_math=False)
    _plain(axes)
    return _png(figure)


def detection_by_size(diameters: Sequence[float], detected: Sequence[bool]) -> bytes:
    """Draws the share of reference lesions that were detected, in the size classes of LiTS.

    Args:
      diameters: of each reference lesion, in mm.
      detected: whether it was found.
    """
    diameters, detected = np.asarray(diameters, float), np.asarray(detected, bool)
    medium = (diameters >= 10) & (diameters <= 20)
    classes = {"< 10 mm": diameters < 10, "10-20 mm": medium, "> 20 mm": diameters > 20}
    figure = _figure(5.2, 3.4)
    axes = figure.subplots()
    ticks = []
    for column, (name, members) in enumerate(classes.items()):
        found, count = int(detected[members].sum()), int(members.sum())
        ticks.append(f"{name}\n{found} of {count}")
        axes.bar(column, found / max(count, 1), color=BLUE, width=0.6)
    axes.set(ylabel="lesions detected", ylim=(0, 1))
    axes.set_xticks(range(len(classes)), ticks)
    _plain(axes)
    return _png(figure)


def reliability(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | os.PathLike | None = None
) -> bytes:
    """Draws, for each name, accuracy against confidence (n,) of the bins; what is calibrated lies on the grey line."""
    figure = _figure(4.5, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for (name, points), color in zip(curves.items(), _colors(len(curves)), strict=True):
        axes.plot(*points, "o-", color=color, markersize=4, linewidth=1.2, label=name)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.3, 1), ylim=(0.3, 1))
    axes.legend(frameon=False, fontsize=8)
    return _png(figure, path)


def variants(
    scores: Mapping[str, Mapping[str, float]],
    rows: Sequence[Mapping],
    name: str,
    path: str | os.PathLike | None = None,
) -> bytes:
    """Draws the variants of an ablation below each other: scores with their mean, and differences to the first.

    Args:
      scores: of each variant, by patient; those that are not finite are left out.
      rows: for each variant in the same order ``mean``, ``difference`` and their intervals (``ci_low``, ``ci_high``,
        ``difference_low``, ``difference_high``), NaN is not drawn; and ``p_holm``, below 0.05 drawn in red.
      name: what is scored.
      path: also writes the PNG there.
    """
    figure = _figure(10, 1.1 + 0.42 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for line, (values, row) in enumerate(zip(scores.values(), rows, strict=True)):
        shown = np.asarray([value for value in values.values() if np.isfinite(value)])
        # Dots are spread by rank, so that equal scores stay visible.
        spread = (np.argsort(np.argsort(shown)) * 0.618 % 1 - 0.5) * 0.4
        left.plot(shown, line + spread, "o", color=BLUE, markersize=4, alpha=0.7, markeredgewidth=0)
        _estimate(left, line, row["mean"], row["ci_low"], row["ci_high"], "black")
        if line:
            color = RED if row["p_holm"] < 0.05 else "black"
            _estimate(right, line, row["difference"], row["difference_low"], row["difference_high"], color)
    left.set_xlabel(name, parse_math=False)
    left.set_yticks(range(len(rows)), list(scores), parse_math=False)
    left.set_ylim(len(rows) - 0.5, -0.5)
    right.axvline(0, color="0.6", linewidth=1)
    right.set_xlabel(f"difference to {next(iter(scores))}", parse_math=False)
    for axes in (left, right):
        _plain(axes, "x")
    return _png(figure, path)


def _estimate(axes: Axes, line: float, value: float, low: float, high: float, color: str) -> None:
    axes.plot([low, high], [line, line], color=color, linewidth=1.6, solid_capstyle="butt")
    axes.plot([value], [line], "D", color=color, markersize=5)


def _figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout=layout)


def _colors(count: int) -> list[str]:
    palette = [BLUE, ORANGE, GREEN, RED, PURPLE]
    return [palette[index % len(palette)] for index in range(count)]


def _plain(axes: Axes, lines: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=lines, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: Figure, path: str | os.PathLike | None = None) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks shows as a box: no reason to trouble the user, or to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png")
    if path is not None:
        with files.replacing(pathlib.Path(path)) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return buffer.getvalue()
