"""Which slices make the batch of a step: a pure function of (seed, view, step, row)."""

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
    """One example: the slice of a case, and the place of the patch within it, each in [0, 1)."""

    case: int
    slice: int
    row: float
    column: float


class Sampler:
    """Draws slices of one view: a share with liver, a share with tumour, a share without either.

    First the kind of slice is drawn by the shares of `Batch`, then a case that has such slices, then one of its
    slices: a long scan counts no more than a short one.
    """

    def __init__(self, cases: Sequence[StoredCase], view: str, options: Batch, seed: int):
        """Raises `InputError` if no case has a slice of a kind that a share is wanted of."""
        self._stream = (seed, VIEWS.index(view))
        self._options = options
        counts = [case.counts[view] for case in cases]
        self._any = [np.arange(len(count)) for count in counts]
        self._liver = [np.flatnonzero(count[:, 0]) for count in counts]
        self._tumor = [np.flatnonzero(count[:, 1]) for count in counts]
        self._empty = [np.flatnonzero(count[:, 0] == 0) for count in counts]
        for kind, slices, field in (
            ("with liver", self._liver, "liver_share"),
            ("with tumor", self._tumor, "tumor_share"),
            ("without liver", self._empty, "empty_share"),
        ):
            share = getattr(options, field)
            if share and not any(map(len, slices)):
                raise InputError(f"no training case has a slice {kind}, but batch.{field} is {share}")

    def draw(self, step: int, row: int) -> Draw:
        """Returns the example in one row of the global batch of a step."""
        # Philox is counter-based: each (step, row) is a stream of its own, whoever draws it and in what order.
        key = np.random.SeedSequence((*self._stream, step, row)).generate_state(2, np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        kind, options = random.random(), self._options
        if kind < options.tumor_share:
            slices = self._tumor
        elif kind < options.tumor_share + options.liver_share:
            slices = self._liver
        elif kind < options.tumor_share + options.liver_share + options.empty_share:
            slices = self._empty
        else:
            slices = self._any
        candidates = [index for index, some in enumerate(slices) if len(some)]
        case = candidates[random.integers(len(candidates))]
        return Draw(
            case, int(slices[case][random.integers(len(slices[case]))]), random.random(), random.random()
        )
