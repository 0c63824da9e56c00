"""Slices of scans with the contours of their labels, in radiological orientation, as PNG bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from liverjax import labels
from liverjax.report.figures.canvas import (
    BLUE,
    RED,
    YELLOW,
    draw_contour,
    draw_letter,
    new_figure,
    png,
    window_of,
)
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume, label_voxels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# For each view: the axis of the canonical volume across which the slice is taken, then the axes that grow to the
# viewer's left and to the top, with their letters. The patient's right is on the left.
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
    reference_name: str = "reference",
    title: str = "",
    window: tuple[float, float] | None = None,
) -> bytes:
    """Draws the axial, coronal and sagittal slice with most liver, with contours, in true proportions.

    Args:
      image: the scan, in any orientation.
      mask: (x, y, z) label ids on the grid of the scan.
      path: also writes the PNG there.
      reference: (x, y, z) label ids to compare with.
      reference_name: what it is called.
      title: a line above the picture.
      window: intensities shown black and white. By default that of `canvas.window_of`.

    Returns:
      The PNG, in which an intensity of NaN is drawn as 0.

    Raises:
      InputError: ``image`` is no `Volume`, or a mask has another shape or holds what is no label id.
    """
    scan = to_canonical(image)
    placed = _canonical_mask(image, mask)
    names: tuple[str, str] = ("liver", "tumour" if labels.TUMOR in placed else "")
    masks: list[tuple] = [(placed, (BLUE, RED), names, "solid")]
    if reference is not None:
        masks.append((_canonical_mask(image, reference), (YELLOW, YELLOW), (reference_name, ""), "dashed"))
    low, high = window or window_of(scan.voxels)
    extent = scan.spacing * scan.shape
    widths = [extent[left] for _, (left, _), _ in _PANELS.values()]
    # 13 inches wide, 0.65 for the title; one scale for all three panels, smaller for very long scans.
    height = 0.65 + min(13 * max(extent[1:]) / sum(widths), 16)
    figure = new_figure(13, height, layout=None)
    figure.set_facecolor("black")
    panels = {"left": 0, "right": 1, "bottom": 0.01, "top": 1 - 0.65 / height, "wspace": 0.01}
    grid = figure.add_gridspec(1, 3, width_ratios=widths, **panels)
    liver = np.logical_or.reduce([voxels > labels.BACKGROUND for voxels, *_ in masks])
    for column, (across, (left, left_letter), (up, up_letter)) in enumerate(_PANELS.values()):
        axes = figure.add_subplot(grid[column])
        index = _fullest(liver, across)
        plane = np.clip(np.nan_to_num(_slice(scan.voxels, across, index).astype(np.float32)), low, high)
        place = {"origin": "lower", "extent": (0, extent[left], 0, extent[up])}
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, **place)
        for voxels, colors, _, style in masks:
            for ids, color in zip(labels.REGIONS.values(), colors, strict=True):
                region = np.isin(_slice(voxels, across, index), ids)
                draw_contour(axes, region, scan.spacing[[left, up]], color, style)
        axes.set(xlim=(extent[left], 0), ylim=(0, extent[up]))
        axes.axis("off")
        draw_letter(axes, 0.02, 0.5, left_letter)
        draw_letter(axes, 0.5, 0.97, up_letter)
        if column == 0 and extent[left] > 100:
            _scale_bar(axes, extent[left])
    title_style = {"color": "white", "fontsize": 12, "va": "top", "parse_math": False}
    figure.text(0.005, 1 - 0.12 / height, title, **title_style)
    _legend(figure, masks)
    return png(figure, path)


def contact_sheet(
    images: np.ndarray,
    label_ids: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | os.PathLike | None = None,
    *,
    view: str,
    title: str = "",
) -> bytes:
    """Draws slices in rows and columns with the contours of their labels, oriented as in `preview`.

    Args:
      images: (rows, columns, H, W) in [-1, 1], H and W as in a stack of ``view``.
      label_ids: (rows, columns, H, W) label ids.
      rows: a name for each row.
      columns: a name for each column.
      path: also writes the PNG there.
      view: one of `liverjax.views.VIEWS`.
      title: a line above the picture, and smaller ones below it.

    Returns:
      The PNG.
    """
    _, (_, left_letter), (_, up_letter) = _PANELS[view]
    height, width = images.shape[2:]
    tile, margin, top = 1.9, 1.1, 1.1  # inches
    size = (margin + tile * len(columns), top + tile * height / width * len(rows))
    figure = new_figure(*size, layout=None)
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
            draw_contour(axes, np.isin(label_ids[row, column], ids), np.ones(2), color, "solid")
        axes.set(xlim=(width, 0), ylim=(0, height))
        axes.axis("off")
    style = {"color": "white", "parse_math": False}
    for axes, name in zip(panels[0], columns, strict=True):
        axes.set_title(name, fontsize=10, pad=4, **style)
    for axes, name in zip(panels[:, 0], rows, strict=True):
        axes.text(-0.04, 0.5, name, ha="right", va="center", fontsize=9, transform=axes.transAxes, **style)
    draw_letter(panels[0, 0], 0.03, 0.5, left_letter)
    draw_letter(panels[0, 0], 0.5, 0.95, up_letter)
    heading, _, subtitle = title.partition("\n")
    figure.text(0.005, 1 - 0.12 / size[1], heading, fontsize=12, va="top", **style)
    figure.text(0.005, 1 - 0.4 / size[1], subtitle, fontsize=9, va="top", **style)
    _legend(figure, [(None, (BLUE, RED), ("liver", "tumour" if labels.TUMOR in label_ids else ""), "solid")])
    return png(figure, path)


def _canonical_mask(image: Volume, mask: Volume | np.ndarray) -> np.ndarray:
    placed = image.with_voxels(mask.voxels if isinstance(mask, Volume) else mask)
    return to_canonical(placed.with_voxels(label_voxels(placed, range(256)))).voxels


def _fullest(region: np.ndarray, axis: int) -> int:
    """Returns the index along ``axis`` of the slice with most of the region; the middle one if there is none."""
    area = region.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(area.argmax()) if area.any() else region.shape[axis] // 2


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Returns a slice as (row, column), rows along the later of the two axes."""
    return np.moveaxis(volume, axis, 0)[index].T


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
