"""Metrics as functions of two arrays: examples of the docstrings, names, and empty masks."""

import doctest
import inspect
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from liverjax import scoring
from liverjax.errors import InputError
from liverjax.scoring import metrics

#: A mask that is empty alone gives, by metric: prediction empty, reference empty.
ONE_EMPTY = {
    "dice": (0, 0),
    "iou": (0, 0),
    "voe": (100, 100),
    "rvd": (-100, math.inf),
    **dict.fromkeys(("assd", "rmsd", "hausdorff", "hd95", "hd95_max_of_directed"), (math.inf, math.inf)),
    "hd95_area_weighted": (math.inf, math.inf),
    "nsd": (0, 0),
    "miccai_score": (0, 0),
}


def _call(name, prediction, reference):
    function = getattr(scoring, name)
    spacing = [(1, 1, 2.5)] if "spacing" in inspect.signature(function).parameters else []
    return function(prediction, reference, *spacing)


@pytest.mark.parametrize("module", [scoring, metrics], ids=["scoring", "metrics"])
def test_the_examples_of_the_docstrings(module):
    outcome = doctest.testmod(module, extraglobs={"np": np})
    assert outcome.failed == 0 and outcome.attempted >= (4 if module is scoring else 13)


@pytest.mark.parametrize("name", ONE_EMPTY)
def test_empty_masks(name):
    mask, nothing = np.zeros((2, 4, 4, 4), bool)
    mask[1:3, 1:3, 1:3] = True
    assert math.isnan(_call(name, nothing, nothing))
    assert (_call(name, nothing, mask), _call(name, mask, nothing)) == ONE_EMPTY[name]


def test_every_metric_of_a_cohort_is_that_of_its_function():
    prediction, reference = np.random.default_rng(0).random((2, 6, 7, 5)) < 0.4
    region = metrics.Region(prediction, reference, (1, 1, 2.5))
    functions = {"nsd_2mm": "nsd", "miccai": "miccai_score"}
    for name in filter(metrics.is_tested, metrics.METRICS):
        assert _call(functions.get(name, name), prediction, reference) == metrics.metric(name)(region)
    assert metrics.metric("prediction_ml")(region) == pytest.approx(prediction.sum() * 0.0025)
    nsd = scoring.nsd(prediction, reference, (1, 1, 2.5), tolerance_mm=0.9)
    assert nsd == metrics.metric("nsd_0.9mm")(region) < metrics.metric("nsd_2mm")(region)
    assert set(ONE_EMPTY) == {
        functions.get(name, name) for name in filter(metrics.is_tested, metrics.METRICS)
    }


def test_false_volume_counts_what_is_further_than_that_from_the_reference():
    prediction, reference = np.zeros((2, 20, 5, 5), bool)
    reference[2:5] = True
    prediction[2:8] = True  # 2, 4 and 6 mm from the reference's last plane of voxels,
    prediction[14, 2, 2] = True  # and a piece at 20 mm.
    region = metrics.Region(prediction, reference, (2, 1, 3))
    for mm, voxels in ((1, 3 * 25 + 1), (2, 2 * 25 + 1), (5, 25 + 1), (10, 1), (19.9, 1), (20, 0)):
        assert metrics.metric(f"false_{mm}mm_ml")(region) == pytest.approx(voxels * 0.006)
    nothing = metrics.Region(prediction, np.zeros_like(reference), (2, 1, 3))
    assert metrics.metric("false_10mm_ml")(nothing) == pytest.approx(prediction.sum() * 0.006)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8))
@settings(max_examples=30, deadline=None)
def test_false_volume_is_that_of_a_search_over_all_voxels(seed, mm):
    rng = np.random.default_rng(seed)
    prediction, reference = rng.random((2, 6, 5, 7)) < 0.2
    spacing = rng.uniform(0.5, 3, 3)
    places, others = np.argwhere(prediction) * spacing, np.argwhere(reference) * spacing
    nearest = np.linalg.norm(places[:, None] - others[None], axis=-1).min(1, initial=np.inf)
    assume(not np.isclose(nearest, mm, rtol=1e-5).any())
    region = metrics.Region(prediction, reference, tuple(spacing))
    assert region.false_ml(mm) == pytest.approx((nearest > mm).sum() * spacing.prod() / 1000)


@pytest.mark.parametrize("name", ["false_10mm", "nsd_2mm_ml", "false_mm_ml"])
def test_a_half_known_metric_is_refused(name):
    with pytest.raises(InputError, match="does not exist"):
        metrics.metric(name)


def test_public_names_exist():
    assert all(hasattr(scoring, name) for name in scoring.__all__)
    assert {"dice", "evaluate", "lesion_detection"} <= set(dir(scoring))
