"""What is shown of a case: its scan, its masks, its uncertainty; and what a reader wants to be led to.

All volumes are shown in the scan's axes, in canonical order, so that a voxel has one number everywhere on the page.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from liverjax.errors import InputError
from liverjax.files import read_json
from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.objects import components
from liverjax.scans import AS_STORED, Reading, nifti
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

#: Values of the voxels of a mask as it is shown: inside, then on the outline.
SHOWN = {"liver": (LIVER, 3), "tumor": (TUMOR, 4)}
# Slices with less liver than this are not ranked, in mm2: the same area as counts as right in `slice_quality`.
_NEGLIGIBLE_MM2 = 100.0
# No other scan has values as low as the air of a CT, in HU.
_AIR_HU = -500
# Range in HU that shows the liver of a CT, and percentiles of any other scan.
_CT_WINDOW, _PERCENTILES = (-110.0, 190.0), (1.0, 99.5)
_INT16 = (-(2**15), 2**15 - 1)


@dataclasses.dataclass(frozen=True)
class Study:
    """A case to look at. A volume is a file, or is there already.

    Attributes:
      name: of the case.
      scan: the scan: a file, a folder with a DICOM series, a volume, or what reads one.
      masks: masks by the name under which they are listed, likewise, the first the one that is judged.
      reference: the mask by a reader, if there is one.
      doubt: the entropy, 0 to 1, if there is one.
      quality: table of the expected Dice of each slice, or the values in the order of the scan's slices.
      expected_dice: of the whole mask, if it is known.
      reading: choices of the user that reading the scan needs.
      scores: Dice with the reference by region, if the case was scored.
    """

    name: str
    scan: pathlib.Path | Volume | Callable[[], Volume]
    masks: Mapping[str, pathlib.Path | Volume | Callable[[], Volume]]
    reference: Callable[[], Volume] | None = None
    doubt: pathlib.Path | Volume | None = None
    quality: pathlib.Path | np.ndarray | None = None
    expected_dice: float | None = None
    reading: Reading = AS_STORED
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def layers(self) -> list[str]:
        """Returns the names of what is shown over the scan."""
        return [
            *self.masks,
            *["reference"] * (self.reference is not None),
            *["doubt"] * (self.doubt is not None),
        ]

    def read_scan(self) -> Volume:
        """Reads the scan.

        Raises:
          InputError: it cannot be read.
        """
        if isinstance(self.scan, Volume):
            return self.scan
        return self.scan() if callable(self.scan) else self.reading.read(self.scan)

    def read_layer(self, name: str, scan: Volume) -> Volume:
        """Reads a mask, label ids; the reference; or the doubt.

        Raises:
          InputError: it cannot be read, or does not lie on the scan voxel on voxel.
        """
        if name == "reference" and self.reference is not None:
            found = self.reference()
        elif name == "doubt" and self.doubt is not None:
            found = self.doubt if isinstance(self.doubt, Volume) else nifti.read(self.doubt)
        elif isinstance(mask := self.masks[name], Volume):
            found = mask
        else:
            found = mask() if callable(mask) else nifti.read_mask(mask)
        nifti.require_same_geometry(found, scan)
        return found

    def describe(self, scan: Volume) -> dict[str, Any]:
        """Returns what the page says of the case: layers, volumes, lesions, and slices by quality, the worst first.

        Args:
          scan: from `read_scan`.

        Raises:
          InputError: a file cannot be used.
        """
        masks = {name: to_canonical(self.read_layer(name, scan)) for name in self.layers() if name != "doubt"}
        low, high = window(scan)
        judged = next(iter(masks.values()), None)
        slices, measure = self._slices(scan, masks)
        return {
            "layers": [
                {"name": name, "kind": "doubt" if name == "doubt" else "mask"} for name in self.layers()
            ],
            "shape": list(to_canonical(scan).shape),
            "window": [low, high],
            "volumes": {name: mask.region_millilitres() for name, mask in masks.items()},
            "lesions": _lesions(judged) if judged is not None else [],
            "slices": slices,
            "measure": measure,
            **self.listed(),
        }

    def listed(self) -> dict[str, Any]:
        """Returns the name of the case and what is known of its quality without reading it."""
        return {"name": self.name, "expected_dice": self.expected_dice, "scores": dict(self.scores)}

    def _slices(self, scan: Volume, masks: Mapping[str, Volume]) -> tuple[list[dict[str, Any]], str]:
        """Returns the slices with liver, the worst first, and what they are ranked by."""
        if not masks:
            return [], ""
        names = list(masks)
        mask = masks[names[0]].voxels
        quality, measure = None, "area of the mask"
        if self.quality is not None:
            quality, measure = self._stated(scan, mask.shape[2]), "expected Dice"
        elif len(names) > 1:
            quality, measure = slice_dice(mask, masks[names[-1]].voxels), f"Dice with {names[-1]}"
        area = (mask != BACKGROUND).sum((0, 1)) * float(np.prod(masks[names[0]].spacing[:2]))
        rows = [
            {
                "voxel": [*_middle(mask[:, :, z] != BACKGROUND, masks[names[0]].spacing[:2]), int(z)],
                "area_mm2": float(area[z]),
                "quality": None if quality is None else float(quality[z]),
            }
            for z in np.flatnonzero(area > _NEGLIGIBLE_MM2)
        ]
        rows.sort(key=lambda row: row["voxel"][2] if row["quality"] is None else row["quality"])
        return rows, measure

    def _stated(self, scan: Volume, count: int) -> np.ndarray:
        """Returns the quality of the slices in canonical order."""
        assert self.quality is not None
        if isinstance(self.quality, np.ndarray):
            values = np.asarray(self.quality, float)
        else:
            try:
                with open(self.quality, encoding="utf-8", newline="") as file:
                    pairs = [(int(row["slice"]), float(row["expected_dice"])) for row in csv.DictReader(file)]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.quality}: is no table of slices by quality ({error})") from None
            values = np.full(count, np.nan)
            if {index for index, _ in pairs} == set(range(count)):
                values[[index for index, _ in pairs]] = [value for _, value in pairs]
        if len(values) != count or not np.isfinite(values).all():
            raise InputError(f"{self.quality}: expected the quality of {count} slices, as the scan has")
        axes = nib.orientations.io_orientation(scan.affine)
        return values[::-1] if axes[axes[:, 0] == 2, 1][0] < 0 else values


def slice_dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns for each slice (x, y, z) along z the Dice of the livers, tumours included; 1 where both have none."""
    a, b = a != BACKGROUND, b != BACKGROUND
    both = a.sum((0, 1)) + b.sum((0, 1))
    return np.where(both == 0, 1.0, 2 * (a & b).sum((0, 1)) / np.maximum(both, 1))


def outlined(mask: np.ndarray) -> np.ndarray:
    """Returns label ids (x, y, z) as the page shows them, uint8: the values of `SHOWN`.

    The outline of a region is those of its voxels that have a face in common with a voxel outside; the liver's region
    has its tumours in it.
    """
    shown = np.zeros(mask.shape, np.uint8, order="F")
    box = components.bounding_box(mask != BACKGROUND)
    if not mask[box].size:
        return shown
    inner = np.ascontiguousarray(mask[box]).astype(np.uint8, copy=False)
    values = inner.copy()
    for region, own, border in (
        (inner != BACKGROUND, inner == LIVER, SHOWN["liver"][1]),
        (inner == TUMOR, inner == TUMOR, SHOWN["tumor"][1]),
    ):
        values[own & ~_eroded(region)] = border
    shown[box] = values
    return shown


def _eroded(region: np.ndarray) -> np.ndarray:
    """Returns the voxels of a region of which all six neighbours are in it; those at the array's edge are not."""
    padded = np.pad(region, 1)
    core = region.copy()
    for axis in range(3):
        for shift in (0, 2):
            around = [slice(1, -1)] * 3
            around[axis] = slice(shift, shift + region.shape[axis])
            core &= padded[tuple(around)]
    return core


def shown_volume(volume: Volume, kind: str) -> Volume:
    """Returns a volume as the page shows it: canonical, and small: int16 or float32, a mask or a doubt uint8.

    Args:
      volume: on the scan's voxels.
      kind: "scan", "mask" or "doubt".
    """
    canonical = to_canonical(volume)
    voxels = canonical.voxels
    if kind == "mask":
        voxels = outlined(voxels)
    elif kind == "doubt":
        voxels = np.rint(np.clip(voxels, 0, 1) * np.float32(255)).astype(np.uint8)
    elif voxels.dtype.kind in "iub" and (
        not voxels.size or (_INT16[0] <= voxels.min() and voxels.max() <= _INT16[1])
    ):
        voxels = voxels.astype(np.int16, copy=False)
    else:
        voxels = voxels.astype(np.float32, copy=False)
    return canonical.with_voxels(voxels)


def file_bytes(volume: Volume) -> tuple[bytes, np.ndarray]:
    """Returns a volume as NIfTI-1, in two pieces: the header, and the voxels in their order in the file."""
    header = nib.Nifti1Header()
    header.set_data_dtype(volume.voxels.dtype)
    header.set_data_shape(volume.shape)
    header.set_xyzt_units("mm")
    header.set_sform(volume.affine, code="scanner")
    header.set_qform(volume.affine, code="scanner")
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header.binaryblock + bytes(4), volume.voxels.ravel(order="F")


def window(scan: Volume) -> tuple[float, float]:
    """Returns the range of intensities that is shown: around the liver in CT, else most of the scan's own."""
    sample = scan.voxels[::4, ::4, :: max(1, scan.shape[2] // 32)]
    if sample.min() <= _AIR_HU:
        return _CT_WINDOW
    low, high = np.percentile(sample, _PERCENTILES)
    return float(low), float(max(high, low + 1e-3))


def _lesions(mask: Volume) -> list[dict[str, Any]]:
    """Returns the tumours of a canonical mask, the largest first, each with a voxel of its own near its centre."""
    where = mask.voxels == TUMOR
    around = components.bounding_box(where)
    if not where[around].size:
        return []
    ids = components.label(where[around])
    spacing = tuple(float(size) for size in mask.spacing)
    found = sorted(components.lesions(ids, spacing), key=lambda lesion: -lesion.volume_ml)
    rows = []
    for lesion in found:
        corner = [outer.start + inner.start for outer, inner in zip(around, lesion.box, strict=True)]
        place = np.add(_middle(ids[lesion.box] == lesion.id, spacing), corner)
        rows.append({"voxel": place.tolist(), "ml": lesion.volume_ml, "diameter_mm": lesion.diameter_mm})
    return rows


def _middle(region: np.ndarray, spacing: Sequence[float] | np.ndarray) -> list[int]:
    """Returns the pixel or voxel of a region that is nearest to its centre, which may lie outside."""
    inside = np.argwhere(region)
    return inside[np.argmin((((inside - inside.mean(0)) * spacing) ** 2).sum(1))].tolist()


# --- folders ------------------------------------------------------------------------------------------------


def read_folder(
    folder: str | os.PathLike,
    references: Mapping[str, Callable[[], Volume]] | None = None,
    reading: Reading = AS_STORED,
) -> list[Study]:
    """Returns the cases of a folder that `liverjax predict` wrote, by expected Dice, the worst first.

    Args:
      folder: holds `manifest.json` and masks, which must lie in it: a link that leads out of it is refused.
      references: of each case id, what reads its reference.
      reading: choices that reading the scans needs.

    Raises:
      InputError: it has no manifest, or none of predictions, or holds no mask.
    """
    folder = pathlib.Path(folder)
    try:
        facts = read_json(folder / "manifest.json")
    except FileNotFoundError:
        raise InputError(
            f"{folder}: holds no manifest.json as `liverjax predict` writes it, expected predictions; name the files "
            "instead: liverjax view SCAN MASK"
        ) from None
    try:
        records = [*facts["cases"], *(case for run in facts.get("earlier", []) for case in run["cases"])]
        named = [
            (str(r["id"]), str(r["scan"]), pathlib.Path(r["mask"]), r.get("expected_dice")) for r in records
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'manifest.json'}: no manifest of predictions ({error!r})") from None
    studies: dict[str, Study] = {}
    for id, scan, mask, expected in named:
        file = folder / mask.name
        if id in studies or not mask.name.lower().endswith((".nii", ".nii.gz")) or not inside(file, folder):
            continue
        stem = mask.name[: mask.name.lower().rindex(".nii")]
        entropy = folder / "uncertainty" / f"{stem}_entropy.nii.gz"
        quality = folder / "uncertainty" / f"{stem}_quality.csv"
        studies[id] = Study(
            id,
            pathlib.Path(scan),
            {"prediction": file},
            (references or {}).get(id),
            entropy if inside(entropy, folder) else None,
            quality if inside(quality, folder) else None,
            expected if isinstance(expected, (int, float)) else None,
            reading,
        )
    if not studies:
        raise InputError(
            f"{folder}: holds no NIfTI mask of its manifest, expected predictions; run `liverjax predict`"
        )
    return sorted(
        studies.values(), key=lambda study: -1.0 if study.expected_dice is None else study.expected_dice
    )


def inside(file: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a path is that of a file in a folder, wherever links lead."""
    try:
        return file.is_file() and file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def named_files(
    scan: str | os.PathLike, masks: Sequence[str | os.PathLike], reading: Reading = AS_STORED
) -> Study:
    """Returns the case of a scan and masks that are named, each under the name of its file."""
    paths = [pathlib.Path(mask) for mask in masks]
    names = [path.name for path in paths]
    keys = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return Study(
        pathlib.Path(scan).name, pathlib.Path(scan), dict(zip(keys, paths, strict=True)), reading=reading
    )
