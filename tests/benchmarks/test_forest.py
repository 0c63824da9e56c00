"""Lesion filter: seconds of candidates and features of a large scan, and of the forest beside scikit-learn's own.

  python -m pytest -m slow -s tests/benchmarks/test_forest.py

CPU seconds of one thread; medians of runs that take turns, so that a busy machine slows both.
"""

import statistics
import time

import numpy as np
import pytest
from scipy import ndimage

from liverjax import objects
from liverjax.objects import forest
from liverjax.objects.features import feature_names


def _cpu_seconds(function, *arguments):
    start = time.process_time()
    found = function(*arguments)
    return time.process_time() - start, found


@pytest.mark.slow
def test_thousands_of_candidates_of_a_large_scan(capsys):
    shape, affine = (512, 512, 130), np.diag([0.75, 0.75, 1.5, 1.0])
    x, y, z = np.ogrid[tuple(slice(size) for size in shape)]
    liver = ((x - 190) / 150) ** 2 + ((y - 260) / 125) ** 2 + ((z - 65) / 50) ** 2 < 1
    rng = np.random.default_rng(0)
    places = np.argwhere(liver)
    chance = np.zeros(shape, np.float32)
    chance[tuple(places[rng.integers(len(places), size=5800)].T)] = 0.8
    chance = ndimage.grey_dilation(chance, size=(3, 3, 2))
    scan = (100 + 15 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)
    options = objects.CandidateOptions(least_ml=0)
    finding, found = _cpu_seconds(objects.find_candidates, chance, liver, affine, options)
    views = {"axial": chance, "coronal": chance, "sagittal": chance}
    measuring, features = _cpu_seconds(objects.measure, found, scan, chance, views)
    with capsys.disabled():
        box = " x ".join(map(str, found.ids.shape))
        print(
            f"\n{found.count} candidates in a box of {box}: found {finding:.1f} s, measured {measuring:.1f} s"
        )
    assert found.count >= 5000 and features.shape == (found.count, 44)
    assert finding + measuring < 20


@pytest.mark.slow
def test_the_forest_beside_scikit_learn(duel):
    ensemble = pytest.importorskip(
        "sklearn.ensemble", reason="scikit-learn is not installed (extra 'lesions')"
    )
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((5000, 44))
    true = samples[:, 0] + samples[:, 1] * samples[:, 2] + rng.standard_normal(5000) > 1
    grown = ensemble.RandomForestClassifier(forest.TREES, random_state=0).fit(
        samples.astype(np.float32), true
    )
    ours = forest.from_sklearn(grown, feature_names(True))
    unseen = rng.standard_normal((5000, 44))
    times = {"ours": [], "theirs": []}
    for _ in range(3):
        seconds, expected = _cpu_seconds(grown.predict_proba, unseen)
        times["theirs"].append(seconds)
        seconds, found = _cpu_seconds(ours.probabilities, unseen)
        times["ours"].append(seconds)
    assert np.abs(found - expected[:, 1]).max() < 1e-6
    mine, other = (statistics.median(times[who]) for who in ("ours", "theirs"))
    duel(
        "5000 candidates by 256 trees",
        "scikit-learn",
        ours=mine,
        theirs=other,
        unit="CPU s",
        of="medians of 3",
        parity=f"probabilities within {np.abs(found - expected[:, 1]).max():.0e}",
        aim=10,
    )
    assert mine < 10 * other
