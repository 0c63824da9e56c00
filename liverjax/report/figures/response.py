"""Pictures of response: lesions with their diameters over time, sums of diameters, and classes of several raters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from liverjax.report.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    YELLOW,
    draw_contour,
    draw_letter,
    new_figure,
    plain,
    png,
    window_of,
)  # fmt: skip
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A line in voxel indices of the scan: its two ends, (x, y, z) each.
Ends = Sequence[Sequence[float]]

#: Colour of each response class, in the order in which they are stacked; none so light that a dark page, which turns
#: the lightness of charts over, hides it.
_CLASS_COLORS = {
    "CR": BLUE, "PR": GREEN, "SD": PURPLE, "non-CR/non-PD": ORANGE, "PD": RED, "NE": "0.6", "none": "0.85",
}  # fmt: skip
# Around a lesion, so much is shown on each side, and at least so much in all, in mm.
_MARGIN_MM, _SMALLEST_MM = 25.0, 90.0


@dataclasses.dataclass(frozen=True)
class LesionSlice:
    """The part of a slice that shows a lesion, in radiological orientation.

    Attributes:
      plane: (rows, columns) intensities; rows grow to the front, columns to the patient's right.
      lesion, organ: masks likewise.
      spacing: mm of a column and of a row.
      lines: (2, 2) each, the ends of the longest diameter and of its perpendicular in mm from the corner of the plane.
      window: intensities shown black and white.
      title: above the slice.
    """

    plane: np.ndarray
    lesion: np.ndarray
    organ: np.ndarray
    spacing: np.ndarray
    lines: tuple[np.ndarray, np.ndarray]
    window: tuple[float, float]
    title: str


def lesion_slice(
    scan: Volume, lesion: np.ndarray, organ: np.ndarray, longest: Ends, perpendicular: Ends, title: str
) -> LesionSlice:
    """Cuts the slice of a lesion's diameters out of a scan.

    Args:
      scan: in any orientation.
      lesion: (x, y, z) bool on its grid.
      organ: (x, y, z) bool, the liver with its lesions.
      longest: the longest diameter, within one slice near axial.
      perpendicular: the other one.
      title: above the slice.
    """
    canonical = to_canonical(scan)
    to_index = np.linalg.inv(canonical.affine) @ scan.affine
    lines = [np.array(ends) @ to_index[:3, :3].T + to_index[:3, 3] for ends in (longest, perpendicular)]
    index = round(float(lines[0][0, 2]))
    planes = [to_canonical(scan.with_voxels(v)).voxels[:, :, index] for v in (scan.voxels, lesion, organ)]
    points = np.concatenate([line[:, :2] for line in lines])
    occupied = np.argwhere(planes[1])
    low, high = np.minimum(points.min(0), occupied.min(0)), np.maximum(points.max(0), occupied.max(0))
    spacing = canonical.spacing[:2]
    half = max((np.max((high - low) * spacing) + 2 * _MARGIN_MM), _SMALLEST_MM) / 2
    middle = (low + high) / 2
    first = np.maximum(np.floor(middle - half / spacing), 0).astype(int)
    last = np.minimum(np.ceil(middle + half / spacing) + 1, planes[0].shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    image, inside, around = (plane[box].T for plane in planes)
    # Voxel centres lie half a voxel from the corner.
    in_mm = [(line[:, :2] - first + 0.5) * spacing for line in lines]
    return LesionSlice(
        np.nan_to_num(image.astype(np.float32)),
        inside,
        around,
        spacing,
        (in_mm[0], in_mm[1]),
        window_of(scan.voxels),
        title,
    )


def lesion_course(slices: Sequence[LesionSlice | str], title: str) -> bytes:
    """Draws a lesion at each time point: outline, longest diameter (yellow) and its perpendicular (orange).

    Args:
      slices: of each time point; a text where the lesion is not there.
      title: above them.
    """
    columns = min(len(slices), 4)
    rows = -(-len(slices) // columns)
    figure = new_figure(0.1 + 3.2 * columns, 0.5 + 3.6 * rows, layout=None)
    figure.set_facecolor("black")
    top = 1 - 0.75 / (0.5 + 3.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.03, hspace=0.14)
    for axes, one in itertools.zip_longest(panels, slices):
        axes.axis("off")
        if isinstance(one, str):
            axes.text(
                0.5,
                0.5,
                one,
                color="white",
                ha="center",
                fontsize=10,
                transform=axes.transAxes,
                parse_math=False,
            )
        elif one is not None:
            _draw_slice(axes, one)
    figure.text(
        0.01, 1 - 0.1 / (0.5 + 3.6 * rows), title, color="white", fontsize=12, va="top", parse_math=False
    )
    return png(figure)


def _draw_slice(axes: Axes, one: LesionSlice) -> None:
    height, width = one.plane.shape * one.spacing[::-1]
    place = {"origin": "lower", "extent": (0, width, 0, height)}
    axes.imshow(one.plane, cmap="gray", vmin=one.window[0], vmax=one.window[1], **place)
    draw_contour(axes, one.organ, one.spacing, BLUE, "solid")
    draw_contour(axes, one.lesion, one.spacing, RED, "solid")
    for line, color in zip(one.lines, (YELLOW, ORANGE), strict=True):
        axes.plot(*line.T, color=color, linewidth=1.6, marker="|", markersize=5)
    axes.set(xlim=(width, 0), ylim=(0, height))
    axes.set_title(one.title, color="white", fontsize=9, pad=4, parse_math=False)
    draw_letter(axes, 0.03, 0.5, "R")
    draw_letter(axes, 0.5, 0.96, "A")


def sums_of_diameters(courses: Mapping[str, Sequence[Mapping]]) -> bytes:
    """Draws each patient's sum of diameters over time, in percent of the baseline, with RECIST's partial response.

    Progression has no line: it counts from the smallest sum so far, which is another in each patient.

    Args:
      courses: for each patient a row per time point, with `change_percent`, `overall` and `time_point`; rows whose
        change is not finite are left out.
    """
    figure = new_figure(5.4, 3.6)
    axes = figure.subplots()
    axes.axhline(-30, color="0.6", linestyle="dashed", linewidth=1)
    beside = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
    axes.annotate("-30 %", (1, -30), va="center", fontsize=8, **beside)
    longest: Sequence[Mapping] = max(courses.values(), key=len)
    for (patient, rows), color in zip(courses.items(), itertools.cycle(PALETTE), strict=False):
        points = [
            (i, row["change_percent"]) for i, row in enumerate(rows) if np.isfinite(row["change_percent"])
        ]
        axes.plot(
            *np.reshape(points, (-1, 2)).T, "o-", color=color, markersize=5, linewidth=1.4, label=patient
        )
        for i, change in points:
            axes.annotate(
                rows[i]["overall"], (i, change), xytext=(4, 5), textcoords="offset points", fontsize=8
            )
    names = (
        [str(row["time_point"]) for row in longest]
        if len(courses) == 1
        else [str(i) for i in range(len(longest))]
    )
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set(ylabel="sum of diameters, change [%]", xlim=(-0.2, len(names) - 0.6))
    if 1 < len(courses) <= 12:
        axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return png(figure)


def class_shares(rows: Sequence[Mapping], title: str = "") -> bytes:
    """Draws for each case the share of raters of each response class, as stacked bars.

    Args:
      rows: with `case`, `agreement` and the share of each class by name; drawn in order of agreement, the least first.
      title: above the chart.
    """
    rows = sorted(rows, key=lambda row: row["agreement"])
    figure = new_figure(max(4.5, 1.8 + 0.35 * len(rows)), 3.8)
    axes = figure.subplots()
    bottom = np.zeros(len(rows))
    for name, color in _CLASS_COLORS.items():
        shares = np.array([100 * row[name] for row in rows])
        if shares.any():
            axes.bar(range(len(rows)), shares, bottom=bottom, color=color, width=0.8, label=name)
        bottom += shares
    axes.set(ylabel="raters [%]", ylim=(0, 100), xlim=(-0.6, len(rows) - 0.4))
    names = [str(row["case"]) for row in rows]
    axes.set_xticks(
        range(len(rows)), names, rotation=90 if len(rows) > 5 else 0, fontsize=8, parse_math=False
    )
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    plain(axes)
    return png(figure)
