"""Which lesions of one time point are those of the time points before, by where they lie.

Lesions are compared in the frame of the baseline, into which each time point comes by an affine transform. A lesion
keeps its number for good: it is looked for where it was last seen, so that it may disappear and return. Of several
lesions that lie on one another, those correspond that `liverjax.objects.matching` says. If two or more become one, they
have merged, and stay one finding from then on; if one becomes several, these are its parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from liverjax.objects.matching import correspondence
from liverjax.planning.course import Finding, Part
from liverjax.planning.diameters import MeasuredLesion, MeasuredMask


@dataclasses.dataclass
class _Known:
    """A finding that is followed: its lesion numbers, and the time point and lesion ids where it was last seen."""

    members: tuple[int, ...]
    time: int
    ids: tuple[int, ...]


def follow(
    masks: Sequence[MeasuredMask], to_baseline: Sequence[np.ndarray], near_mm: float = 0.0
) -> list[tuple[Finding, ...]]:
    """Returns the findings of each time point, in order of their lesion numbers.

    At baseline the numbers are the ids of the lesions; those that appear later have the next ones.

    Args:
      masks: lesions of each time point, the baseline first.
      to_baseline: (4, 4) for each time point, from its world coordinates to those of the baseline, RAS+ in mm.
      near_mm: lesions that overlap no known one are the nearest not yet found, up to this distance of their centres,
        nearest pairs first; 0 asks for overlap.
    """
    to_frame = [transform @ mask.affine for transform, mask in zip(to_baseline, masks, strict=True)]
    known: list[_Known] = []
    lesions = 0
    course = []
    for time, mask in enumerate(masks):
        pairs = correspondence(_shared_mm3(time, known, masks, to_frame))
        pairs += _nearest(time, known, masks, to_frame, near_mm, pairs)
        found = {index for indices, _ in pairs for index in indices}
        for indices, references in pairs:
            members = sorted(number for k in references for number in known[k].members)
            ids = tuple(masks[time].lesions[index].lesion.id for index in indices)
            known[references[0]] = _Known(tuple(members), time, ids)
        merged = {k for _, references in pairs for k in references[1:]}
        known = [one for k, one in enumerate(known) if k not in merged]
        for index, lesion in enumerate(mask.lesions):
            if index not in found:
                lesions += 1
                known.append(_Known((lesions,), time, (lesion.lesion.id,)))
        known.sort(key=lambda one: one.members)
        course.append(tuple(_finding(one, time, mask) for one in known))
    return course


def _finding(known: _Known, time: int, mask: MeasuredMask) -> Finding:
    return Finding(known.members, tuple(part(mask.lesions[id - 1]) for id in known.ids if known.time == time))


def part(lesion: MeasuredLesion) -> Part:
    """Returns a measured lesion as a part of a finding."""
    found = lesion.diameters
    volume = lesion.lesion.volume_ml
    return Part(found.longest.mm, found.perpendicular.mm, lesion.viable_mm, volume, lesion.lesion.id)


def _shared_mm3(
    time: int, known: Sequence[_Known], masks: Sequence[MeasuredMask], to_frame: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns (lesions, known) how much each lesion shares with where each known finding was last seen.

    Voxels of either grid are looked up in the other, and the larger volume counts: a lesion of thin slices may lie
    between the centres of thick ones.
    """
    mask = masks[time]
    shared = np.zeros((len(mask.lesions), len(known)))
    for earlier in sorted({one.time for one in known}):
        columns = np.full(len(masks[earlier].lesions) + 1, -1)
        for column, one in enumerate(known):
            if one.time == earlier:
                columns[list(one.ids)] = column
        here = _overlaps(mask, masks[earlier], np.linalg.inv(to_frame[earlier]) @ to_frame[time])
        there = _overlaps(masks[earlier], mask, np.linalg.inv(to_frame[time]) @ to_frame[earlier]).T
        volumes = np.maximum(
            here * abs(np.linalg.det(to_frame[time])), there * abs(np.linalg.det(to_frame[earlier]))
        )
        for id, column in enumerate(columns[1:]):
            if column >= 0:
                shared[:, column] += volumes[:, id]
    return shared


def _overlaps(mask: MeasuredMask, other: MeasuredMask, to_other: np.ndarray) -> np.ndarray:
    """Returns (lesions, lesions of the other) how many voxels of one have their centre in the other."""
    counts = np.zeros((len(mask.lesions), len(other.lesions)))
    for row, measured in enumerate(mask.lesions):
        box = [slice(b.start - c, b.stop - c) for b, c in zip(measured.lesion.box, mask.corner, strict=True)]
        start = [along.start for along in measured.lesion.box]
        voxels = np.argwhere(mask.ids[tuple(box)] == measured.lesion.id) + start
        places = np.rint(voxels @ to_other[:3, :3].T + to_other[:3, 3]).astype(int) - other.corner
        inside = ((places >= 0) & (places < other.ids.shape)).all(1)
        ids = other.ids[tuple(places[inside].T)]
        counts[row] = np.bincount(ids, minlength=len(other.lesions) + 1)[1:]
    return counts


def _nearest(
    time: int,
    known: Sequence[_Known],
    masks: Sequence[MeasuredMask],
    to_frame: Sequence[np.ndarray],
    near_mm: float,
    pairs: Sequence[tuple[list[int], list[int]]],
) -> list[tuple[list[int], list[int]]]:
    """Returns pairs of the lesions and known findings that have no partner yet, nearest centres first."""
    rows = [i for i in range(len(masks[time].lesions)) if not any(i in indices for indices, _ in pairs)]
    columns = [k for k in range(len(known)) if not any(k in references for _, references in pairs)]
    if not (near_mm > 0 and rows and columns):
        return []
    here = [_centre(masks[time], [masks[time].lesions[i].lesion.id], to_frame[time]) for i in rows]
    there = [_centre(masks[known[k].time], known[k].ids, to_frame[known[k].time]) for k in columns]
    distances = np.linalg.norm(np.array(here)[:, None] - np.array(there), axis=2)
    found = []
    for index in np.argsort(distances, axis=None, kind="stable"):
        row, column = (int(i) for i in np.unravel_index(index, distances.shape))
        if distances[row, column] > near_mm:
            break
        if not any(rows[row] in one or columns[column] in other for one, other in found):
            found.append(([rows[row]], [columns[column]]))
    return found


def _centre(mask: MeasuredMask, ids: Sequence[int], to_frame: np.ndarray) -> np.ndarray:
    parts = [mask.lesions[id - 1].lesion for id in ids]
    index = np.average([part.centre for part in parts], axis=0, weights=[part.voxels for part in parts])
    return to_frame[:3, :3] @ index + to_frame[:3, 3]
