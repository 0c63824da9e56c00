"""How much memory a prediction takes, estimated from shapes before it starts."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pathlib
import resource
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from liverjax.inference.plan import FusionPlan

_LOG = logging.getLogger("liverjax")
# Feature maps at full resolution that are alive at once, in widths of the first level: the concatenated skip and
# up-convolution, the block's input, its two convolutions and the padding of one of them.
_LIVE_MAPS = 4
_FLOAT = 4
# Bytes a voxel of the clean-up where the liver fills the scan: masks, copies of them, and numbered pieces.
_CLEAN_UP = 11
# Extents of the largest livers in mm, along right, anterior, superior: 305, 238 and 246 of 161 that people drew.
_LARGEST_LIVER_MM = (310.0, 245.0, 250.0)
#: Bytes of the program itself: its packages, and what XLA compiles with.
PROGRAM = 600 * 2**20
_OWN_GROUPS = "/proc/self/cgroup"


class Memory(NamedTuple):
    """Bytes that one case takes at once.

    Attributes:
      slab: on the device, feature maps of one slab of slices and the parameters.
      accumulator: the padded volume, the sum over the views and the result.
      scan: on the host, the scan as read, on the working grid, and its mask.
      clean_up: on the host, the steps that clean the mask, of one that is liver throughout.
    """

    slab: int
    accumulator: int
    scan: int
    clean_up: int


def estimate(
    scan_shape: Sequence[int],
    grid_shape: Sequence[int],
    plan: FusionPlan,
    *,
    voxel_bytes: int = 2,
) -> Memory:
    """Returns what a scan of a shape takes, on a working grid of a shape.

    Args:
      scan_shape: voxels of the scan.
      grid_shape: voxels of its working grid.
      plan: what is computed.
      voxel_bytes: size of the scan's voxels.
    """
    padded = [size + -size % plan.bucket for size in grid_shape]
    voxels = math.prod(padded)
    widths = plan.network.features
    maps = (widths[0] + widths[1] + _LIVE_MAPS * widths[0]) * np.dtype(plan.network.dtype).itemsize
    largest_slice = max(voxels // size for size in padded)
    slab = plan.batch_size * largest_slice * (maps + plan.channels * _FLOAT)
    return Memory(
        slab=slab + plan.members * 9 * 12 * widths[-1] ** 2 * _FLOAT,
        accumulator=voxels * _FLOAT * (1 + 2 * plan.channels),
        scan=math.prod(scan_shape) * (voxel_bytes + 1) + math.prod(grid_shape) * _FLOAT,
        clean_up=math.prod(scan_shape) * _CLEAN_UP,
    )


def largest_box(spacing: Sequence[float], margin_mm: float) -> tuple[int, ...]:
    """Returns the voxels of a box around a liver that is as large as any that people drew, with a margin.

    Args:
      spacing: voxel size in mm, along right, anterior, superior.
      margin_mm: distance that is added on each side.
    """
    sides = zip(_LARGEST_LIVER_MM, spacing, strict=True)
    return tuple(math.ceil((length + 2 * margin_mm) / size) for length, size in sides)


def accumulates_on_host(padded_shape: Sequence[int], plan: FusionPlan, device: jax.Device | None) -> bool:
    """Returns whether the views are summed on the host: as the plan says, or if the device is too small.

    A device that shares the host's memory, such as a CPU, never is.
    """
    if plan.accumulator != "auto":
        return plan.accumulator == "host"
    device = device or jax.local_devices()[0]
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    need = estimate((0, 0, 0), padded_shape, plan)
    if limit is None or need.slab + need.accumulator <= limit:
        return False
    _LOG.warning(
        "%s has %.1f GiB, a volume of %s needs %.1f: the views are summed on the host",
        device.device_kind, limit / 2**30, tuple(padded_shape), (need.slab + need.accumulator) / 2**30,
    )  # fmt: skip
    return True


def host_memory(groups: str | os.PathLike = "/sys/fs/cgroup", own: str | os.PathLike = _OWN_GROUPS) -> int:
    """Returns the bytes of memory that this process may use: those of the machine, or what limits it further.

    That is ``ulimit -v``, or the limit of the control groups of Linux, by which containers and batch systems bound what
    runs in them.

    Args:
      groups: where the control groups are mounted, of version 2 or 1.
      own: the file that names those of this process.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits(groups, own)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _group_limits(groups: str | os.PathLike, own: str | os.PathLike) -> Iterator[int]:
    """Yields the limits of the control groups of this process, and of all that they lie in."""
    try:
        lines = pathlib.Path(own).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # Not Linux.
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds == "":
            root, name = pathlib.Path(groups), "memory.max"
        elif "memory" in kinds.split(","):
            root, name = pathlib.Path(groups) / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = root / place.lstrip("/")
        # A container sees its own group as the root, whatever the path says.
        for folder in (inner, *(parent for parent in inner.parents if parent.is_relative_to(root))):
            with contextlib.suppress(OSError, ValueError):  # Not there, or "max".
                yield int((folder / name).read_text(encoding="ascii"))
