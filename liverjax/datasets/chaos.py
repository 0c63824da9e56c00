"""The CHAOS data set: DICOM folders, with masks as one PNG per slice.

`CT/<n>/{DICOM_anon,Ground}` holds a CT, with liver masks of 0 and 255; `MR/<n>/T2SPIR/{DICOM_anon,Ground}` an
MR scan, with one grey value per organ; `MR/<n>/T1DUAL/{DICOM_anon/InPhase,DICOM_anon/OutPhase,Ground}` two
scans with the same masks. Test sets have no `Ground`. Credit: Kavur et al. 2021 (Med Image Anal 69:101950).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from liverjax.errors import InputError
from liverjax.labels import LIVER
from liverjax.scans import dicom
from liverjax.scans.dicom_headers import Slice
from liverjax.volume import Volume

_SEQUENCES = ("T1DUAL", "T2SPIR")
#: Grey values of the organs in MR masks, from and to: liver, right kidney, left kidney, spleen.
_MR_LIVER = (55, 70)
_MR_OTHERS = ((110, 135), (175, 200), (240, 255))


def find_series(root: Path) -> list[tuple[str, Path, Path | None]]:
    """Returns id, DICOM folder, and mask folder if there is one, of each scan at most four folders down.

    The id begins with modality and patient, as `MR_12_T1DUAL_InPhase`.
    """
    found = []
    for depth in range(5):
        for anonymised in sorted(root.glob("*/" * depth + "DICOM_anon")):
            if not anonymised.is_dir() or any(name[0] == "." for name in anonymised.relative_to(root).parts):
                continue
            place = Path(os.path.abspath(anonymised)).parent  # links keep their names
            names = [place.name] if place.name in _SEQUENCES else []
            patient = [f"MR_{place.parent.name}"] if names else [f"CT_{place.name}"]
            masks = anonymised.parent / "Ground"
            phases = [e for e in sorted(anonymised.iterdir()) if e.is_dir() and e.name[0] != "."]
            for folder in phases or [anonymised]:
                phase = [] if folder == anonymised else [folder.name]
                id = "_".join(patient + names + phase)
                found.append((id, folder, masks if masks.is_dir() else None))
    return found


def patient(id: str) -> str:
    """Returns the patient that a case id names: `MR_12` of `MR_12_T1DUAL_InPhase`, `CT_case_3` of `CT_case_3`."""
    named = re.match(rf"MR_.+?(?=_(?:{'|'.join(_SEQUENCES)})(?:_|$))|CT_\d+(?=_)", id)
    return named[0] if named else id


def read_mask(folder: Path, scan: Path, *, series: int | str | None = None) -> Volume:
    """Reads the masks of a scan as 0 and 1 (liver), in the geometry of its DICOM series.

    The PNG files belong to the DICOM files in the order of their names. Of a dynamic series, either there is one mask a
    position, which belongs to all phases, or one a file, and the phases have the same.

    Args:
      folder: holds the PNG files.
      scan: holds the DICOM files.
      series: as `dicom.read_series`.

    Raises:
      InputError: as many masks as slices are expected, of the same shape, and of grey values that are known; or the
        masks of a dynamic series differ among its phases.
    """
    phases = dicom.find_phases(scan, series=series)
    files = sorted(folder.glob("[!.]*.png"), key=_by_name)
    count = len(phases[0])
    if len(files) == count:
        of_phases = [files] * len(phases)
    elif len(files) == count * len(phases):
        scans = sorted((_by_name(slice_.path), k) for k, phase in enumerate(phases) for slice_ in phase)
        of_phases = [
            [file for file, (_, k) in zip(files, scans, strict=True) if k == number]
            for number in range(len(phases))
        ]
    else:
        each = f", or {count * len(phases)}, one for each file" if len(phases) > 1 else ""
        raise InputError(
            f"{folder}: {len(files)} masks, expected {count}, one for each slice in {scan}{each}"
        )
    voxels = _stacked(phases[0], of_phases[0])
    for number in range(1, len(phases)):
        if not np.array_equal(voxels, _stacked(phases[number], of_phases[number])):
            raise InputError(
                f"{folder}: {scan} holds {len(phases)} phases, and the masks of phases 0 and {number} differ; expected "
                "the same, or one folder with a DICOM_anon and a Ground for each phase"
            )
    return Volume(_liver(voxels, folder), dicom.stack_affine(phases[0], scan), name=str(folder))


def _stacked(stack: Sequence[Slice], files: Sequence[Path]) -> np.ndarray:
    """Returns the grey values (x, y, z) of masks which belong to the slices in the order of their names."""
    voxels = np.empty((*stack[0].shape[::-1], len(stack)), np.uint8, order="F")
    order = sorted(range(len(stack)), key=lambda k: _by_name(stack[k].path))
    for file, k in zip(files, order, strict=True):
        voxels[:, :, k] = _grey_values(file, stack[k]).T
    return voxels


def _by_name(file: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Returns a key in which numbers count as such: files and masks may be padded with zeros or not."""
    parts = re.split(r"(\d+)", file.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], file.name


def _grey_values(file: Path, slice_: Slice) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            shape = (*image.size[::-1], *image.getbands()[1:])
            pixels = np.asarray(image) if shape == slice_.shape else None  # else it takes no memory
    except Exception as error:  # Pillow raises errors of many types on a damaged file
        raise InputError(f"{file}: cannot be read as PNG ({' '.join(str(error).split())})") from None
    if pixels is None:
        raise InputError(f"{file}: has shape {shape}, expected {slice_.shape} as {slice_.path}")
    if pixels.dtype != np.uint8 and pixels.max() > 255:
        raise InputError(f"{file}: holds the grey value {pixels.max()}, expected at most 255")
    return pixels


def _liver(voxels: np.ndarray, folder: Path) -> np.ndarray:
    values = set(np.unique(voxels).tolist())
    if values <= {0, 1} or values <= {0, 255}:  # CT
        return (voxels > 0).astype(np.uint8) * np.uint8(LIVER)
    ranges = (_MR_LIVER, *_MR_OTHERS)
    unknown = sorted(v for v in values - {0} if not any(low <= v <= high for low, high in ranges))
    if unknown:
        raise InputError(f"{folder}: grey values {unknown[:5]}, expected 0 and 255, or the organs' {ranges}")
    return ((voxels >= _MR_LIVER[0]) & (voxels <= _MR_LIVER[1])).astype(np.uint8) * np.uint8(LIVER)
