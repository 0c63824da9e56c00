"""Laws of learning curves: simulated curves whose law is known."""

import math

import numpy as np
import pytest

from liverjax.studies.curve_fit import fit_curve

SIZES = np.array([2, 4, 8, 16, 32])


def _law(name, sizes):
    """The shortfall of a power law and of an exponential plateau."""
    sizes = np.asarray(sizes, float)
    return 0.04 + 0.3 * sizes**-0.9 if name == "power" else 0.05 + 0.2 * np.exp(-sizes / 6)


def _simulated(rng, name, seeds=3, patients=20):
    """Scores with differences of patients (easy and hard), of trainings, and of single scores."""
    truth = 1 - _law(name, SIZES)[:, None, None]
    own = rng.normal(0, 0.02, patients)
    training = rng.normal(0, 0.006, (len(SIZES), seeds, 1))
    return np.minimum(truth + own + training + rng.normal(0, 0.01, (len(SIZES), seeds, patients)), 1)


@pytest.mark.parametrize("name", ["power", "plateau"])
def test_exact_curves_give_back_their_law(name):
    scores = np.broadcast_to(1 - _law(name, SIZES)[:, None, None], (5, 2, 3))
    found = fit_curve(SIZES, scores)
    assert found.law == {"power": "power law", "plateau": "exponential plateau"}[name]
    assert found.plateau[0] == pytest.approx(1 - (0.04 if name == "power" else 0.05), abs=3e-3)
    assert found.predict(SIZES)[0] == pytest.approx(1 - _law(name, SIZES), abs=2e-3)
    target = 1 - float(_law(name, 12))
    assert found.needed(target).patients == pytest.approx(12, rel=0.05)
    assert found.needed(0.99).patients == math.inf and not found.needed(0.99).said


@pytest.mark.parametrize(("name", "at"), [("power", 12), ("plateau", 10)])
def test_the_range_covers_the_patients_that_are_needed(name, at):
    """100 curves of three seeds and 20 patients; the target is what ``at`` training patients give."""
    rng, target = np.random.default_rng(3), 1 - float(_law(name, at))
    needed = [fit_curve(SIZES, _simulated(rng, name), seed=i).needed(target) for i in range(100)]
    assert sum(one.low <= at <= one.high for one in needed) >= 90
    # A range that always was open would cover everything.
    assert sum(one.said for one in needed) >= 50
