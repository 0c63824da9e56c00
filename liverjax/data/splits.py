"""Which cases train, which choose the checkpoint, and which are held out for the test; by patient."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np

from liverjax.data.store import StoredCase
from liverjax.errors import ConfigError, did_you_mean
from liverjax.options import Split

_LOG = logging.getLogger("liverjax")


@dataclasses.dataclass(frozen=True)
class Parts:
    """The cases of each part of a split."""

    train: tuple[StoredCase, ...]
    validation: tuple[StoredCase, ...]
    test: tuple[StoredCase, ...]


def usable_cases(cases: Sequence[StoredCase], labels: Sequence[str]) -> list[StoredCase]:
    """Returns the cases whose masks tell all classes apart; the others would teach that tumour is liver."""
    left_out = [case.id for case in cases if case.liver_only and "tumor" in labels]
    if left_out:
        _LOG.warning("not used, for their masks do not tell tumours from the liver: %s", ", ".join(left_out))
    return [case for case in cases if case.id not in left_out]


def split_cases(cases: Sequence[StoredCase], options: Split, seed: int = 0) -> Parts:
    """Divides the cases of a store.

    Patients are ranked in the order of the store. The test part is the patients whose rank modulo ``folds`` is
    ``fold``, or those of ``test_cases``; of the rest, ``validation`` patients, spread evenly over their ranks,
    choose the best checkpoint; of the others a share of ``train_share``, drawn by ``seed``, trains. So neither a figure
    on the test part nor the choice of what predicts it has seen it.

    Raises:
      ConfigError: a test case does not exist, or a part would be empty.
    """
    patients = list(dict.fromkeys(case.patient for case in cases))
    if options.test_cases:
        by_id = {case.id: case.patient for case in cases}
        for name in options.test_cases:
            if name not in by_id:
                raise ConfigError(
                    f"split.test_cases: no case {name!r} in the store{did_you_mean(name, by_id)}"
                )
        test = {by_id[name] for name in options.test_cases}
    else:
        test = {patient for rank, patient in enumerate(patients) if rank % options.folds == options.fold}
    rest = [patient for patient in patients if patient not in test]
    if len(rest) <= options.validation:
        raise ConfigError(
            f"split.validation is {options.validation}, but only {len(rest)} of {len(patients)} patients are not "
            "held out for the test; expected at least one more than that"
        )
    step = len(rest) / options.validation
    validation = {rest[int((index + 0.5) * step)] for index in range(options.validation)}
    train = [patient for patient in rest if patient not in validation]
    drawn = np.random.default_rng(seed).permutation(len(train))[: math.ceil(options.train_share * len(train))]
    train = {train[index] for index in drawn}

    def part(chosen: set[str]) -> tuple[StoredCase, ...]:
        return tuple(case for case in cases if case.patient in chosen)

    return Parts(part(train), part(validation), part(test))
