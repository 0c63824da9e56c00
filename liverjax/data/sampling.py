"""Which slices make the batch of a step: a pure function of (seed, views, step, row)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from liverjax.data.store import StoredCase
from liverjax.errors import InputError
from liverjax.options import Batch
from liverjax.views import VIEWS


@dataclasses.dataclass(frozen=True)
class Draw:
    """One example: a slice of a case in a view, and the place of the patch within it, each in [0, 1)."""

    view: str
    case: int
    slice: int
    row: float
    column: float


class Sampler:
    """Draws slices of one or several views, a share of them with liver and a share with tumour.

    First one of the views is drawn, then the kind of slice by the shares of `Batch`, then a case that has such slices,
    then one of its slices: a long scan counts no more than a short one, nor a view with more slices.
    """

    def __init__(self, cases: Sequence[StoredCase], views: Sequence[str], options: Batch, seed: int):
        """Raises `InputError` if no case has a slice with liver, or none with tumour where a share is wanted."""
        self._stream = (seed, VIEWS.index(views[0]) if len(views) == 1 else len(VIEWS))
        self._options = options
        self._of_view = [_Slices(cases, view, options) for view in views]

    def draw(self, step: int, row: int) -> Draw:
        """Returns the example in one row of the global batch of a step."""
        # Philox is counter-based: each (step, row) is a stream of its own, whoever draws it and in what order.
        key = np.random.SeedSequence((*self._stream, step, row)).generate_state(2, np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        of_view = self._of_view[random.integers(len(self._of_view)) if len(self._of_view) > 1 else 0]
        kind = random.random()
        if kind < self._options.tumor_share:
            slices = of_view.tumor
        elif kind < self._options.tumor_share + self._options.liver_share:
            slices = of_view.liver
        else:
            slices = of_view.any
        candidates = [index for index, some in enumerate(slices) if len(some)]
        case = candidates[random.integers(len(candidates))]
        index = int(slices[case][random.integers(len(slices[case]))])
        return Draw(of_view.view, case, index, random.random(), random.random())


class _Slices:
    """The slices of a view, by case: all, those with liver, those with tumour."""

    def __init__(self, cases: Sequence[StoredCase], view: str, options: Batch):
        self.view = view
        counts = [case.counts[view] for case in cases]
        self.any = [np.arange(len(count)) for count in counts]
        self.liver = [np.flatnonzero(count[:, 0]) for count in counts]
        self.tumor = [np.flatnonzero(count[:, 1]) for count in counts]
        for name, slices, share in (
            ("liver", self.liver, options.liver_share),
            ("tumor", self.tumor, options.tumor_share),
        ):
            if share and not any(map(len, slices)):
                raise InputError(
                    f"no training case has a slice with {name}, but batch.{name}_share is {share}"
                )
