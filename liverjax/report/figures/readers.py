"""Pictures of several readers: their contours where they differ most, and their volumes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.report.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    draw_contour,
    draw_letter,
    new_figure,
    plain,
    png,
    window_of,
)
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

#: Of readers, in order; all of them stand out from grey.
_COLORS = (BLUE, ORANGE, YELLOW, GREEN, RED, PURPLE)
#: Around all masks, so much is shown on each side, in mm.
_MARGIN_MM = 15.0
_VIEWS = {
    "axial": (2, (0, "R"), (1, "A")),
    "coronal": (1, (0, "R"), (2, "S")),
    "sagittal": (0, (1, "A"), (2, "S")),
}


def reader_slices(scan: Volume | None, masks: Mapping[str, Volume], title: str) -> bytes:
    """Draws the axial, coronal and sagittal slice in which readers differ most, with each reader's contour.

    Args:
      scan: None draws how many readers have a voxel in the mask instead, in greys.
      masks: of each reader by name, voxel on voxel with the scan, bool.
      title: above them.
    """
    from matplotlib.lines import Line2D

    placed = {
        name: to_canonical(mask.with_voxels(mask.voxels.astype(np.uint8))) for name, mask in masks.items()
    }
    grid = next(iter(placed.values()))
    votes = np.zeros(grid.shape, np.uint8)
    for mask in placed.values():
        votes += mask.voxels
    image = votes.astype(np.float32) if scan is None else to_canonical(scan).voxels
    low, high = (0.0, float(len(masks))) if scan is None else window_of(image)
    differ, spacing = (votes > 0) & (votes < len(masks)), np.asarray(grid.spacing)
    box = _box(votes > 0, spacing)
    image, differ = image[box], differ[box]
    extent = spacing * differ.shape
    widths = [extent[left] for _, (left, _), _ in _VIEWS.values()]
    top = 0.75
    height = top + min(12 * max(extent[1:]) / sum(widths), 9)
    figure = new_figure(12, height, layout=None)
    figure.set_facecolor("black")
    panels = {"left": 0, "right": 1, "bottom": 0.01, "top": 1 - top / height, "wspace": 0.01}
    cells = figure.add_gridspec(1, 3, width_ratios=widths, **panels)
    for column, (across, (left, left_letter), (up, up_letter)) in enumerate(_VIEWS.values()):
        axes = figure.add_subplot(cells[column])
        area = differ.sum(axis=tuple(other for other in range(3) if other != across))
        index = int(area.argmax()) if area.any() else differ.shape[across] // 2
        plane = np.nan_to_num(np.moveaxis(image, across, 0)[index].T.astype(np.float32))
        place = {"origin": "lower", "extent": (0, extent[left], 0, extent[up])}
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, **place)
        for mask, color in zip(placed.values(), itertools.cycle(_COLORS), strict=False):
            region = np.moveaxis(mask.voxels[box], across, 0)[index].T != 0
            draw_contour(axes, region, spacing[[left, up]], color, "solid")
        axes.set(xlim=(extent[left], 0), ylim=(0, extent[up]))
        axes.axis("off")
        draw_letter(axes, 0.03, 0.5, left_letter)
        draw_letter(axes, 0.5, 0.96, up_letter)
    figure.text(0.005, 1 - 0.1 / height, title, color="white", fontsize=12, va="top", parse_math=False)
    lines = [
        Line2D([], [], color=color, label=name)
        for name, color in zip(placed, itertools.cycle(_COLORS), strict=False)
    ]
    figure.legend(handles=lines, loc="upper right", ncols=6, frameon=False, labelcolor="white", fontsize=10)
    return png(figure)


def _box(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...]:
    where = np.argwhere(mask) if mask.any() else np.array([[0, 0, 0], np.array(mask.shape) - 1])
    margin = np.ceil(_MARGIN_MM / spacing).astype(int)
    low, high = np.maximum(where.min(0) - margin, 0), where.max(0) + margin + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def reader_volumes(rows: Sequence[Mapping], readers: Sequence[str], unit: str) -> bytes:
    """Draws how far each reader's volume lies from what it relates to, case by case.

    Args:
      rows: a row per case and reader, with `case`, `reader` and `rve_percent`; values that are not finite are left out.
      readers: their names.
      unit: what the axis is called.
    """
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure = new_figure(8, 3.6)
    axes = figure.subplots()
    axes.axhline(0, color="0.6", linewidth=1)
    for place, (reader, color) in enumerate(zip(readers, itertools.cycle(_COLORS), strict=False)):
        own = {row["case"]: row["rve_percent"] for row in rows if row["reader"] == reader}
        shift = (place - (len(readers) - 1) / 2) * 0.6 / max(len(readers), 1)
        points = [(cases.index(case) + shift, value) for case, value in own.items() if np.isfinite(value)]
        x, y = np.reshape(points, (-1, 2)).T
        axes.plot(
            x, y, "o", color=color, markersize=6, markeredgecolor="0.3", markeredgewidth=0.5, label=reader
        )
    rotation = 90 if len(cases) > 5 else 0
    axes.set_xticks(range(len(cases)), cases, rotation=rotation, fontsize=8, parse_math=False)
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.set_ylabel(unit, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    plain(axes)
    return png(figure)


def correction_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Draws the Dice after a share of the slices was corrected, for each order of correction.

    Args:
      curves: for each order rows of `share`, `dice` and its interval `low`, `high`, of which NaN is not drawn.
    """
    figure = new_figure(7, 3.8)
    axes = figure.subplots()
    for (name, rows), color in zip(curves.items(), (BLUE, ORANGE, GREEN), strict=False):
        share, dice, low, high = (
            np.array([row[key] for row in rows]) for key in ("share", "dice", "low", "high")
        )
        axes.plot(100 * share, dice, color=color, linewidth=1.8, label=name)
        axes.fill_between(100 * share, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="slices corrected [%]", ylabel="Dice with the corrected mask", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plain(axes)
    return png(figure)
