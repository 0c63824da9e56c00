"""Which cases train, which choose the checkpoint, and which are held out for the test; by patient."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from liverjax.data.stored_case import StoredCase
from liverjax.errors import ConfigError, InputError, did_you_mean
from liverjax.options import Config, Split

_LOG = logging.getLogger("liverjax")


class SplitCase(Protocol):
    """What a split needs to know of a case, be it of a data set or of a store."""

    @property
    def id(self) -> str: ...

    @property
    def patient(self) -> str: ...

    @property
    def liver_only(self) -> bool: ...


AnyCase = TypeVar("AnyCase", bound=SplitCase)


@dataclasses.dataclass(frozen=True)
class Subsets(Generic[AnyCase]):
    """The cases of each subset of a split."""

    train: tuple[AnyCase, ...]
    validation: tuple[AnyCase, ...]
    test: tuple[AnyCase, ...]


def usable_cases(cases: Sequence[AnyCase], labels: Sequence[str]) -> list[AnyCase]:
    """Returns the cases whose masks distinguish all classes; the others would teach that tumour is liver."""
    left_out = [case.id for case in cases if case.liver_only and "tumor" in labels]
    if left_out:
        _LOG.warning(
            "not used, since their masks do not distinguish tumours from the liver: %s", ", ".join(left_out)
        )
    return [case for case in cases if case.id not in left_out]


def validated_on_real(subsets: Subsets[StoredCase]) -> Subsets[StoredCase]:
    """Returns the subsets without synthetic cases in validation and test; those of training patients train."""
    validation, test = (
        tuple(case for case in cases if not case.synthetic) for cases in (subsets.validation, subsets.test)
    )
    return Subsets(subsets.train, validation, test)


def require_tumors(subsets: Subsets[StoredCase], config: Config) -> None:
    """Refuses a split of which no training case has a tumour to be learnt.

    Where lesions choose the checkpoint (`Config.finds_lesions`), a validation case has to have some as well.

    Raises:
      InputError: no training case has one.
      ConfigError: no validation case has one.
    """
    if "tumor" not in config.labels:
        return

    def any_tumor(cases: Sequence[StoredCase]) -> bool:
        return any(case.counts["axial"][:, 1].any() for case in cases)

    if not any_tumor(subsets.train):
        raise InputError(
            f"no tumour in any of {len(subsets.train)} training cases, expected some to learn from; train a liver "
            "without tumours (target.labels=background,liver), or prepare scans with tumours in their masks"
        )
    if config.finds_lesions and not any_tumor(subsets.validation):
        raise ConfigError(
            f"no tumour in the {len(subsets.validation)} cases that choose the checkpoint "
            f"({', '.join(case.id for case in subsets.validation)}); expected another split.fold, or a larger "
            "split.validation"
        )


def split_cases(cases: Sequence[AnyCase], options: Split, seed: int = 0) -> Subsets[AnyCase]:
    """Divides the cases of a store.

    Patients are ranked in the order of the store. The test subset is the patients whose rank modulo ``folds`` is
    ``fold``, or those of ``test_cases``; of the rest, ``validation`` patients, spread evenly over their ranks,
    choose the best checkpoint; of the others a share of ``train_share``, drawn by ``seed``, trains. The test subset
    thus takes part neither in training nor in the choice of the checkpoint.

    Raises:
      ConfigError: a test case does not exist, or a subset would be empty (that for the test may be with fold -1).
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
        if not test and options.fold >= 0:
            raise ConfigError(
                f"split.fold is {options.fold} of {options.folds} folds, but there are only {len(patients)} patients, "
                "so that none is held out for the test; expected a smaller fold, or -1"
            )
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

    def subset(chosen: set[str]) -> tuple[AnyCase, ...]:
        return tuple(case for case in cases if case.patient in chosen)

    return Subsets(subset(train), subset(validation), subset(test))
