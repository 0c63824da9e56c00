"""Line charts as SVG in the colours of the page: drawn without matplotlib, in a few milliseconds."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 30, 46


class Line(NamedTuple):
    """A series of a chart.

    Attributes:
      x, y: its points, in order.
      smooth: whether the points are drawn faintly, and a smoothed line over them.
      mark: the index of a point that is marked; None marks none.
      label: of that mark, for those who point at it.
    """

    x: Sequence[float]
    y: Sequence[float]
    smooth: bool = False
    mark: int | None = None
    label: str = ""


def line_chart(
    lines: Sequence[Line], x_name: str, y_name: str, *, y_range: tuple[float, float] | None = None
) -> str:
    """Draws lines over one another; values that are not finite interrupt them.

    Args:
      lines: at most as many as there are colours, which are then taken again.
      x_name: of the horizontal axis.
      y_name: of the vertical one, with its unit.
      y_range: of the vertical axis; by default that of the values.

    Returns:
      The SVG, whose colours are those of the classes s0 to s3.
    """
    points = [np.array([line.x, line.y], float).reshape(2, -1) for line in lines]
    shown = np.concatenate([p[:, np.isfinite(p).all(0)] for p in points] or [np.zeros((2, 0))], axis=1)
    x_low, x_high = (shown[0].min(), shown[0].max()) if shown.size else (0.0, 1.0)
    y_low, y_high = y_range or ((shown[1].min(), shown[1].max()) if shown.size else (0.0, 1.0))
    x_ticks, y_ticks = ticks(min(x_low, 0.0), x_high, 5), ticks(y_low, y_high, 5)
    y_low, y_high = (y_ticks[0], y_ticks[-1]) if y_range is None else y_range
    x_low, x_high = min(x_low, 0.0), max(x_high, x_ticks[-1] if len(x_ticks) == 1 else x_high)

    def place(x, y):
        inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        across = _LEFT + (np.asarray(x) - x_low) / ((x_high - x_low) or 1) * inner[0]
        return across, _TOP + (y_high - np.asarray(y)) / ((y_high - y_low) or 1) * inner[1]

    parts = [f'<text x="0" y="15">{html.escape(y_name)}</text>']
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{tick:g}</text>')
    floor = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    for tick in x_ticks:
        x, _ = place(tick, y_low)
        if x > _WIDTH - _RIGHT + 1:
            continue
        anchor = "end" if x > _WIDTH - 30 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="{anchor}">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(x_name)}</text>')
    for number, (line, (x, y)) in enumerate(zip(lines, points, strict=True)):
        color = f"s{number % 4}"
        if line.smooth and len(x) > 4:
            parts.append(f'<path class="{color} raw" d="{_path(*place(x, y))}"/>')
            y = smoothed(y)
        parts.append(f'<path class="{color}" d="{_path(*place(x, y))}"/>')
        singles = range(len(x)) if len(x) == 1 else []
        for at in {*singles, *([] if line.mark is None else [line.mark])}:
            px, py = place(x[at], y[at])
            title = f"<title>{html.escape(line.label)}</title>" if line.label else ""
            parts.append(f'<circle class="{color}" cx="{px:.1f}" cy="{py:.1f}" r="5">{title}</circle>')
    label = html.escape(f"{y_name} by {x_name}")
    body = "".join(parts)
    return f'<svg class="lines" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{body}</svg>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """Returns round numbers, some ``count`` of them, from at or below ``low`` to at or above ``high``."""
    span = high - low
    if not span > 0:
        span = abs(high) or 1.0
        low, high = low - span / 2, high + span / 2
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def smoothed(values: npt.ArrayLike) -> np.ndarray:
    """Returns a curve without its jitter: a Gaussian mean over a thirtieth of the values, at least over one.

    At the ends the weights of the values that are there count alone; values that are not finite stay so, and count
    nothing.
    """
    curve = np.asarray(values, float)
    finite = np.isfinite(curve)
    width = max(1.0, len(curve) / 30)
    reach = math.ceil(3 * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)

    def around(array):
        return np.convolve(np.pad(array, reach), weights, "valid")

    mean = around(np.where(finite, curve, 0.0)) / np.maximum(around(finite.astype(float)), 1e-300)
    return np.where(finite, mean, np.nan)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    text, pen = [], False
    for px, py in zip(x, y, strict=True):
        drawn = bool(np.isfinite(px) and np.isfinite(py))
        if drawn:
            text.append(f"{'L' if pen else 'M'}{px:.1f} {py:.1f}")
        pen = drawn
    return "".join(text)
