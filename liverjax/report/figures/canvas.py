"""Colours, empty figures, what is drawn over slices, and PNG bytes: shared by all pictures.

matplotlib is imported on use, and figures are made without pyplot and its global state.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import sys
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from liverjax import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that are distinct with any kind of colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, YELLOW, PURPLE = "#56b4e9", "#e69f00", "#009e73", "#d55e00", "#f0e442", "#cc79a7"

#: Colours of charts, in order: 3 to 1 or more against white, and turned over against a dark page.
PALETTE = ("#0072b2", "#c05500", "#007d5a", "#a8457f", "#7a6400")

#: HU shown as black and as white for a CT.
CT_WINDOW = (-160.0, 240.0)
_CT_SHARE = 0.005


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Returns an empty figure of a size in inches, at 100 pixels per inch."""
    _import_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout=layout)


def _import_matplotlib() -> None:
    """Imports matplotlib, also where MPLBACKEND names a backend that does not exist: figures without windows need none.

    matplotlib itself cannot be imported then, nor imported again afterwards.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def plain(axes: Axes, lines: Literal["x", "y"] = "y") -> None:
    """Leaves axes with two spines and faint lines across one axis."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=lines, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def window_of(voxels: np.ndarray) -> tuple[float, float]:
    """Returns the intensities shown black and white: `CT_WINDOW` of a CT, else percentiles 1 and 99.5 of what is not 0.

    A CT has air and fat at or below -100 in half a percent of its voxels or more. MR has none there, but for stray
    voxels of resampling.
    """
    if np.count_nonzero(voxels <= -100) >= _CT_SHARE * voxels.size:  # NaN is neither.
        return CT_WINDOW
    shown = voxels[np.isfinite(voxels) & (voxels != 0)]
    if not shown.size or shown.dtype == bool:
        return 0.0, 1.0
    low, high = np.percentile(shown, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1


def draw_contour(axes: Axes, region: np.ndarray, spacing: np.ndarray, color: str, style: str) -> None:
    """Draws the contour of a (row, column) region; a rim of background closes it at the border."""
    if not region.any():
        return
    padded = np.pad(region, 1).astype(np.float32)
    x, y = ((np.arange(n) - 0.5) * step for n, step in zip(padded.shape[::-1], spacing, strict=True))
    axes.contour(x, y, padded, levels=[0.5], colors=color, linestyles=style, linewidths=1.2)


def draw_letter(axes: Axes, x: float, y: float, letter: str) -> None:
    """Draws a letter at a place in axes coordinates, legible on black and on white."""
    from matplotlib.patheffects import withStroke

    style = {"color": "white", "fontsize": 9, "ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(x, y, letter, path_effects=[withStroke(linewidth=2, foreground="black")], **style)


def png(figure: Figure, path: str | os.PathLike | None = None) -> bytes:
    """Returns a figure as PNG, and writes it to ``path`` if one is given."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks shows as a box: no reason to warn, or to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png")
    if path is not None:
        with files.replacing(pathlib.Path(path)) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return buffer.getvalue()
