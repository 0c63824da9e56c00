"""Pictures of what networks see: receptive fields, maps over slices, sanity checks, robustness, features."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from liverjax.report.figures.canvas import (
    BLUE,
    ORANGE,
    PALETTE,
    RED,
    YELLOW,
    draw_contour,
    draw_letter,
    new_figure,
    plain,
    png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Letters of a view on the viewer's left and at the top.
_LETTERS = {"axial": ("R", "A"), "coronal": ("R", "S"), "sagittal": ("A", "S")}


@dataclasses.dataclass(frozen=True)
class FieldPanel:
    """One receptive field: ``mean`` (2R + 1, 2R + 1), the offsets ``above`` the threshold, and what is written."""

    title: str
    mean: np.ndarray
    above: np.ndarray
    theoretical: int


def receptive_fields(rows: Mapping[str, Sequence[FieldPanel]]) -> bytes:
    """Draws effective fields, one scale in pixels for all: brightness by the cube root, the area, the theoretical one.

    Args:
      rows: panels by the name of their row.
    """
    columns = max(map(len, rows.values()))
    figure = new_figure(1.0 + 2.5 * columns, 0.7 + 2.75 * len(rows))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for row, (name, fields) in zip(panels, rows.items(), strict=True):
        for axes, field in zip(row, fields, strict=False):
            radius = len(field.mean) // 2
            place = {"origin": "lower", "extent": (-radius - 0.5, radius + 0.5) * 2}
            shown = np.cbrt(field.mean / max(float(field.mean.max()), 1e-30))
            axes.imshow(shown, cmap="magma", vmin=0, vmax=1, **place)
            if field.above.any() and not field.above.all():
                offsets = np.arange(-radius, radius + 1)
                axes.contour(offsets, offsets, field.above, levels=[0.5], colors=BLUE, linewidths=1.2)
            half = field.theoretical / 2
            box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * half
            axes.plot(*box.T, color="white", linestyle="dashed", linewidth=1)
            axes.set(xlim=(-radius - 2, radius + 2), ylim=(-radius - 2, radius + 2))
            axes.set_title(field.title, fontsize=9, parse_math=False)
        row[0].text(
            -0.05, 0.5, name, rotation=90, ha="right", va="center", transform=row[0].transAxes, fontsize=9
        )
    figure.suptitle("mean |dy/dx|, cube root\nblue: effective area; dashed: theoretical", fontsize=8)
    return png(figure)


@dataclasses.dataclass(frozen=True)
class SliceMaps:
    """A slice and maps over it.

    Attributes:
      view: of the slice, which decides what is left and up.
      title: where the slice lies.
      image: (H, W) in [-1, 1].
      pixels: (H, W) bool, what is asked about.
      predicted: (H, W) bool.
      reference: (H, W) bool, or None.
      spacing: mm between rows and between columns.
      maps: (H, W) by name; whether it has signs.
    """

    view: str
    title: str
    image: np.ndarray
    pixels: np.ndarray
    predicted: np.ndarray
    reference: np.ndarray | None
    spacing: tuple[float, float]
    maps: Mapping[str, tuple[np.ndarray, bool]]


def attribution_sheet(slices: Sequence[SliceMaps]) -> bytes:
    """Draws each slice with its contours, then its maps, each on a scale of its own up to the 99.5th percentile."""
    columns = 1 + max(len(one.maps) for one in slices)
    heights = [one.image.shape[0] * one.spacing[0] / (one.image.shape[1] * one.spacing[1]) for one in slices]
    figure = new_figure(2.7 * columns, 0.5 + sum(2.7 * min(height, 2.0) + 0.45 for height in heights))
    figure.set_facecolor("black")
    panels = figure.subplots(
        len(slices), columns, squeeze=False, gridspec_kw={"height_ratios": [min(h, 2.0) for h in heights]}
    )
    for axes in panels.flat:
        axes.axis("off")
    for row, one in zip(panels, slices, strict=True):
        for place, (axes, name) in enumerate(zip(row, [one.title, *one.maps], strict=False)):
            extent = _draw_slice(axes, one)
            axes.set_title(name, fontsize=8, color="white", parse_math=False)
            if place == 0:
                _draw_contours(axes, one)
                for where, letter in zip(((0.03, 0.5), (0.5, 0.96)), _LETTERS[one.view], strict=True):
                    draw_letter(axes, *where, letter)
                continue
            values, signed = one.maps[name]
            top = max(float(np.percentile(np.abs(values), 99.5)), 1e-30)
            colors = (
                {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
                if signed
                else {"cmap": "inferno", "vmin": 0, "vmax": top}
            )
            opacity = np.clip(np.abs(values) / top * 1.5, 0, 0.85)
            axes.imshow(values, alpha=opacity, origin="lower", extent=extent, **colors)
            draw_contour(axes, one.pixels, np.array(one.spacing[::-1]), YELLOW, "solid")
    legend = "yellow: asked about; blue: prediction; orange dashed: reference. Maps: red for, blue against the class"
    figure.suptitle(legend, fontsize=8, color="white")
    return png(figure)


def _draw_slice(axes: Axes, one: SliceMaps) -> tuple[float, float, float, float]:
    height, width = (n * step for n, step in zip(one.image.shape, one.spacing, strict=True))
    extent = (0.0, width, 0.0, height)
    axes.imshow(one.image, cmap="gray", vmin=-1, vmax=1, origin="lower", extent=extent)
    axes.set(xlim=(width, 0), ylim=(0, height))
    return extent


def _draw_contours(axes: Axes, one: SliceMaps) -> None:
    spacing = np.array(one.spacing[::-1])
    draw_contour(axes, one.predicted, spacing, BLUE, "solid")
    if one.reference is not None:
        draw_contour(axes, one.reference, spacing, ORANGE, "dashed")
    draw_contour(axes, one.pixels, spacing, YELLOW, "solid")


def sanity_checks(
    cascades: Mapping[str, Mapping[str, float]],
    shares: Sequence[float],
    curves: Mapping[str, Mapping[str, np.ndarray]],
) -> bytes:
    """Draws how alike maps stay as weights become random, and the curves of deletion and insertion.

    Args:
      cascades: by method the rank correlation by layer, in order.
      shares: of the squares.
      curves: by method, and "random", those of `insight.curves`.
    """
    figure = new_figure(12, 4.2)
    left, middle, right = figure.subplots(1, 3)
    names: list[str] = []
    for (method, values), color in zip(cascades.items(), itertools.cycle(PALETTE), strict=False):
        names = list(values)
        left.plot(range(len(values)), list(values.values()), "o-", color=color, label=method, markersize=3)
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    left.set(ylim=(-0.3, 1.05), ylabel="rank correlation with the trained map")
    left.set_title("weights random from the output down to ...", fontsize=9)
    left.axhline(0, color="0.6", linewidth=0.8)
    left.legend(frameon=False, fontsize=8)
    for axes, kind in ((middle, "deletion"), (right, "insertion")):
        for (method, both), color in zip(curves.items(), itertools.cycle(PALETTE), strict=False):
            if method == "random":
                low, mean, high = both[kind].min(0), both[kind].mean(0), both[kind].max(0)
                axes.fill_between(shares, low, high, color="0.85", linewidth=0)
                axes.plot(shares, mean, color="0.5", label="random orders, and their range")
            else:
                axes.plot(shares, both[kind], color=color, label=method)
        axes.set(xlabel="share of the squares", ylabel="mean probability", ylim=(-0.02, 1.02))
        axes.set_title(kind, fontsize=9)
    figure.legend(
        *right.get_legend_handles_labels(), loc="outside lower right", ncols=5, frameon=False, fontsize=8
    )
    for axes in (left, middle, right):
        plain(axes)
    return png(figure)


def robustness_profiles(models: Mapping[str, Sequence[Mapping]]) -> bytes:
    """Draws the Dice against the strength of each change: a dot per case, a line through the medians.

    Args:
      models: by name the rows of `insight.robustness`.
    """
    first = next(iter(models.values()))
    changes = dict.fromkeys((row["change"], row["unit"]) for row in first)
    figure = new_figure(12, 6)
    panels = figure.subplots(2, (len(changes) + 1) // 2, squeeze=False).ravel()
    for axes, (change, unit) in zip(panels, changes, strict=False):
        for place, ((name, rows), color) in enumerate(
            zip(models.items(), itertools.cycle(PALETTE), strict=False)
        ):
            own = [row for row in rows if row["change"] == change]
            strengths = list(dict.fromkeys(row["strength"] for row in own))
            found = [[row["dice"] for row in own if row["strength"] == s] for s in strengths]
            offset = 0.12 * (place - (len(models) - 1) / 2)
            for at, values in enumerate(found):
                axes.plot([at + offset] * len(values), values, "o", color=color, markersize=3, alpha=0.5)
            medians = [np.nanmedian(values) for values in found]
            axes.plot(np.arange(len(found)) + offset, medians, color=color, label=name)
            axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
        axes.set(ylim=(-0.02, 1.02), ylabel="Dice of the liver", xlabel=unit)
        axes.set_title(change, fontsize=10)
        plain(axes)
    panels[0].legend(frameon=False, fontsize=8)
    return png(figure)


def sheet(tiles: Mapping[str, np.ndarray], columns: int = 8, *, flip: bool = True) -> bytes:
    """Draws small pictures (h, w) in rows with a name above each; kernels with a sign around 0, else each its range.

    Args:
      tiles: by name.
      columns: of the sheet.
      flip: draw slices as the viewer sees a patient; else as arrays.
    """
    rows = -(-len(tiles) // columns)
    figure = new_figure(1.3 * columns, 0.2 + 1.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, (name, tile) in zip(panels, tiles.items(), strict=False):
        top = float(np.abs(tile).max()) or 1.0
        colors = {"cmap": "gray"} if flip else {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
        axes.imshow(tile[:, ::-1] if flip else tile, origin="lower" if flip else "upper", **colors)
        axes.set_title(name, fontsize=7, parse_math=False)
    return png(figure)


def scatter(points: np.ndarray, groups: Sequence[str], values: np.ndarray, name: str) -> bytes:
    """Draws slices (N, 2) as points, left in colours by group, right by a value; NaN is grey."""
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2)
    for group, (marker, color) in zip(
        dict.fromkeys(groups), itertools.product("os^vD", PALETTE), strict=False
    ):
        own = points[np.array(groups) == group]
        left.scatter(*own.T, s=9, c=color, marker=marker, label=group, alpha=0.7, linewidths=0)
    left.legend(frameon=False, fontsize=7, ncols=2)
    known = np.isfinite(values)
    right.scatter(*points[~known].T, s=7, c="0.8", linewidths=0)
    drawn = right.scatter(*points[known].T, s=9, c=values[known], cmap="viridis", linewidths=0)
    figure.colorbar(drawn, ax=right, label=name)
    for axes in (left, right):
        axes.set(xlabel="first principal axis", ylabel="second principal axis")
        plain(axes)
    return png(figure)


def novelty_scores(scores: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]) -> bytes:
    """Draws the Dice of scans against their distance to the training slices, in colours by group."""
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    for group, color in zip(scores, itertools.cycle(PALETTE), strict=False):
        axes.plot(scores[group], dice[group], "o", color=color, label=group, markersize=5)
    axes.axhline(0.8, color=RED, linewidth=0.8, linestyle="dashed")
    axes.set(xlabel="distance to the training slices", ylabel="Dice of the liver", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return png(figure)
