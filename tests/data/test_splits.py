"""Splits: by patient, by rank, and with every subset filled."""

import pathlib

import pytest

from liverjax.data.splits import split_cases
from liverjax.data.store import StoredCase
from liverjax.errors import ConfigError
from liverjax.options import Split


def _case(name, patient=None):
    return StoredCase(name, patient or name, pathlib.Path(), 1.0, (0, 1), ("", ""), False, {}, {})


def _ids(subset):
    return [case.id for case in subset]


CASES = [_case(f"c{number}") for number in range(14)]


def test_fold_k_tests_the_patients_whose_rank_modulo_the_folds_is_k():
    subsets = split_cases(CASES, Split(folds=5, fold=3, validation=2))
    assert _ids(subsets.test) == ["c3", "c8", "c13"]
    # Of the eleven that remain, two at the middle of each half: ranks 2 and 8.
    assert _ids(subsets.validation) == ["c2", "c10"]
    assert _ids(subsets.train) == ["c0", "c1", "c4", "c5", "c6", "c7", "c9", "c11", "c12"]


def test_each_case_is_tested_in_one_fold():
    tested = [name for fold in range(5) for name in _ids(split_cases(CASES, Split(fold=fold)).test)]
    assert sorted(tested) == sorted(_ids(CASES))


def test_fold_minus_one_holds_nothing_out():
    subsets = split_cases(CASES, Split(fold=-1))
    assert subsets.test == () and len(subsets.train) == 12


def test_named_test_cases_take_the_place_of_folds():
    subsets = split_cases(CASES, Split(test_cases=("c1", "c12")))
    assert _ids(subsets.test) == ["c1", "c12"]


def test_the_scans_of_one_patient_stay_together():
    cases = [_case(f"s{number}", f"p{number // 2}") for number in range(12)]
    subsets = split_cases(cases, Split(folds=3, fold=0, validation=1))
    patients = [
        {case.patient for case in subset} for subset in (subsets.train, subsets.validation, subsets.test)
    ]
    assert patients[2] == {"p0", "p3"}
    assert not patients[0] & patients[1] and not patients[0] & patients[2] and not patients[1] & patients[2]
    assert sum(map(len, (subsets.train, subsets.validation, subsets.test))) == 12


def test_an_unknown_test_case_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no case 'c99' in the store; did you mean 'c9'\?"):
        split_cases(CASES, Split(test_cases=("c99",)))


def test_too_few_patients_are_refused():
    with pytest.raises(ConfigError, match="only 2 of 3 patients are not held out"):
        split_cases(CASES[:3], Split(folds=3, fold=0, validation=2))


def test_a_fold_that_tests_no_patient_is_refused():
    with pytest.raises(ConfigError, match="split.fold is 4 of 5 folds, but there are only 3 patients"):
        split_cases(CASES[:3], Split(folds=5, fold=4, validation=1))


def test_a_share_of_the_training_patients_is_drawn_by_the_seed_within_larger_shares():
    cases = [_case(f"s{number}", f"p{number // 2}") for number in range(24)]

    def subsets(share, seed=0):
        return split_cases(cases, Split(folds=3, fold=0, validation=1, train_share=share), seed)

    # Of 12 patients 4 are tested, 1 chooses, 7 are left: half are 4, a tenth is 1, each with both scans.
    sizes = {share: len(subsets(share).train) for share in (1.0, 0.5, 0.1)}
    assert sizes == {1.0: 14, 0.5: 8, 0.1: 2}
    assert set(_ids(subsets(0.1).train)) < set(_ids(subsets(0.5).train)) < set(_ids(subsets(1.0).train))
    assert {case.patient for case in subsets(0.1).train} == {case.patient for case in subsets(0.1).train[:1]}
    assert len({tuple(_ids(subsets(0.1, seed).train)) for seed in range(10)}) > 1
    for name in ("validation", "test"):
        assert getattr(subsets(0.1, 5), name) == getattr(subsets(1.0), name)
