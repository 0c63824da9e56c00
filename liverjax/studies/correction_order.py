"""A simulated corrector: the Dice after the first slices were corrected, and how many hold most of the edits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liverjax.scoring import statistics

#: Shares of slices that are corrected.
_SHARES = np.linspace(0, 1, 21)


@dataclasses.dataclass(frozen=True)
class Slices:
    """Axial slices of masks before and after correction; all (n,).

    Attributes:
      mask: number of the pair of masks (a case by a reader), in order of first occurrence.
      patient: of whom.
      automatic, corrected, both: voxels before, after, and in both masks.
      changed: whether it counts as changed.
      expected: expected Dice; NaN where it is not known.
    """

    mask: np.ndarray
    patient: np.ndarray
    automatic: np.ndarray
    corrected: np.ndarray
    both: np.ndarray
    changed: np.ndarray
    expected: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Slices:
        """Returns the slices of rows of `corrections.Corrections`."""
        names = [(row["case"], row["reader"]) for row in rows]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        before, after, both = (
            np.array([row[name] for row in rows], float) for name in ("automatic", "corrected", "both")
        )
        return cls(
            np.array([numbers[name] for name in names], int),
            np.array([row["patient"] for row in rows], dtype=object),
            before,
            after,
            both,
            np.array([row["changed"] for row in rows], bool),
            np.array([row.get("expected_dice", math.nan) for row in rows], float),
        )

    @property
    def edited(self) -> np.ndarray:
        """Voxels that were added or removed."""
        return self.automatic + self.corrected - 2 * self.both

    def members(self) -> list[np.ndarray]:
        """Returns the positions of the slices of each pair of masks."""
        return [np.flatnonzero(self.mask == number) for number in range(self.mask.max(initial=-1) + 1)]


def looked_at(slices: Slices, share: float) -> list[float]:
    """Returns for each pair of masks the share of slices, lowest expected Dice first, that hold a share of the edits.

    NaN where nothing was edited, or the quality of a slice is not known.
    """
    found = []
    for own in slices.members():
        expected, edited = slices.expected[own], slices.edited[own]
        if np.isnan(expected).any() or not edited.any():
            found.append(math.nan)
            continue
        held = np.cumsum(edited[np.argsort(expected, kind="stable")])
        found.append((int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))) + 1) / own.size)
    return found


def curves(slices: Slices, seed: int = 0) -> dict[str, list[dict[str, float]]]:
    """Returns the mean Dice after a share of each case's slices was corrected, by the order of correction.

    "most edited first" is the best that any order can do, near enough; "lowest quality first" follows the model;
    "from one end" is scrolling. The interval is a percentile bootstrap over patients.
    """
    orders = {"most edited first": -slices.edited, "from one end": np.arange(slices.mask.size)}
    if slices.expected.size and not np.isnan(slices.expected).any():
        orders["lowest quality first"] = slices.expected
    members = slices.members()
    patients = np.array([slices.patient[own[0]] for own in members], dtype=object)
    found = {}
    for name, key in orders.items():
        dice = np.array([_dice_after(slices, own[np.argsort(key[own], kind="stable")]) for own in members])
        if not len(dice):
            continue
        low, high = statistics.clustered_interval(
            lambda chosen, dice=dice: dice[chosen].mean(0), patients, seed=seed
        )
        found[name] = [
            {"share": float(s), "dice": float(d), "low": float(a), "high": float(b)}
            for s, d, a, b in zip(_SHARES, dice.mean(0), low, high, strict=True)
        ]
    return found


def _dice_after(slices: Slices, order: np.ndarray) -> np.ndarray:
    """Returns the Dice with the corrected mask after the first slices of an order were corrected, for each share."""
    before, after, both = (one[order] for one in (slices.automatic, slices.corrected, slices.both))
    shared = np.concatenate([[0], np.cumsum(after - both)]) + both.sum()
    sizes = np.concatenate([[0], np.cumsum(after - before)]) + before.sum() + after.sum()
    done = np.ceil(_SHARES * order.size - 1e-9).astype(int)
    return 2 * shared[done] / sizes[done]
