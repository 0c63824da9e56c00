"""The CHAOS data set: DICOM folders, with masks as one PNG per slice.

`CT/<n>/{DICOM_anon,Ground}` holds a CT, with liver masks of 0 and 255; `MR/<n>/T2SPIR/{DICOM_anon,Ground}` an
MR scan, with one grey value per organ; `MR/<n>/T1DUAL/{DICOM_anon/InPhase,DICOM_anon/OutPhase,Ground}` two
scans with the same masks. Test sets have no `Ground`. Credit: Kavur et al. 2021 (Med Image Anal 69:101950).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from liverjax.errors import InputError
from liverjax.labels import LIVER
from liverjax.scans import dicom
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
    for depth in range(1, 5):
        for anonymised in sorted(root.glob("/".join(["*"] * depth) + "/DICOM_anon")):
            place = anonymised.resolve().parent
            names = [place.name] if place.name in _SEQUENCES else []
            patient = [f"MR_{place.parent.name}"] if names else [f"CT_{place.name}"]
            masks = anonymised.parent / "Ground"
            for folder in [entry for entry in sorted(anonymised.iterdir()) if entry.is_dir()] or [anonymised]:
                phase = [] if folder == anonymised else [folder.name]
                id = "_".join(patient + names + phase)
                found.append((id, folder, masks if masks.is_dir() else None))
    return found


def patient(id: str) -> str:
    """Returns the patient that a case id names: `MR_12` of `MR_12_T1DUAL_InPhase`."""
    return "_".join(id.split("_")[:2])


def read_mask(folder: Path, series: Path) -> Volume:
    """Reads the masks of a scan as 0 and 1 (liver), in the geometry of its DICOM series.

    The PNG files belong to the DICOM files in the order of their names.

    Raises:
      InputError: as many masks as slices are expected, of the same shape, and of grey values that are known.
    """
    from PIL import Image

    (stack,) = dicom.find_phases(series)
    files = sorted(folder.glob("[!.]*.png"))
    if len(files) != len(stack):
        raise InputError(
            f"{folder}: {len(files)} masks, expected {len(stack)}, one for each slice in {series}"
        )
    voxels = np.empty((*stack[0].shape[::-1], len(stack)), np.uint8, order="F")
    by_name = sorted(range(len(stack)), key=lambda k: stack[k].path.name)
    for file, k in zip(files, by_name, strict=True):
        try:
            pixels = np.asarray(Image.open(file))
        except OSError as error:
            raise InputError(f"{file}: cannot be read as PNG ({error})") from None
        if pixels.shape != stack[k].shape:
            raise InputError(
                f"{file}: has shape {pixels.shape}, expected {stack[k].shape} as {stack[k].path}"
            )
        voxels[:, :, k] = pixels.T
    return Volume(_liver(voxels, folder), dicom.stack_affine(stack, series), name=str(folder))


def _liver(voxels: np.ndarray, folder: Path) -> np.ndarray:
    values = set(np.unique(voxels).tolist())
    if values <= {0, 1} or values <= {0, 255}:  # CT
        return (voxels > 0).astype(np.uint8) * np.uint8(LIVER)
    ranges = (_MR_LIVER, *_MR_OTHERS)
    unknown = sorted(v for v in values - {0} if not any(low <= v <= high for low, high in ranges))
    if unknown:
        raise InputError(f"{folder}: grey values {unknown[:5]}, expected 0 and 255, or the organs' {ranges}")
    return ((voxels >= _MR_LIVER[0]) & (voxels <= _MR_LIVER[1])).astype(np.uint8) * np.uint8(LIVER)
