"""Scans of a patient: tissues painted over each other on a grid, then noise."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
from scipy import ndimage

from liverjax import labels
from liverjax.datasets.phantom import implicit
from liverjax.datasets.phantom.anatomy import Patient

#: What each tissue shows: HU in four contrast phases, then signal in three MR sequences (fat in phase = 1).
SCANS = {"ct": ("native", "arterial", "portal", "late"), "mr": ("t1", "t1_fatsat_late", "t2_fatsat")}
_TISSUES = {
    "air": (-1000, -1000, -1000, -1000, 0.0, 0.0, 0.0),
    "lung": (-840, -835, -830, -835, 0.06, 0.08, 0.08),
    "gas": (-950, -950, -950, -950, 0.02, 0.02, 0.02),
    "fat": (-104, -103, -102, -102, 1.0, 0.16, 0.14),
    "muscle": (52, 58, 66, 62, 0.45, 0.42, 0.2),
    "marrow": (190, 195, 205, 200, 0.65, 0.28, 0.22),
    "cortex": (520, 520, 520, 520, 0.12, 0.12, 0.08),
    "artery": (42, 280, 150, 108, 0.22, 0.85, 0.1),
    "vein": (42, 62, 138, 106, 0.22, 0.88, 0.12),
    "portal": (42, 100, 160, 108, 0.22, 0.88, 0.16),
    "liver": (57, 68, 104, 86, 0.62, 0.66, 0.3),
    "spleen": (49, 112, 116, 90, 0.44, 0.66, 0.58),
    "renal": (34, 150, 172, 140, 0.42, 0.85, 0.66),
    "myocardium": (46, 100, 108, 92, 0.46, 0.55, 0.25),
    "bile": (8, 8, 9, 12, 0.22, 0.22, 1.3),
    "meal": (24, 24, 26, 26, 0.3, 0.3, 0.95),
    "gut": (42, 88, 98, 82, 0.46, 0.6, 0.38),
    "chyme": (22, 24, 30, 30, 0.34, 0.34, 0.8),
    "pancreas": (42, 104, 96, 78, 0.6, 0.64, 0.36),
    "cord": (28, 28, 30, 30, 0.3, 0.3, 1.0),
    "hypodense": (26, 34, 44, 50, 0.34, 0.34, 0.62),
    "hyperdense": (42, 128, 142, 116, 0.44, 0.98, 0.52),
}  # fmt: skip


def scan_patient(patient: Patient, modality: str, affine: np.ndarray, shape: tuple[int, int, int]):
    """Scans a patient on a grid.

    Returns:
      The int16 image and the uint8 mask, both (x, y, z), and the contrast phase or sequence: one of `SCANS`.
    """
    rng = _stream(patient.seed, 1, list(SCANS).index(modality))
    # Most scans of livers are taken in the portal venous phase.
    scan = str(rng.choice(SCANS[modality], p=(0.15, 0.15, 0.5, 0.2) if modality == "ct" else None))
    canvas = _Canvas(
        patient=patient,
        tissue=_draw_tissue(rng, scan),
        affine=affine,
        points=patient.points(affine, shape),
        texture=np.real(patient.texture.on_grid(affine, shape)),
        image=np.zeros(shape, np.float32),
        mask=np.full(shape, labels.BACKGROUND, np.uint8),
    )
    for paint in (_paint_trunk, _paint_spine, _paint_vessels, _paint_organs, _paint_liver, _paint_tumors):
        paint(canvas)
    # The noise differs between grids, and is the same wherever the same grid is made.
    grid = zlib.crc32(np.round(np.append(affine, shape) * 1000).astype("<i8").tobytes())
    finish = _finish_ct if modality == "ct" else _finish_mr
    return finish(canvas, rng, _stream(patient.seed, 2, grid)), canvas.mask, scan


def _stream(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _draw_tissue(rng: np.random.Generator, scan: str) -> dict[str, float]:
    """Returns this patient's value of each tissue: enhancement and fat content vary between patients."""
    column = [*SCANS["ct"], *SCANS["mr"]].index(scan)
    tissue = {name: float(values[column]) for name, values in _TISSUES.items()}
    ct = column < len(SCANS["ct"])
    for name in sorted(set(tissue) - {"air", "gas", "lung"}):
        tissue[name] += rng.normal() * (4 if ct else 0.07 * tissue[name])
    steatosis = max(0.0, rng.uniform(-1.6, 1.0)) * (35 if ct else 0.15)
    shift = rng.normal() * (6 if ct else 0.04) - steatosis
    for name in ("liver", "hypodense", "hyperdense"):
        tissue[name] += shift
    return tissue


@dataclasses.dataclass
class _Canvas:
    """A grid on which tissues are painted over each other, each by the fraction of a voxel that it fills.

    All arrays are (x, y, z). `points` are voxel centres in the patient's frame, `texture` is a smooth field
    of zero mean and unit variance.
    """

    patient: Patient
    tissue: dict[str, float]
    affine: np.ndarray
    points: implicit.Points
    texture: np.ndarray
    image: np.ndarray
    mask: np.ndarray

    def crop(self, center, reach) -> _Canvas:
        """Returns the voxels within `reach` mm per axis of `center` in the patient's frame, as a view."""
        center, reach = np.asarray(center), np.asarray(reach)
        return self.crop_world(*self.patient.world_box(center - reach, center + reach))

    def crop_world(self, low, high) -> _Canvas:
        """Returns the voxels that may lie in a box of world mm, as a view."""
        offset = implicit.box_corners(low, high) - self.affine[:3, 3]
        index = offset @ np.linalg.inv(self.affine[:3, :3]).T
        first = np.clip(np.floor(index.min(0)) - 1, 0, self.image.shape).astype(int)
        last = np.clip(np.ceil(index.max(0)) + 2, 0, self.image.shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        arrays = {name: getattr(self, name)[box] for name in ("texture", "image", "mask")}
        return dataclasses.replace(self, affine=affine, points=tuple(c[box] for c in self.points), **arrays)

    def fill(self, distance: np.ndarray, tissue: str | float, texture: float = 0.0) -> None:
        """Paints a tissue, by name or value, inside a body; its texture is a fraction of its contrast with fat."""
        # Edges are as wide as a voxel is on average.
        blur = np.linalg.norm(self.affine[:3, :3], axis=0).mean() / self.patient.scale
        share = np.clip(np.float32(0.5) - distance * np.float32(1 / blur), 0, 1)
        value = np.float32(self.tissue[tissue] if isinstance(tissue, str) else tissue)
        if texture:
            value = value + np.float32(texture * abs(value - self.tissue["fat"])) * self.texture
        self.image += share * (value - self.image)

    def field(self, waves: implicit.Waves) -> np.ndarray:
        return waves.on_grid(self.affine, self.image.shape)


def _paint_trunk(canvas: _Canvas) -> None:
    patient, p = canvas.patient, canvas.points
    canvas.image[...] = canvas.tissue["air"]
    canvas.fill(patient.skin(p), "fat")
    canvas.fill(patient.muscle(p), "muscle", texture=0.03)
    ribs = patient.ribs(p)
    canvas.fill(ribs, "cortex")
    canvas.fill(ribs + 3, "marrow")
    cavity, abdomen = patient.cavity(p), patient.abdomen(p)
    canvas.fill(np.maximum(cavity, abdomen + 1), "fat")
    chest = np.maximum(cavity, 1.5 - abdomen)
    mediastinum = implicit.column(p, (0, patient.spine[1] + 24), (34, 34))
    heart = patient.heart(p)
    canvas.fill(np.maximum(chest, 4 - np.minimum(mediastinum, heart)), "lung")
    canvas.fill(np.maximum(chest, mediastinum), "fat")
    heart = np.maximum(heart, 1.5 - abdomen)
    canvas.fill(heart, "myocardium")
    canvas.fill(heart + 9, 0.5 * (canvas.tissue["artery"] + canvas.tissue["vein"]))
    # Mesentery: vessels in the fat, along the zeros of a random field.
    strand = (np.abs(canvas.field(patient.mesentery)) - np.float32(0.22)) * 11
    canvas.fill(np.maximum(strand, np.maximum(cavity, abdomen) + 10), "vein")
    _paint_bowel(canvas, np.maximum(cavity, abdomen))


def _paint_bowel(canvas: _Canvas, abdomen: np.ndarray) -> None:
    """Winding tubes of wall, contents and gas in the lower and front parts of the abdomen."""
    patient, (x, y, z) = canvas.patient, canvas.points
    room = np.maximum(abdomen + 9, patient.spine[1] + 34 - y + np.float32(0.15) * np.abs(x))
    room = np.maximum(
        room, np.float32(0.7) * (z + 10 - np.float32(0.25) * (y + np.float32(0.4 * patient.half[1])))
    )
    # The field's slope where it is zero is about 2 pi / wavelength: 13 mm per unit.
    tube = (np.abs(canvas.field(patient.bowel)) - np.float32(0.95)) * 13
    canvas.fill(np.maximum(tube, room), "gut")
    lumen = np.maximum(tube + 3.5, room + 3)
    canvas.fill(lumen, "chyme", texture=0.1)
    gas = (np.float32(0.9) - np.real(canvas.field(patient.bowel_gas))) * 15
    canvas.fill(np.maximum(lumen + 1, gas - np.float32(0.15) * y), "gas")


def _paint_spine(canvas: _Canvas) -> None:
    center = canvas.patient.spine
    canvas = canvas.crop((*center - (0, 15), 0), (62, 62, 1000))
    x, y, z = p = canvas.points
    for side in (-1, 1):
        psoas = implicit.column(p, (side * 36, center[1] - 2), (15, 18))
        canvas.fill(np.maximum(psoas, np.float32(0.3) * (z + 10)), "muscle")
    level = np.abs(z - 34 * np.round(z * np.float32(1 / 34)))
    arch = implicit.column(p, center - (0, 27), (15, 13))
    process = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(y - np.float32(center[1] - 48)) - 14), 6 - level)
    wings = np.maximum(np.maximum(np.abs(y - np.float32(center[1] - 24)) - 4, np.abs(x) - 36), 9 - level)
    canvas.fill(np.minimum(np.minimum(process, wings), arch), "cortex")
    canvas.fill(arch + 6, "cord")
    body = implicit.column(p, center, (22, 17))
    canvas.fill(body, "cortex")
    canvas.fill(body + 2.5, "marrow", texture=0.08)
    canvas.fill(np.maximum(body, level - 4), 0.4 * canvas.tissue["marrow"] + 0.6 * canvas.tissue["muscle"])


def _paint_vessels(canvas: _Canvas) -> None:
    for (center, radius), tissue in ((canvas.patient.aorta, "artery"), (canvas.patient.cava, "vein")):
        region = canvas.crop((*center, 0), (radius + 2, radius + 2, 1000))
        region.fill(implicit.column(region.points, center, (radius, radius)), tissue)


def _paint_organs(canvas: _Canvas) -> None:
    patient, (a, b) = canvas.patient, canvas.patient.half
    region = canvas.crop((-0.15 * a, 0, -10), (0.6 * a, 0.5 * b, 50))
    region.fill(patient.pancreas(region.points), "pancreas", texture=0.06)

    for which, (center, radius) in enumerate(patient.kidneys):
        region = canvas.crop(center, (2 * radius, radius + 4, 2 * radius + 8))
        kidney = patient.kidney(region.points, which)
        region.fill(kidney, 1.08 * canvas.tissue["renal"])
        region.fill(kidney + 6, 0.92 * canvas.tissue["renal"], texture=0.06)

    region = canvas.crop((-0.4 * a, 0.15 * b, 5), (0.6 * a, 0.8 * b, 90))
    stomach = patient.stomach_body(region.points)
    region.fill(stomach, "gut")
    region.fill(stomach + 4, "meal", texture=0.08)
    region.fill(np.maximum(stomach + 4, patient.stomach_level - region.points[1]), "gas")

    region = canvas.crop(patient.spleen_center, patient.spleen_radii + 2)
    region.fill(patient.spleen(region.points), "spleen", texture=0.03)

    if patient.has_gallbladder:
        neck, fundus, radius = patient.gallbladder
        region = canvas.crop((neck + fundus) / 2, np.abs(fundus - neck) / 2 + radius + 2)
        region.fill(patient.gallbladder_body(region.points), "bile")


def _paint_liver(canvas: _Canvas) -> None:
    patient = canvas.patient
    region = canvas.crop(patient.liver_center, patient.liver_radii)
    liver = patient.liver(region.points)
    region.fill(liver, "liver", texture=0.05)
    region.mask[liver < 0] = labels.LIVER
    for vessel in patient.vessels:
        reach = np.abs(vessel.end - vessel.start) / 2 + vessel.radii[0] + 1
        piece = canvas.crop((vessel.start + vessel.end) / 2, reach)
        tube = implicit.capsule(piece.points, vessel.start, vessel.end, vessel.radii)
        piece.fill(np.where(piece.mask == labels.LIVER, tube, np.float32(np.inf)), vessel.kind)


def _paint_tumors(canvas: _Canvas) -> None:
    liver = canvas.tissue["liver"]
    for tumor in canvas.patient.tumors:
        region = canvas.crop_world(*tumor.world_box())
        body = tumor.distance(implicit.grid_points(region.affine, region.image.shape))

        def fill(distance, kind, contrast, region=region):
            region.fill(distance, liver + contrast * (region.tissue[kind] - liver))

        if tumor.kind == "rim":
            fill(body, "hyperdense", 0.7 * tumor.contrast)
            fill(body + 0.11 * tumor.diameter, "hypodense", 1.15 * tumor.contrast)
        else:
            fill(body, tumor.kind, tumor.contrast)
            # Large tumours die from within.
            fill(body + 0.3 * tumor.diameter + 3, "hypodense", 1.25 * tumor.contrast)
        region.mask[body < 0] = labels.TUMOR


def _finish_ct(canvas: _Canvas, rng: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    """Adds noise whose grains are about a voxel wide. Returns int16 HU."""
    grain = ndimage.gaussian_filter(noise.standard_normal(canvas.image.shape, dtype=np.float32), 0.6)
    image = canvas.image + grain * np.float32(rng.uniform(9, 20) / grain.std())
    return np.round(np.clip(image, -1024, 3000)).astype(np.int16)


def _finish_mr(canvas: _Canvas, rng: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    """Multiplies by a smooth bias field and a scale, adds Rician noise. Returns int16, arbitrary units."""
    coil = implicit.Waves(rng, (280, 600), 12)
    strength, level, scale = (
        np.float32(rng.uniform(low, high)) for low, high in ((0.15, 0.4), (0.02, 0.05), (250, 1500))
    )
    signal = np.maximum(canvas.image, 0) * np.exp(strength * np.real(canvas.field(coil)))
    real = signal + level * noise.standard_normal(signal.shape, dtype=np.float32)
    imaginary = level * noise.standard_normal(signal.shape, dtype=np.float32)
    return np.round(np.clip(np.hypot(real, imaginary) * scale, 0, 32000)).astype(np.int16)
