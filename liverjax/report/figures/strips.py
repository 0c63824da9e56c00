"""Slices of a scan for a page: each plane as one picture of many slices, with outlines that are drawn over it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.report.figures.canvas import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, window_of
from liverjax.report.pictures import Outline, Strip, jpeg
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

#: Colours of outlines, in order; all of them stand out from grey.
COLORS = (BLUE, YELLOW, ORANGE, GREEN, RED, PURPLE)
#: Of each plane: the axis across it, then the axes that grow to the viewer's left and to the top, with their letters.
PLANES = {
    "axial": (2, (0, "R"), (1, "A")),
    "coronal": (1, (0, "R"), (2, "S")),
    "sagittal": (0, (1, "A"), (2, "S")),
}
# Around the masks, so much is shown on each side in a plane, and across it, in mm.
_MARGIN_MM, _BEYOND_MM = 30.0, 8.0
#: Units of outlines in a mm.
_UNITS = 5
#: Slices are cut off at multiples of this, so that no block of a JPEG holds two of them.
_BLOCK = 8


def slice_strips(
    scan: Volume,
    masks: Mapping[str, np.ndarray],
    *,
    shown: np.ndarray | None = None,
    colors: Mapping[str, tuple[str, bool]] | None = None,
    slices: int = 24,
    side: int = 256,
    window: tuple[float, float] | None = None,
) -> list[Strip]:
    """Cuts the axial, coronal and sagittal slices of a scan around its masks, in true proportions.

    Args:
      scan: in any orientation; NaN is drawn as 0.
      masks: (x, y, z) bool on its grid, by name.
      shown: (x, y, z) bool: the slices that hold most of it come first, and those beyond it are left out; by default
        the voxels of any mask.
      colors: of each mask, and whether its outline is dashed; by default `COLORS` in order, none of them dashed.
      slices: of each plane, at most; fewer are spread evenly.
      side: pixels of a slice's longer side, at most.
      window: intensities shown black and white; by default those of `canvas.window_of`.

    Returns:
      A strip of each plane.
    """
    named = {name: (color, False) for name, color in zip(masks, itertools.cycle(COLORS), strict=False)}
    canonical = to_canonical(scan)
    spacing, whole = canonical.spacing, canonical.shape
    placed = {name: _canonical(scan, mask) for name, mask in masks.items()}
    union = np.logical_or.reduce([*placed.values(), np.zeros(whole, bool)])
    box = _box(union, spacing)
    low, high = window or window_of(scan.voxels)
    grey = np.nan_to_num(canonical.voxels[box].astype(np.float32))
    grey = (255 * np.clip((grey - low) / (high - low), 0, 1)).astype(np.uint8)
    union, placed = union[box], {name: mask[box] for name, mask in placed.items()}
    focus = union if shown is None else _canonical(scan, shown)[box]
    first = [part.start for part in box]
    drawn = {name: (placed[name], (colors or named)[name]) for name in masks}
    return [
        _strip(plane, grey, drawn, focus if focus.any() else union, spacing, slices, side, first, whole)
        for plane in PLANES
    ]


def _canonical(scan: Volume, mask: np.ndarray) -> np.ndarray:
    return to_canonical(scan.with_voxels(np.asarray(mask).astype(np.uint8))).voxels != 0


def _box(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...]:
    """Returns the box of a mask with its margin; all of the scan if the mask is empty."""
    box = []
    for axis, step in enumerate(spacing):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(_MARGIN_MM / step))
        ends = (where[0] - margin, where[-1] + margin + 1) if where.size else (0, mask.shape[axis])
        box.append(slice(max(int(ends[0]), 0), min(int(ends[1]), mask.shape[axis])))
    return tuple(box)


def _strip(
    plane: str,
    grey: np.ndarray,
    masks: Mapping[str, tuple[np.ndarray, tuple[str, bool]]],
    focus: np.ndarray,
    spacing: np.ndarray,
    slices: int,
    side: int,
    first: Sequence[int],
    whole: Sequence[int],
) -> Strip:
    across, (left, left_letter), (up, up_letter) = PLANES[plane]
    chosen = _chosen(focus, across, spacing[across], slices)
    fullest = _fullest(focus, across)
    mm = np.array([grey.shape[up], grey.shape[left]]) * spacing[[up, left]]  # height, width
    # Square pixels at the resolution of the scan, but no more than asked for.
    scale = max(min(spacing[left], spacing[up]), float(mm.max()) / side)
    rows, columns = (max(1, round(float(length) / scale)) for length in mm)
    pitch_rows = -(-rows // _BLOCK) * _BLOCK
    frames = np.zeros((len(chosen), pitch_rows, columns), np.uint8)
    for place, index in enumerate(chosen):
        frames[place, :rows] = _resized(_seen(grey, across, index), rows, columns)
        frames[place, rows:] = frames[place, rows - 1]
    size = (max(1, round(float(mm[1]) * _UNITS)), max(1, round(float(mm[0]) * _UNITS)))
    pitch = round(size[1] * pitch_rows / rows)
    outlines = []
    for name, (mask, (color, dashed)) in masks.items():
        steps = spacing[[left, up]] * _UNITS
        paths = [
            _path(_seen(mask, across, index), steps, place * pitch) for place, index in enumerate(chosen)
        ]
        outlines.append(Outline(name, color, dashed, "".join(paths)))
    return Strip(
        plane,
        (left_letter, up_letter),
        jpeg(frames.reshape(-1, columns)),
        size,
        pitch,
        tuple(f"{plane} slice {first[across] + index + 1} of {whole[across]}" for index in chosen),
        int(np.abs(np.array(chosen) - fullest).argmin()),
        tuple(outlines),
        50.0 / float(mm[1]),
    )


def _chosen(focus: np.ndarray, across: int, step: float, slices: int) -> list[int]:
    """Returns the slices that are shown: evenly from end to end of what is in focus, its fullest among them."""
    area = _area(focus, across)
    where, beyond = np.flatnonzero(area), int(np.ceil(_BEYOND_MM / step))
    ends = (where[0] - beyond, where[-1] + beyond) if where.size else (0, len(area) - 1)
    low, high = max(int(ends[0]), 0), min(int(ends[1]), len(area) - 1)
    fullest = _fullest(focus, across)
    if slices < 2:
        return [fullest]
    spread = np.unique(np.round(np.linspace(low, high, min(slices, high - low + 1))).astype(int))
    spread[np.abs(spread - fullest).argmin()] = fullest
    return [int(index) for index in np.unique(spread)]


def _area(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.sum(axis=tuple(other for other in range(3) if other != axis))


def _fullest(mask: np.ndarray, axis: int) -> int:
    area = _area(mask, axis)
    return int(area.argmax()) if area.any() else len(area) // 2


def _seen(volume: np.ndarray, across: int, index: int) -> np.ndarray:
    """Returns a slice as (row, column) of a picture: the first row on top, the first column on the viewer's left."""
    return np.take(volume, index, across).T[::-1, ::-1]  # The axis to the left comes before that to the top.


def _resized(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    from PIL import Image  # Comes with matplotlib.

    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))


def _path(region: np.ndarray, steps: np.ndarray, top: int) -> str:
    """Returns the outline of a region (row, column) as an SVG path, halfway between voxels in and outside."""
    if not region.any():
        return ""
    import contourpy  # Comes with matplotlib.

    # Only around the region: what is empty takes as long.
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    part = np.pad(region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1).astype(np.float32)
    text = []
    for line in contourpy.contour_generator(z=part).lines(0.5):
        # The centre of the region's first voxel is at index 1 of the padded part, half a voxel from the corner.
        corner = np.array([columns[0], rows[0]]) - 0.5
        points = np.round((np.asarray(line) + corner) * steps + np.array([0, top])).astype(int)
        points = points[:-1] if (points[0] == points[-1]).all() else points
        moves = np.diff(points, axis=0)
        # Of points on one straight line only the last is needed.
        turns = np.append((moves[1:] != moves[:-1]).any(1), True) if len(moves) else []
        corners = np.concatenate([points[:1], points[1:][turns]]) if len(moves) else points
        steps_text = " ".join(f"{x} {y}" for x, y in np.diff(corners, axis=0))
        text.append(f"M{corners[0, 0]} {corners[0, 1]}l{steps_text}z" if steps_text else "")
    return "".join(text)
