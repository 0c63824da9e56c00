"""A scan as the networks see it, and the pixels of a slice about which one asks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from liverjax.errors import InputError
from liverjax.inference.segmenter import Segmenter
from liverjax.labels import BACKGROUND, LIVER, NAMES, TUMOR
from liverjax.objects import components
from liverjax.scans import AS_STORED, Reading
from liverjax.scans.grid import Grid, to_grid
from liverjax.scans.nifti import require_same_geometry
from liverjax.views import slice_axis, to_stack
from liverjax.volume import Volume

#: Names of the world axes, for messages.
_AXES = "xyz"


@dataclasses.dataclass(frozen=True)
class Seen:
    """One scan on the working grid, with what the model finds in it.

    Attributes:
      scan: as it was read.
      voxels: (X, Y, Z) float32 in [-1, 1], what the networks see.
      labels: (X, Y, Z) uint8, the predicted mask brought to the working grid, after clean-up.
      probabilities: (X, Y, Z, C) float32, the fused probabilities.
      grid: the working grid.
      multiple: what rows and columns of a stack are padded to a multiple of.
      expected_dice: what the model expects of its own mask, see `Prediction.expected_dice`.
    """

    scan: Volume
    voxels: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    grid: Grid
    multiple: int
    expected_dice: float

    def stack(self, view: str, volume: np.ndarray | None = None) -> np.ndarray:
        """Returns the slices (N, H, W) of a view, padded as prediction pads them: with air, or 0.

        Args:
          view: one of `liverjax.views.VIEWS`.
          volume: (X, Y, Z) on the working grid; None: what the networks see.
        """
        slices = to_stack(self.voxels if volume is None else volume, view)
        padding = [(0, 0), *((0, -size % self.multiple) for size in slices.shape[1:])]
        return np.pad(slices, padding, constant_values=-1 if volume is None else 0)

    def spacing_of(self, view: str) -> tuple[float, float]:
        """Returns the distance in mm between rows and between columns of a view."""
        _, row, column = to_stack(np.empty((1, 2, 3)), view).shape  # the sizes name the axes
        return float(self.spacing[row - 1]), float(self.spacing[column - 1])

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size of the working grid in mm."""
        return np.linalg.norm(self.grid.affine[:3, :3], axis=0)


@dataclasses.dataclass(frozen=True)
class Question:
    """Why do these pixels of a slice get this class?

    Attributes:
      view: the view of the slice.
      index: of the slice in the stack of the view.
      pixels: (H, W) bool, of the padded slice.
      label: the class.
      about: what the pixels are, in words.
    """

    view: str
    index: int
    pixels: np.ndarray
    label: int
    about: str


def look(model: Segmenter, scan: str | os.PathLike | Volume, *, reading: Reading = AS_STORED) -> Seen:
    """Predicts a scan, and returns it as the networks see it.

    Raises:
      InputError: the scan cannot be used.
      ConfigError: as `Segmenter.network_input`.
    """
    prediction = model.predict(scan, reading=reading)
    voxels, grid = model.network_input(prediction.scan)
    labels = to_grid(prediction.labels, grid, labels=True).voxels
    multiple = 2 ** (len(model.config.model.features) - 1)
    return Seen(
        prediction.scan,
        voxels,
        labels,
        prediction.grid_probabilities,
        grid,
        multiple,
        prediction.expected_dice(),
    )


def on_grid(seen: Seen, reference: Volume) -> np.ndarray:
    """Returns the label ids (X, Y, Z) of a reference mask on the working grid.

    Raises:
      InputError: it does not lie voxel on voxel on the scan, or holds what is no label id.
    """
    require_same_geometry(seen.scan, reference)
    return to_grid(reference, seen.grid, labels=True).voxels


def of_slice(seen: Seen, view: str, label: int | None = None) -> Question:
    """Asks about the slice with most of the predicted liver, or of another class: all its pixels of that class."""
    wanted = LIVER if label is None else label
    region = seen.labels == wanted
    if not region.any():
        raise InputError(
            f"{seen.scan.name}: the prediction has no {NAMES[wanted]}, expected some to ask about; "
            "name a point instead: --at=X,Y,Z"
        )
    return _of_region(seen, region, view, wanted, f"predicted {NAMES[wanted]} of the slice")


def at(seen: Seen, point: Sequence[float], view: str, label: int | None = None) -> Question:
    """Asks about one pixel.

    Args:
      seen: the scan.
      point: (3,) world coordinates in mm, right, anterior, superior: those that viewers show of a NIfTI file.
      view: the view of the slice.
      label: the class; None: the one of the predicted mask there.

    Raises:
      InputError: the point lies outside the scan.
    """
    place = np.linalg.inv(seen.grid.affine) @ [*point, 1.0]
    voxel = np.rint(place[:3]).astype(int)
    shape = np.array(seen.grid.shape)
    if (voxel < 0).any() or (voxel >= shape).any():
        corners = np.array([seen.grid.affine @ [*(shape - 1) * c, 1] for c in np.ndindex(2, 2, 2)])[:, :3]
        ranges = ", ".join(
            f"{axis} from {np.ceil(low):.0f} to {np.floor(high):.0f}"
            for axis, low, high in zip(_AXES, corners.min(0), corners.max(0), strict=True)
        )
        middle = ",".join(f"{value:.0f}" for value in corners.mean(0))
        where = ",".join(f"{value:g}" for value in point)
        raise InputError(
            f"{seen.scan.name}: the point {where} lies outside the scan, expected mm with {ranges}; "
            f"its middle is {middle}"
        )
    region = np.zeros(seen.grid.shape, bool)
    region[tuple(voxel)] = True
    found = int(seen.labels[tuple(voxel)]) if label is None else label
    where = ", ".join(f"{value:g}" for value in point)
    return _of_region(seen, region, view, found, f"the point ({where}) mm")


def world_of_voxel(scan: Volume, voxel: Sequence[int]) -> tuple[float, float, float]:
    """Returns the world coordinates in mm of a voxel of the scan, as `at` takes them.

    Raises:
      InputError: the scan has no such voxel.
    """
    if not all(0 <= index < size for index, size in zip(voxel, scan.shape, strict=True)):
        raise InputError(
            f"{scan.name}: has no voxel {tuple(voxel)}, expected indices from 0 to "
            f"{tuple(size - 1 for size in scan.shape)}"
        )
    x, y, z, _ = scan.affine @ [*voxel, 1]
    return float(x), float(y), float(z)


def lesion(seen: Seen, number: int, view: str, label: int | None = None) -> Question:
    """Asks about a predicted tumour, in the slice with most of it.

    Args:
      seen: the scan.
      number: from 1, the largest first.
      view: the view of the slice.
      label: the class; None: tumour.

    Raises:
      InputError: there is no such lesion.
    """
    ids = components.label(seen.labels == TUMOR, 26)
    found = sorted(components.lesions(ids, seen.spacing), key=lambda one: -one.voxels)
    if not 1 <= number <= len(found):
        knows = seen.probabilities.shape[-1] > TUMOR
        remedy = (
            f"expected one from 1 to {len(found)}"
            if found
            else "expected another question, such as --at=X,Y,Z"
            if knows
            else "as the model knows no tumours; expected another question, such as --at=X,Y,Z"
        )
        raise InputError(f"{seen.scan.name}: the prediction has no lesion {number}, {remedy}")
    one = found[number - 1]
    about = f"lesion {number} of {len(found)}, {one.diameter_mm:.0f} mm"
    return _of_region(seen, ids == one.id, view, TUMOR if label is None else label, about)


def worst(seen: Seen, reference: np.ndarray, view: str, label: int | None = None) -> Question:
    """Asks about the largest false region: connected voxels at which liver against background is wrong.

    Args:
      seen: the scan.
      reference: (X, Y, Z) label ids on the working grid, see `on_grid`.
      view: the view of the slice.
      label: the class; None: the one that was predicted there, wrongly.

    Raises:
      InputError: nothing is wrong.
    """
    predicted, true = seen.labels != BACKGROUND, reference != BACKGROUND
    kinds = []
    for wrong, was in ((predicted & ~true, LIVER), (true & ~predicted, BACKGROUND)):
        region = components.largest(wrong, 6)
        kinds.append((np.count_nonzero(region), was, region))
    voxels, was, region = max(kinds, key=lambda kind: kind[0])
    if not voxels:
        raise InputError(
            f"{seen.scan.name}: prediction and reference agree on the liver, expected a false region; "
            "leave --worst out to ask about the slice"
        )
    ml = voxels * np.prod(seen.spacing) / 1000
    about = f"largest false region, {ml:.0f} ml, {'false liver' if was else 'missed liver'}"
    return _of_region(seen, region, view, was if label is None else label, about)


def _of_region(seen: Seen, region: np.ndarray, view: str, label: int, about: str) -> Question:
    stack = seen.stack(view, region)
    index = int(stack.sum((1, 2)).argmax())
    return Question(view, index, stack[index], label, about)


def place_of(seen: Seen, question: Question) -> str:
    """Returns where the slice lies, in words."""
    axis = slice_axis(question.view)
    return f"{question.view} slice {question.index}, {_AXES[axis]} {_position(seen, axis, question.index):.0f} mm"


def _position(seen: Seen, axis: int, index: int) -> float:
    middle = (np.array(seen.grid.shape) - 1) / 2
    middle[axis] = index
    return float((seen.grid.affine @ [*middle, 1])[axis])


def question(
    seen: Seen,
    view: str,
    label: int | None = None,
    *,
    point: Sequence[float] | None = None,
    number: int | None = None,
    reference: np.ndarray | None = None,
) -> Question:
    """Asks about a point (`at`), a lesion (`lesion`), the largest false region by a reference (`worst`), or a slice."""
    if point is not None:
        return at(seen, point, view, label)
    if number is not None:
        return lesion(seen, number, view, label)
    return of_slice(seen, view, label) if reference is None else worst(seen, reference, view, label)
