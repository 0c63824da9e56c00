"""What a patient looks like in a scan: tissues laid over each other on a grid, then noise."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import ndimage

from liverjax import labels
from liverjax.scans.phantom import implicit
from liverjax.scans.phantom.anatomy import Patient, Tumor, tumor_distance

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
    tissue = _draw_tissue(rng, scan)
    canvas = _Canvas(patient, affine, shape)
    liver, tumor = _paint(canvas, patient, tissue)
    # The noise differs between grids, and is the same wherever the same grid is made.
    grid = zlib.crc32(np.round(np.append(affine, shape) * 1000).astype("<i8").tobytes())
    finish = _finish_ct if modality == "ct" else _finish_mr
    image = finish(canvas, rng, _stream(patient.seed, 2, grid))
    mask = np.where(tumor, labels.TUMOR, np.where(liver, labels.LIVER, labels.BACKGROUND))
    return image, mask.astype(np.uint8), scan


def _stream(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _draw_tissue(rng: np.random.Generator, scan: str) -> dict[str, float]:
    """Returns this patient's value of each tissue: enhancement and fat content vary between patients."""
    column = [*SCANS["ct"], *SCANS["mr"]].index(scan)
    tissue = {name: float(values[column]) for name, values in _TISSUES.items()}
    ct = column < 4
    for name in sorted(set(tissue) - {"air", "gas", "lung"}):
        tissue[name] += rng.normal() * (4 if ct else 0.07 * tissue[name])
    steatosis = max(0.0, rng.uniform(-1.6, 1.0)) * (35 if ct else 0.15)
    shift = rng.normal() * (6 if ct else 0.04) - steatosis
    for name in ("liver", "hypodense", "hyperdense"):
        tissue[name] += shift
    return tissue


class _Canvas:
    """An image that tissues are laid on in order, each with the part of a voxel that it fills."""

    def __init__(self, patient: Patient, affine: np.ndarray, shape: tuple[int, int, int]):
        self.patient, self.affine, self.shape = patient, affine, shape
        self.points = patient.points(affine, shape)
        self.texture = patient.texture.on_grid(affine, shape).real
        #: Edges blur over about one voxel.
        self.blur = np.float32(np.linalg.norm(affine[:3, :3], axis=0).mean() / patient.scale)
        self.image = np.zeros(shape, np.float32)

    def world_box(self, low, high) -> tuple[slice, slice, slice]:
        """Returns the voxels that may lie in a box of world mm."""
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
        index = (corners - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
        first = np.clip(np.floor(index.min(0)) - 1, 0, self.shape).astype(int)
        last = np.clip(np.ceil(index.max(0)) + 2, 0, self.shape).astype(int)
        return tuple(slice(a, b) for a, b in zip(first, last, strict=True))

    def box(self, center, reach) -> tuple[slice, slice, slice]:
        """Returns the voxels within `reach` mm per axis of `center` in the patient's frame."""
        center, reach = np.asarray(center), np.asarray(reach)
        return self.world_box(*self.patient.world_box(center - reach, center + reach))

    def at(self, box):
        return tuple(c[box] for c in self.points)

    def fill(self, distance: np.ndarray, value, box=...) -> None:
        part = np.clip(np.float32(0.5) - distance / self.blur, 0, 1)
        self.image[box] += part * (value - self.image[box])


def _paint(canvas: _Canvas, patient: Patient, tissue: dict) -> tuple[np.ndarray, np.ndarray]:
    """Lays every tissue on the canvas, the covering ones last. Returns the liver and tumour masks."""
    liver_box = canvas.box(patient.liver_center, patient.liver_radii)
    _paint_trunk(canvas, patient, tissue)
    _paint_organs(canvas, patient, tissue)
    liver = np.zeros(canvas.shape, bool)
    distance = patient.liver(canvas.at(liver_box))
    grain = 0.05 * abs(tissue["liver"] - tissue["fat"])
    canvas.fill(distance, tissue["liver"] + grain * canvas.texture[liver_box], liver_box)
    liver[liver_box] = distance < 0
    inside = np.full(canvas.shape, np.inf, np.float32)
    inside[liver_box] = distance + 1.5
    for segment in patient.vessels:
        middle = (segment.start + segment.end) / 2
        box = canvas.box(middle, np.abs(segment.end - segment.start) / 2 + segment.radii[0] + 1)
        tube = implicit.capsule(canvas.at(box), segment.start, segment.end, segment.radii)
        canvas.fill(np.maximum(tube, inside[box]), tissue[segment.kind], box)
    tumors = np.zeros(canvas.shape, bool)
    for tumor in patient.tumors:
        _paint_tumor(canvas, tumor, tissue, tumors)
    return liver, tumors


def _paint_trunk(canvas: _Canvas, patient: Patient, tissue: dict) -> None:
    p = canvas.points
    canvas.image += tissue["air"]
    canvas.fill(patient.skin(p), tissue["fat"])
    wall = patient.muscle(p)
    canvas.fill(wall, tissue["muscle"] + 0.03 * abs(tissue["muscle"] - tissue["fat"]) * canvas.texture)
    ribs = patient.ribs(p)
    canvas.fill(ribs, tissue["cortex"])
    canvas.fill(ribs + 3, tissue["marrow"])
    cavity, abdomen = patient.cavity(p), patient.abdomen(p)
    canvas.fill(np.maximum(cavity, abdomen + 1), tissue["fat"])
    # Mesentery: vessels in the fat, along the zeros of a random field.
    strand = (np.abs(patient.mesentery.on_grid(canvas.affine, canvas.shape)) - np.float32(0.22)) * 11
    canvas.fill(np.maximum(strand, np.maximum(cavity, abdomen) + 10), tissue["vein"])
    chest = np.maximum(cavity, 1.5 - abdomen)
    mediastinum = implicit.column(p, (0, patient.spine[1] + 24), (34, 34))
    canvas.fill(np.maximum(chest, 4 - np.minimum(mediastinum, patient.heart(p))), tissue["lung"])
    canvas.fill(np.maximum(chest, mediastinum), tissue["fat"])
    heart = np.maximum(patient.heart(p), 1.5 - abdomen)
    canvas.fill(heart, tissue["myocardium"])
    canvas.fill(heart + 9, 0.5 * (tissue["artery"] + tissue["vein"]))
    _paint_bowel(canvas, patient, tissue, cavity, abdomen)
    _paint_spine(canvas, patient, tissue)


def _paint_bowel(canvas: _Canvas, patient: Patient, tissue: dict, cavity, abdomen) -> None:
    """Winding tubes of wall, contents and gas in the lower and front parts of the abdomen."""
    x, y, z = canvas.points
    b = patient.half[1]
    room = np.maximum(cavity, abdomen) + 9
    room = np.maximum(room, patient.spine[1] + 34 - y + 0.15 * np.abs(x))
    room = np.maximum(room, 0.7 * (z + 10 - 0.25 * (y + 0.4 * b)))
    # |field| is Rayleigh distributed; its slope near a zero is about 2 pi / wavelength.
    tube = (np.abs(patient.bowel.on_grid(canvas.affine, canvas.shape)) - np.float32(0.95)) * 13
    canvas.fill(np.maximum(tube, room), tissue["gut"])
    lumen = np.maximum(tube + 3.5, room + 3)
    canvas.fill(lumen, tissue["chyme"] + 0.1 * abs(tissue["chyme"] - tissue["fat"]) * canvas.texture)
    gas = (0.9 - patient.bowel_gas.on_grid(canvas.affine, canvas.shape).real) * 15
    canvas.fill(np.maximum(lumen + 1, gas - 0.15 * y), tissue["gas"])


def _paint_spine(canvas: _Canvas, patient: Patient, tissue: dict) -> None:
    x, y, z = canvas.points
    center = patient.spine
    rising = np.abs(z - 34 * np.round(z * np.float32(1 / 34)))
    disc = rising - 4
    body = implicit.column(canvas.points, center, (22, 17))
    arch = implicit.column(canvas.points, center - (0, 27), (15, 13))
    process = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(y - (center[1] - 48)) - 14), 6 - rising)
    wings = np.maximum(np.maximum(np.abs(y - (center[1] - 24)) - 4, np.abs(x) - 36), 9 - rising)
    for side in (-1, 1):
        psoas = implicit.column(canvas.points, (side * 36, center[1] - 2), (15, 18))
        canvas.fill(np.maximum(psoas, 0.3 * (z + 10)), tissue["muscle"])
    canvas.fill(np.minimum(np.minimum(process, wings), arch), tissue["cortex"])
    canvas.fill(arch + 6, tissue["cord"])
    canvas.fill(body, tissue["cortex"])
    canvas.fill(body + 2.5, tissue["marrow"] + 0.08 * abs(tissue["marrow"] - tissue["fat"]) * canvas.texture)
    canvas.fill(np.maximum(body, disc), 0.4 * tissue["marrow"] + 0.6 * tissue["muscle"])


def _paint_organs(canvas: _Canvas, patient: Patient, tissue: dict) -> None:
    a, b = patient.half
    for vessel, name in ((patient.aorta, "artery"), (patient.cava, "vein")):
        center, radius = vessel
        box = canvas.box((*center, 0), (radius + 2, radius + 2, 400))
        canvas.fill(patient.tube(canvas.at(box), vessel), tissue[name], box)

    box = canvas.box((-0.15 * a, 0, -10), (0.6 * a, 0.5 * b, 50))
    canvas.fill(patient.pancreas(canvas.at(box)), tissue["pancreas"], box)

    for which in (0, 1):
        center, radius = patient.kidneys[which]
        box = canvas.box(center, (2 * radius, radius + 4, 2 * radius + 8))
        shape = patient.kidney(canvas.at(box), which)
        canvas.fill(shape, tissue["renal"] * 1.08, box)
        canvas.fill(shape + 6, tissue["renal"] * 0.92, box)

    box = canvas.box((-0.4 * a, 0.15 * b, 5), (0.6 * a, 0.8 * b, 90))
    shape = patient.stomach_shape(canvas.at(box))
    canvas.fill(shape, tissue["gut"], box)
    canvas.fill(
        shape + 4, tissue["meal"] + 0.08 * abs(tissue["meal"] - tissue["fat"]) * canvas.texture[box], box
    )
    above = patient.stomach_level - canvas.points[1][box]
    canvas.fill(np.maximum(shape + 4, above), tissue["gas"], box)

    box = canvas.box(patient.spleen_center, patient.spleen_radii + 2)
    grain = 0.03 * abs(tissue["spleen"] - tissue["fat"])
    canvas.fill(patient.spleen(canvas.at(box)), tissue["spleen"] + grain * canvas.texture[box], box)

    if patient.has_gallbladder:
        neck, fundus, radius = patient.gallbladder
        box = canvas.box((neck + fundus) / 2, np.abs(fundus - neck) / 2 + radius + 2)
        canvas.fill(patient.gallbladder_shape(canvas.at(box)), tissue["bile"], box)


def _paint_tumor(canvas: _Canvas, tumor: Tumor, tissue: dict, mask: np.ndarray) -> None:
    center, reach = np.array(tumor.center), 0.6 * tumor.diameter + 1
    box = canvas.world_box(center - reach, center + reach)
    index = np.ix_(*[np.arange(s.start, s.stop) for s in box])
    world = [
        sum(canvas.affine[row, axis] * index[axis] for axis in range(3)) + canvas.affine[row, 3]
        for row in range(3)
    ]
    distance = tumor_distance(tumor, tuple(c.astype(np.float32) for c in world))

    def blend(kind, contrast):
        return tissue["liver"] + contrast * (tissue[kind] - tissue["liver"])

    if tumor.kind == "rim":
        canvas.fill(distance, blend("hyperdense", 0.7 * tumor.contrast), box)
        canvas.fill(distance + 0.11 * tumor.diameter, blend("hypodense", 1.15 * tumor.contrast), box)
    else:
        canvas.fill(distance, blend(tumor.kind, tumor.contrast), box)
        # Large tumours die from within.
        canvas.fill(distance + 0.3 * tumor.diameter + 3, blend("hypodense", 1.25 * tumor.contrast), box)
    mask[box] |= distance < 0


def _finish_ct(canvas: _Canvas, rng: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    """Adds a couch and noise whose grains are about a voxel wide. Returns int16 HU."""
    level = rng.uniform(9, 20)
    grain = noise.standard_normal(canvas.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, 0.6)
    canvas.image += grain * np.float32(level / grain.std())
    return np.round(np.clip(canvas.image, -1024, 3000)).astype(np.int16)


def _finish_mr(canvas: _Canvas, rng: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    """Multiplies a smooth bias field and a scale, adds Rician noise. Returns int16, arbitrary units."""
    coil = implicit.Waves(rng, (280, 600), 12)
    bias = np.exp(np.float32(rng.uniform(0.1, 0.3)) * coil.on_grid(canvas.affine, canvas.shape).real)
    level = rng.uniform(0.02, 0.05)
    signal = np.maximum(canvas.image, 0) * bias
    real, imaginary = (
        noise.standard_normal(canvas.shape, dtype=np.float32) * np.float32(level) for _ in "ri"
    )
    magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)
    return np.round(np.clip(magnitude * rng.uniform(250, 1500), 0, 32000)).astype(np.int16)
