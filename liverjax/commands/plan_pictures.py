"""The pictures of `liverjax plan`: masks on their scans, fewer slices of each the more there are."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absl import flags

    from liverjax.report.pictures import Strip
    from liverjax.volume import Volume

#: Slices of a plane over all cases, and of one case at most; cases of which pictures are shown, and those of which they
#: are as large as on other pages.
_SLICES, _MOST, _CASES, _LARGE = 72, 24, 200, 12


class Pictures:
    """The slices of each case, by its id."""

    def __init__(self, args: flags.FlagValues):
        self._args, self._alone = args, os.path.isfile(args.input)
        # As many as there can be masks.
        self._count = 1 if self._alone else sum(1 for _ in pathlib.Path(args.input).iterdir())
        self.strips: dict[str, list[Strip]] = {}

    def add(self, id: str, mask: Volume, territory: Volume | None = None) -> None:
        """Cuts the slices of a case, unless there are enough."""
        from liverjax.labels import BACKGROUND, TUMOR
        from liverjax.planning.companions import scan_of
        from liverjax.report import figures
        from liverjax.report.figures.canvas import BLUE, RED, YELLOW

        scan = scan_of(self._args.scans, id, self._alone, mask)
        if len(self.strips) >= _CASES:
            return
        masks, colors = {"liver": mask.voxels > BACKGROUND}, {"liver": (BLUE, False)}
        if (mask.voxels == TUMOR).any():
            masks["tumours"], colors["tumours"] = mask.voxels == TUMOR, (RED, False)
        if territory is not None:
            masks["territory"], colors["territory"] = territory.voxels != 0, (YELLOW, True)
        self.strips[id] = figures.slice_strips(
            scan or mask,
            masks,
            shown=masks["liver"],
            colors=colors,
            slices=max(1, min(_MOST, _SLICES // self._count)),
            side=256 if self._count <= _LARGE else 160,
            window=(0, 3) if scan is None else None,  # Labels in greys.
        )
