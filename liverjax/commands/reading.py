"""The flags that say how scans are read, which several commands share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from liverjax.scans import Reading


def define(values: flags.FlagValues) -> None:
    """Defines the flags --phase, --series and --spacing."""
    flags.DEFINE_string("phase", None, "of 4D scans, the phase: an index from 0, or last", flag_values=values)
    flags.DEFINE_string(
        "series",
        None,
        "of folders with several DICOM series, the number or UID of one, or largest",
        flag_values=values,
    )
    flags.DEFINE_list(
        "spacing", None, "X,Y,Z: voxel size in mm of NIfTI files without geometry", flag_values=values
    )


def reading(args: flags.FlagValues) -> Reading:
    """Returns what the flags state.

    Raises:
      ConfigError: the spacing is not three numbers above 0, or the phase no number from 0.
    """
    from liverjax.errors import ConfigError
    from liverjax.scans import Reading

    spacing = None
    if args.spacing is not None:
        try:
            x, y, z = map(float, args.spacing)
        except ValueError:
            raise ConfigError(
                f"--spacing is {','.join(args.spacing)!r}, expected three sizes in mm, as 0.8,0.8,5"
            ) from None
        if not all(0 < size < math.inf for size in (x, y, z)):
            raise ConfigError(f"--spacing is {','.join(args.spacing)!r}, expected three sizes in mm above 0")
        spacing = x, y, z
    if args.phase is not None and args.phase != "last" and not args.phase.isdecimal():
        raise ConfigError(f"--phase is {args.phase!r}, expected the number of a phase from 0, or last")
    return Reading(phase=args.phase, series=args.series, spacing=spacing)
