"""Colours, empty figures and PNG bytes, shared by all pictures.

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

from liverjax import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that are distinct with any kind of colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, YELLOW, PURPLE = "#56b4e9", "#e69f00", "#009e73", "#d55e00", "#f0e442", "#cc79a7"

#: Colours of curves, in order.
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE)


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
