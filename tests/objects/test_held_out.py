"""A forest against the best rule of one feature, on phantoms that were fixed before any forest was grown.

  python -m pytest -m slow -s tests/objects/test_held_out.py

The candidates are simulated (see `simulated`): the forest finds what that file builds in. What the test shows is that
features, forest and operating point work together on cases that none of them has seen; nothing about patients.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from liverjax import objects
from liverjax.objects.features import feature_names
from liverjax.scoring import froc
from liverjax.studies.forest_fit import fit_filter

_SPEC = importlib.util.spec_from_file_location("simulated", pathlib.Path(__file__).parent / "simulated.py")
assert _SPEC and _SPEC.loader
simulated = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulated)

#: Rules of one feature, of which a large value speaks for a tumour.
RULES = ("volume_ml", "p_max", "p_mean", "view_lowest")


def _cohort(seeds):
    features, truths = [], []
    for seed in seeds:
        one = simulated.simulate(int(seed))
        if str(seed) in simulated.HELD_OUT:
            assert simulated.digest(one.reference) == simulated.HELD_OUT[str(seed)], (
                "another phantom than was frozen"
            )
        found = objects.find_candidates(one.probability, one.liver, one.affine)
        features.append(objects.measure(found, one.scan, one.probability, one.views))
        truths.append(objects.truth(found, one.reference))
    ids = tuple(map(str, seeds))
    return np.concatenate(features), froc.gather(truths, ids, ids)


def _rival(rule, features, cohort, share):
    """Returns the candidates that a rule of one feature keeps, such as "p_max" or, for small values, "-p_max".

    It gets its threshold, and the best of all rules is chosen, on the held-out cases themselves, at the forest's
    recall: it is favoured.
    """
    values = features[:, feature_names(True).index(rule.lstrip("-"))] * (-1 if rule.startswith("-") else 1)
    return values >= froc.operating_point(cohort, values, share)


@pytest.mark.slow
def test_the_forest_keeps_fewer_false_candidates_than_any_single_feature(capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'lesions')")
    assert len(simulated.HELD_OUT) == 20 and not {str(seed) for seed in simulated.TRAINING} & set(
        simulated.HELD_OUT
    )
    fit = fit_filter(*_cohort(simulated.TRAINING), views=simulated.VIEWS)
    features, cohort = _cohort(simulated.HELD_OUT)
    score = fit.lesion_filter.forest.probabilities(features)
    kept = score >= fit.lesion_filter.lesion_probability
    effect = froc.effect(cohort, kept)
    found = np.isfinite(froc.best_of_lesions(cohort, score))
    share = (froc.best_of_lesions(cohort, score) >= fit.lesion_filter.lesion_probability).sum() / found.sum()
    lines = [f"{len(cohort.true)} candidates, {cohort.true.sum()} true, {len(cohort.lesion_case)} lesions"]
    lines += [f"{name}: {value:.3f} ({low:.3f} to {high:.3f})" for name, (value, low, high) in effect.items()]
    names = feature_names(True)
    differences = {}
    best = min(
        (f"{sign}{name}" for name in names for sign in ("", "-")),
        key=lambda rule: _rival(rule, features, cohort, share)[~cohort.true].sum(),
    )
    for rule in (*RULES, best):
        rival = _rival(rule, features, cohort, share)
        assert froc.effect(cohort, rival)["recall_after"][0] >= effect["recall_after"][0]
        differences[rule] = froc.difference(cohort, kept, rival)
        mean, low, high = differences[rule]
        lines.append(f"false candidates per case, forest minus {rule}: {mean:.2f} ({low:.2f} to {high:.2f})")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert all(high < 0 for _, _, high in differences.values())
    assert effect["false_positives_removed"][0] > 0.5 and share >= 0.85
