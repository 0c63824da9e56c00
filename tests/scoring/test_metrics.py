"""Metrics as functions of two arrays: examples of the docstrings, names, and empty masks."""

import doctest
import inspect
import math

import numpy as np
import pytest

from liverjax import scoring
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


def test_public_names_exist():
    assert all(hasattr(scoring, name) for name in scoring.__all__)
    assert {"dice", "evaluate", "lesion_detection"} <= set(dir(scoring))
