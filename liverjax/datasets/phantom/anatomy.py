"""The patient behind a phantom: organs as implicit surfaces in millimetres, drawn from a seed alone.

Every organ is a function of points that is negative inside, positive outside, and near the surface roughly
the distance to it in mm. No grid appears here, so one seed is one patient however it is scanned.

The organs live in the patient's own frame: x towards the patient's right, y towards anterior, z towards
superior, the origin between the spine and the front wall at the height of the liver's hilum.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy import ndimage

from liverjax.datasets.phantom.implicit import (
    Points,
    Waves,
    box_corners,
    capsule,
    column,
    ellipsoid,
    grid_points,
    rotation_matrix,
    smooth_max,
    smooth_min,
    squircle_column,
)

#: Spacing in mm of the lattice on which liver volumes are counted.
_LATTICE_MM = 2.0


@dataclasses.dataclass(frozen=True)
class Tumor:
    """One tumour. Its volume is exactly that of the sphere of its diameter, whatever its shape.

    Attributes:
      center: (3,) in mm, RAS+ world coordinates.
      diameter: of the sphere of the same volume, in mm.
      volume: in ml.
      kind: `"hypodense"`, `"hyperdense"` or `"rim"` (hypodense within a bright rim).
      contrast: 0 looks like liver, 1 differs from it as much as any.
      shape: (3, 3) symmetric traceless matrix and a cubic term: how the surface departs from the sphere.
    """

    center: tuple[float, float, float]
    diameter: float
    kind: str
    contrast: float
    shape: tuple[np.ndarray, float] = dataclasses.field(repr=False, compare=False)

    @property
    def volume(self) -> float:
        return np.pi / 6 * self.diameter**3 / 1000

    def world_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the corners of a box in world mm that holds the tumour: no radius exceeds 1.2 R."""
        center, reach = np.array(self.center), 0.6 * self.diameter
        return center - reach, center + reach

    def distance(self, world: Points) -> np.ndarray:
        """Approximate distance in mm to the surface at points in world coordinates.

        The body is star-shaped about its centre: r(u)^3 = R^3 (1 + u.S u + c u_x u_y u_z) in direction u, S
        traceless. Both terms are spherical harmonics, of degree 2 and 3, and vanish in the mean over the
        sphere, so that the volume, 4/3 pi times the mean of r^3, is exactly 4/3 pi R^3.
        """
        tensor, cubic = self.shape
        offset = [c - np.float32(o) for c, o in zip(world, self.center, strict=True)]
        distance = np.sqrt(sum(c * c for c in offset)) + np.float32(1e-6)
        x, y, z = (c / distance for c in offset)
        s = np.asarray(tensor, np.float32)
        bulge = s[0, 0] * x * x + s[1, 1] * y * y + s[2, 2] * z * z
        bulge += 2 * (s[0, 1] * x * y + s[0, 2] * x * z + s[1, 2] * y * z) + np.float32(cubic) * x * y * z
        return distance - np.float32(self.diameter / 2) * np.cbrt(1 + bulge)


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a vessel of `kind` `"portal"` or `"vein"`: ends in the patient's frame, radii in mm."""

    kind: str
    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]


class Patient:
    """Sizes and positions of everything inside one patient."""

    def __init__(self, seed: int):
        self.seed = seed
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0])))
        # The pose: world -> patient frame is a rotation, a scale and a shift, then a smooth warp.
        self.scale = rng.uniform(0.93, 1.05)
        self.shift = rng.uniform(-1, 1, 3) * (8, 6, 12)
        roll, pitch, yaw = np.deg2rad(rng.uniform(-1, 1, 3) * (4, 4, 5))
        self.rotation = rotation_matrix(pitch, roll, yaw)
        self.warps = [(Waves(rng, (90, 240), 12), rng.uniform(2.0, 4.0)) for _ in range(3)]
        # The trunk: half width and half depth of the abdominal cavity, then what lies around it.
        self.half = np.array([width := rng.uniform(112, 134), width * rng.uniform(0.66, 0.78)])
        self.wall, self.fat = rng.uniform(10, 15), rng.uniform(5, 28)
        self.dome = rng.uniform(72, 92)
        self.dome_height = rng.uniform(92, 112)
        self.rib_phase, self.rib_slope = rng.uniform(0, 30), rng.uniform(0.3, 0.5)
        a, b = self.half
        self.spine = np.array([0.0, 33.0 - b])
        # The liver: its visceral surface is x = offset - tilt_y y - bend y^2 - tilt_z z for y in front of the
        # hilum (see `_visceral_x`), its ellipsoid bounds it.
        self.visceral = (
            rng.uniform(4, 18),
            rng.uniform(0.4, 0.65),
            rng.uniform(0.002, 0.012),
            rng.uniform(0.55, 0.85),
        )
        self.liver_radii = np.array([a * rng.uniform(0.94, 1.2), 1.15 * b, rng.uniform(80, 102)])
        # Its upper end is above the dome, which it fills.
        self.liver_center = np.array([0.42 * a, 5.0, self.dome + rng.uniform(20, 32) - self.liver_radii[2]])
        self.fissure = rng.uniform(-16, 4), rng.uniform(-5, 15)
        # The other organs.
        self.spleen_center = np.array([-0.7 * a, -0.42 * b, rng.uniform(22, 40)])
        self.spleen_radii = np.array([0.37 * a, 0.5 * b, rng.uniform(42, 62)])
        self.kidneys = [
            (np.array([side * rng.uniform(54, 62), 40 - b, rng.uniform(low, low + 15)]), rng.uniform(22, 27))
            for side, low in ((1, -70), (-1, -55))
        ]
        full = rng.uniform(0.75, 1.15)
        self.stomach = [
            (np.array([-0.42 * a, -0.12 * b, 42.0]), 33 * full),
            (np.array([-0.46 * a, 0.3 * b, 2.0]), 26 * full),
            (np.array([-0.12 * a, 0.45 * b, -34.0]), 17 * full),
        ]
        self.stomach_level = rng.uniform(0.1, 0.5) * b
        self.has_gallbladder = rng.random() < 0.85
        neck = np.array([0.0, rng.uniform(0.2, 0.3) * b, rng.uniform(-32, -22)])
        neck[0] = self._visceral_x(neck[1], neck[2]) + 3
        self.gallbladder = neck, neck + np.array([rng.uniform(0, 14), 0.35 * b, -22]), rng.uniform(9, 15)
        self.aorta = np.array([-9.0, self.spine[1] + 33]), rng.uniform(8, 11)
        self.cava = np.array([18.0, self.spine[1] + 32]), rng.uniform(9, 12)
        self.bowel = Waves(rng, (60, 110), 24)
        self.bowel_gas = Waves(rng, (70, 140), 12)
        self.mesentery = Waves(rng, (45, 90), 16)
        self.texture = Waves(rng, (12, 40), 32)
        self.heart_side = rng.uniform(-0.3, -0.12)
        self.vessels = self._grow_vessels(rng)
        self.tumors = self._place_tumors(rng)

    # ---- frames

    def points(self, affine: np.ndarray, shape: tuple[int, int, int]) -> Points:
        """Returns the voxel centres of a grid in the patient's frame: three (x, y, z) float32 arrays."""
        to_frame = self.rotation / self.scale
        matrix, start = to_frame @ affine[:3, :3], to_frame @ (affine[:3, 3] - self.shift)
        straight = grid_points(np.c_[matrix, start], shape)
        x, y, z = (
            c + np.real(waves.on_grid(affine, shape)) * np.float32(size)
            for c, (waves, size) in zip(straight, self.warps, strict=True)
        )
        return x, y, z

    def world_box(self, low, high) -> tuple[np.ndarray, np.ndarray]:
        """Returns the corners of a box in world mm that holds the box `low` to `high` of the frame."""
        world = self.scale * box_corners(low, high) @ self.rotation + self.shift
        # A wave sum of unit variance hardly exceeds four deviations.
        margin = self.scale * 4 * max(size for _, size in self.warps)
        return world.min(0) - margin, world.max(0) + margin

    # ---- trunk

    def skin(self, p: Points) -> np.ndarray:
        return squircle_column(p, self.half + self.wall + self.fat * np.array([1, 0.8]))

    def muscle(self, p: Points) -> np.ndarray:
        """The trunk without its subcutaneous fat."""
        return squircle_column(p, self.half + self.wall)

    def cavity(self, p: Points) -> np.ndarray:
        """Chest and abdomen inside the wall, less the spine with its muscles."""
        b = self.half[1]
        inside = smooth_max(squircle_column(p, self.half), -column(p, (0, -b - 4), (60, 36)), 12)
        return smooth_max(inside, -column(p, self.spine, (25, 21)), 6)

    def abdomen(self, p: Points) -> np.ndarray:
        """Below the diaphragm: two domes, the right one higher, and a saddle under the heart."""
        a, b = self.half
        height = self.dome_height
        domes = []
        for center, width, top in ((0.45, 0.62, 0), (-0.45, 0.62, -12), (0, 0.6, -34)):
            base = self.dome + top - height
            above = np.maximum(p[2], np.float32(base))
            shape = (center * a, 4.0, base), (width * a, 1.08 * b, height)
            domes.append(ellipsoid((p[0], p[1], above), *shape))
        return smooth_min(smooth_min(domes[0], domes[1], 15), domes[2], 15)

    def ribs(self, p: Points) -> np.ndarray:
        """Rings within the wall that sink towards the front, down to the costal margin."""
        x, y, z = p
        height = z + np.float32(self.rib_slope) * y + np.float32(self.rib_phase)
        ring = np.abs(height - 32 * np.round(height * np.float32(1 / 32)))
        depth = squircle_column(p, self.half) - np.float32(0.45 * self.wall)
        bar = np.sqrt((1.4 * depth) ** 2 + ring**2) - np.float32(5.5)
        margin = -55 + np.float32(1.1) * np.maximum(y + 20, 0) - z
        return np.maximum(np.maximum(bar, margin), 20 - np.abs(x))

    # ---- organs

    def _visceral_x(self, y, z):
        """Where the liver ends on its left; the bend sends the left lobe across the midline, in front."""
        offset, tilt_y, bend, tilt_z = self.visceral
        return offset - tilt_y * y - bend * np.maximum(y, 0) ** 2 - tilt_z * z

    def liver(self, p: Points) -> np.ndarray:
        """The liver with its tumours and vessels, without gallbladder and inferior vena cava."""
        _, tilt_y, _, tilt_z = self.visceral
        x, y, z = p
        under = (self._visceral_x(y, z) - x) / np.sqrt(1 + tilt_y**2 + tilt_z**2)
        body = smooth_max(self.cavity(p) + 0.5, self.abdomen(p) + 0.5, 5)
        body = smooth_max(body, ellipsoid(p, self.liver_center, self.liver_radii), 30)
        body = smooth_max(body, under.astype(np.float32), 22)
        body = smooth_max(body, 3 - self.kidney(p, 0), 16)
        body = smooth_max(body, 2 - column(p, self.cava[0], (self.cava[1], self.cava[1])), 5)
        across, top = self.fissure
        notch = np.maximum(
            np.abs(x - np.float32(across) + 0.15 * y) - 3, np.maximum(25 - y, z - np.float32(top))
        )
        body = smooth_max(body, -notch, 8)
        if self.has_gallbladder:
            body = smooth_max(body, 1 - self.gallbladder_body(p), 8)
        return body

    def gallbladder_body(self, p: Points) -> np.ndarray:
        neck, fundus, radius = self.gallbladder
        return capsule(p, neck, fundus, (0.5 * radius, radius))

    def spleen(self, p: Points) -> np.ndarray:
        body = smooth_max(self.cavity(p) + 1, self.abdomen(p) + 1, 5)
        body = smooth_max(body, ellipsoid(p, self.spleen_center, self.spleen_radii), 12)
        hilum = ellipsoid(p, self.spleen_center + np.array([40, 22, 0]), (32, 34, 70))
        return smooth_max(smooth_max(body, -hilum, 10), 3 - self.kidney(p, 1), 8)

    def kidney(self, p: Points, which: int) -> np.ndarray:
        """The right (0) or left (1) kidney, hollowed by its sinus; upper poles lean towards the spine."""
        center, radius = self.kidneys[which]
        side = 1 if which == 0 else -1
        x, y, z = p
        leant = x + np.float32(0.2 * side) * (z - np.float32(center[2])), y, z
        body = ellipsoid(leant, center, (radius, 0.95 * radius, 2 * radius))
        sinus = ellipsoid(
            leant, center - (0.8 * side * radius, -4, 0), (0.65 * radius, 0.4 * radius, 0.8 * radius)
        )
        return smooth_max(body, -sinus, 5)

    def stomach_body(self, p: Points) -> np.ndarray:
        (top, r0), (middle, r1), (end, r2) = self.stomach
        body = smooth_min(capsule(p, top, middle, (r0, r1)), capsule(p, middle, end, (r1, r2)), 12)
        return smooth_max(body, smooth_max(self.cavity(p) + 3, self.abdomen(p) + 3, 6), 6)

    def pancreas(self, p: Points) -> np.ndarray:
        a, b = self.half
        tail, neck, head = (-0.55 * a, -0.3 * b, 14), (-0.12 * a, 0.05 * b, -8), (0.2 * a, -0.02 * b, -34)
        return smooth_min(capsule(p, tail, neck, (9, 8)), capsule(p, neck, head, (8, 14)), 8)

    def heart(self, p: Points) -> np.ndarray:
        a, b = self.half
        body = ellipsoid(p, (self.heart_side * a, 0.28 * b, self.dome + 12), (0.44 * a, 0.54 * b, 46))
        return smooth_max(body, self.cavity(p) + 6, 8)

    @functools.cached_property
    def hilum(self) -> np.ndarray:
        """Where the portal vein enters the liver."""
        y, z = 0.0, -12.0
        return np.array([self._visceral_x(y, z) + 6, y, z])

    def _grow_vessels(self, rng: np.random.Generator) -> list[Segment]:
        segments = []

        def grow(kind, start, direction, length, radius, depth):
            direction = direction / np.linalg.norm(direction)
            end = start + length * direction
            segments.append(Segment(kind, start, end, (radius, 0.85 * radius)))
            for _ in range(2 if depth else 0):
                turn = rng.normal(size=3)
                turn -= direction * (turn @ direction)
                bent = direction + rng.uniform(0.35, 0.8) * turn / np.linalg.norm(turn)
                grow(
                    kind,
                    end,
                    bent,
                    length * rng.uniform(0.65, 0.9),
                    radius * rng.uniform(0.62, 0.8),
                    depth - 1,
                )

        trunk = np.array([2.0, self.spine[1] + 48, -42])
        segments.append(Segment("portal", trunk, self.hilum, (7.0, 6.5)))
        grow("portal", self.hilum, np.array([1.0, -0.1, 0.35]), rng.uniform(28, 38), 5.5, 4)
        grow("portal", self.hilum, np.array([-0.35, 0.8, 0.55]), rng.uniform(30, 40), 4.5, 3)
        outlet = np.array([*self.cava[0], self.dome - 32])
        for direction, depth in (((1, 0.05, -0.35), 3), ((0.35, 0.8, -0.35), 3), ((-0.7, 0.8, -0.1), 2)):
            grow("vein", outlet, np.array(direction, float), rng.uniform(36, 46), 5.0, depth)
        return segments

    # ---- tumours and volumes

    @functools.cached_property
    def _liver_lattice(self) -> tuple[np.ndarray, np.ndarray]:
        """The liver on a fine lattice in world space: its affine, and a boolean (x, y, z) array."""
        low, high = self.world_box(self.liver_center - self.liver_radii, self.liver_center + self.liver_radii)
        affine = np.diag([_LATTICE_MM] * 3 + [1.0])
        affine[:3, 3] = low
        x, y, z = (int(n) for n in np.ceil((high - low) / _LATTICE_MM))
        return affine, self.liver(self.points(affine, (x, y, z))) < 0

    @property
    def liver_volume(self) -> float:
        """Volume in ml of the liver with its tumours, counted on the lattice: true to about 0.1 %."""
        return float(self._liver_lattice[1].sum() * _LATTICE_MM**3 / 1000)

    def _place_tumors(self, rng: np.random.Generator) -> tuple[Tumor, ...]:
        count = int(rng.choice(7, p=(0.12, 0.2, 0.2, 0.16, 0.14, 0.1, 0.08)))
        affine, liver = self._liver_lattice
        # Room at a point: its distance to the surface. Every other lattice point errs by 3.5 mm at most.
        liver, step = liver[::2, ::2, ::2], 2 * _LATTICE_MM
        room = ndimage.distance_transform_edt(liver, sampling=step).astype(np.float32) - np.float32(3.5)
        axes = np.ix_(*[np.arange(n, dtype=np.float32) * np.float32(step) for n in liver.shape])
        tumors = []
        for _ in range(count):
            diameter = float(np.exp(rng.uniform(np.log(8), np.log(60))))
            shape = _tumor_shape(rng)
            reach = 0.6 * diameter
            fits = np.flatnonzero(room > min(reach, 0.9 * float(room.max())))
            where = np.unravel_index(fits[rng.integers(len(fits))], room.shape)
            # A tumour too large for what room is left becomes as large as the room.
            diameter = min(diameter, float(room[where]) / 0.6)
            if diameter < 6:
                continue
            kind = str(rng.choice(("hypodense", "rim", "hyperdense"), p=(0.65, 0.2, 0.15)))
            center = affine[:3, 3] + np.array(where) * step
            tumors.append(Tumor(tuple(center.tolist()), diameter, kind, rng.uniform(0.55, 1.0), shape))
            gap = sum((axis - np.float32(o * step)) ** 2 for axis, o in zip(axes, where, strict=True))
            np.minimum(room, np.sqrt(gap) - np.float32(0.6 * diameter), out=room)
        return tuple(tumors)


def _tumor_shape(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    tensor = rng.normal(size=(3, 3))
    tensor = tensor + tensor.T
    tensor -= np.eye(3) * np.trace(tensor) / 3
    return tensor * rng.uniform(0.1, 0.35) / np.abs(np.linalg.eigvalsh(tensor)).max(), rng.uniform(-0.8, 0.8)
