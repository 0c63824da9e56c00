"""Which slices make the batch of a step: a pure function of (seed, views, step, row)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from liverjax.data.stored_case import StoredCase
from liverjax.errors import InputError
from liverjax.options import Batch
from liverjax.views import VIEWS


@dataclasses.dataclass(frozen=True)
class Draw:
    """One example: a slice of a case in a view, and the place of the patch within it, each in [0, 1).

    Attributes:
      view: of the slice.
      case: number of the case.
      slice: number of the slice.
      row: place of the patch along the rows: 0 is the first possible one.
      column: likewise along the columns.
      tumor: of a patch that is to hold tumour, the place in [0, 1) of one pixel among those of the slice's tumours.
    """

    view: str
    case: int
    slice: int
    row: float
    column: float
    tumor: float | None = None


#: A slice in which a network saw tumours that are not there: case id, view, number of the slice, their pixels.
MinedSlice = tuple[str, str, int, float]


class Sampler:
    """Draws slices of one or several views: a share with liver, a share with tumour, a share without either.

    First one of the views is drawn, then the kind of slice by the shares of `Batch`, then a case that has such slices,
    then one of its slices: a long scan counts no more than a short one, nor a view with more slices. With
    ``batch.stratified``, the kind follows from the row, so that each batch has the shares.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        views: Sequence[str],
        options: Batch,
        seed: int,
        mined: Sequence[MinedSlice] = (),
    ):
        """Raises `InputError` if a share is above 0 and no case has such a slice.

        Args:
          cases: of the training.
          views: of the slices.
          options: the shares.
          seed: of the draws.
          mined: the slices of which ``batch.mined_share`` is drawn, by their pixels; of none, slices with liver are.
        """
        self._stream = (seed, VIEWS.index(views[0]) if len(views) == 1 else len(VIEWS))
        self._options = options
        self._of_view = [_Slices(cases, view, options, mined) for view in views]

    def draw(self, step: int, row: int) -> Draw:
        """Returns the example in one row of the global batch of a step."""
        # Philox is counter-based: each (step, row) is a stream of its own, whoever draws it and in what order.
        key = np.random.SeedSequence((*self._stream, step, row)).generate_state(2, np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        of_view = self._of_view[random.integers(len(self._of_view)) if len(self._of_view) > 1 else 0]
        kind, options = random.random(), self._options
        if options.stratified:
            kind = (row + 0.5) / options.size
        if kind < options.tumor_share:
            slices = of_view.tumor
        elif kind < options.tumor_share + options.liver_share:
            slices = of_view.liver
        elif kind < options.tumor_share + options.liver_share + options.empty_share:
            slices = of_view.empty
        elif kind < options.tumor_share + options.liver_share + options.empty_share + options.mined_share:
            if len(of_view.mined):
                case, index = of_view.mined[
                    np.searchsorted(of_view.mined_until, random.random(), side="right")
                ]
                return Draw(of_view.view, int(case), int(index), random.random(), random.random())
            slices = of_view.liver
        else:
            slices = of_view.any
        candidates = [index for index, some in enumerate(slices) if len(some)]
        case = candidates[random.integers(len(candidates))]
        index = int(slices[case][random.integers(len(slices[case]))])
        place = random.random(), random.random()
        tumor = random.random() if options.stratified and slices is of_view.tumor else None
        return Draw(of_view.view, case, index, *place, tumor)


class _Slices:
    """The slices of a view, by case: all, those with liver, with tumour, without either; and those that were mined."""

    def __init__(
        self, cases: Sequence[StoredCase], view: str, options: Batch, mined: Sequence[MinedSlice] = ()
    ):
        self.view = view
        counts = [case.counts[view] for case in cases]
        self.any = [np.arange(len(count)) for count in counts]
        self.liver = [np.flatnonzero(count[:, 0]) for count in counts]
        self.tumor = [np.flatnonzero(count[:, 1]) for count in counts]
        self.empty = [np.flatnonzero(count[:, 0] == 0) for count in counts]
        numbers = {case.id: number for number, case in enumerate(cases)} if mined else {}
        own = [(numbers[case], index, pixels) for case, of_view, index, pixels in mined if of_view == view]
        self.mined = np.array([entry[:2] for entry in own], int).reshape(-1, 2)
        shares = np.cumsum([pixels for *_, pixels in own])
        # The last is 1 exactly, and above every draw.
        self.mined_until = shares / shares[-1] if own else shares
        for kind, slices, field in (
            ("with liver", self.liver, "liver_share"),
            ("with tumor", self.tumor, "tumor_share"),
            ("without liver", self.empty, "empty_share"),
        ):
            share = getattr(options, field) + (options.mined_share if field == "liver_share" else 0)
            if share and not any(map(len, slices)):
                raise InputError(f"no training case has a slice {kind}, but batch.{field} is {share}")
