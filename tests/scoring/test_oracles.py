"""Our metrics against outside tools on 240 mask pairs and on real masks, wherever definitions coincide.

The tools' values are stored (see `oracle_values.py`), so that they are checked on every machine; where a
tool is installed, a sample of what is stored is computed anew.
"""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from liverjax.objects.matching import match_lesions
from liverjax.scoring import lits, overlap, surface


def _load(name):
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _load("oracle_values")
STORED = json.loads(oracle.STORED.read_text(encoding="utf-8"))["pairs"]
REAL = [name for name in STORED if name.startswith("real")]


def _ours(prediction, reference, spacing):
    counted = overlap.count(prediction, reference)
    voxels = surface.between_voxels(prediction, reference, spacing, neighbours=6)
    elements = surface.between_elements(prediction, reference, spacing)
    return {
        "dice": counted.dice,
        "iou": counted.iou,
        "rvd": counted.rvd,
        "assd": voxels.assd,
        "hausdorff": voxels.hausdorff,
        "hd95": voxels.hd95,
        "hd95_max_of_directed": voxels.hd95_max_of_directed,
        "hd95_area_weighted": elements.hd95_area_weighted,
        **{f"nsd_{t:g}mm": elements.nsd(t) for t in oracle.TOLERANCES},
        "prediction_area": elements.prediction_areas.sum(),
        "reference_area": elements.reference_areas.sum(),
    }


def _tolerance(tool, metric):
    # MONAI interpolates its percentile in float32.
    return 5e-6 if (tool, metric) == ("monai", "hd95_max_of_directed") else 1e-6


def _assert_agreement(name, pair):
    stored = STORED[name]
    assert oracle.checksum(*pair[:2]) == stored["checksum"]
    ours = _ours(*pair)
    for tool in ("simpleitk", "medpy", "surface_distance", "monai"):
        for metric, value in stored[tool].items():
            if metric in ours:
                tolerance = _tolerance(tool, metric)
                expected = pytest.approx(value, rel=tolerance, abs=tolerance)
                assert ours[metric] == expected, f"pair {name}: {metric} of {tool}"


@pytest.fixture(scope="module")
def pairs():
    return {str(index): oracle.mask_pair(index) for index in range(oracle.PAIRS)}


def test_every_tool_agrees_on_random_masks(pairs):
    for name, pair in pairs.items():
        _assert_agreement(name, pair)


def test_the_random_masks_are_as_varied_as_they_should_be(pairs):
    masks = [(prediction, reference) for prediction, reference, _ in pairs.values()]
    assert len(masks) >= 200
    assert sum(len(set(spacing)) > 1 for *_, spacing in pairs.values()) > 150
    assert sum(1 in prediction.shape for prediction, _ in masks) > 20
    assert sum(min(prediction.sum(), reference.sum()) == 1 for prediction, reference in masks) >= 3
    assert sum(prediction[0].any() or prediction[-1].any() for prediction, _ in masks) > 50
    assert sum(match_lesions(*pair).matches[1:] != [] for pair in pairs.values()) > 20


@pytest.mark.parametrize("name", REAL)
def test_every_tool_agrees_on_real_masks(name, real_data):
    _assert_agreement(name, oracle.real_pair(real_data, int(name.removeprefix("real "))))


def test_panoptica_finds_the_same_lesions_where_each_has_one_counterpart(pairs):
    compared = 0
    for name, (prediction, reference, spacing) in pairs.items():
        found, stored = match_lesions(prediction, reference, spacing), STORED[name]["panoptica"]
        counts = lits.detection(lits.scored_lesions(found), 0.5)
        assert (counts.references, counts.predictions) == (stored["references"], stored["predictions"])
        if any(len(match.predictions) + len(match.references) > 2 for match in found.matches):
            continue  # Panoptica merges nothing.
        dice = [match.dice for match in found.matches if match.iou > 0.5]
        assert counts.found == counts.confirmed == stored["found"]
        assert (np.mean(dice) if dice else 0) == pytest.approx(stored["dice_of_found"], abs=1e-6)
        compared += 1
    assert compared > 150


def test_simpleitks_hausdorff_distance_is_from_set_to_set(pairs):
    # A voxel deep within both masks has distance 0 to the set, though it may be far from its surface: so
    # SimpleITK's distance is never the larger, and nearly always the same.
    distances = np.array(
        [
            (
                surface.between_voxels(*pair, neighbours=6).hausdorff,
                STORED[name]["simpleitk"]["set_to_set_hausdorff"],
            )
            for name, pair in pairs.items()
        ]
    )
    excess = distances[:, 0] - distances[:, 1]
    assert excess.min() > -1e-6
    assert np.count_nonzero(excess > 1e-6) == 2


def test_the_neighbourhood_decides_what_the_surface_is(pairs):
    # 18 neighbours see background across edges too, so their surface holds that of 6 neighbours.
    for prediction, _, _ in pairs.values():
        six, eighteen = (surface.surface_voxels(prediction, n) for n in (6, 18))
        assert not (six & ~eighteen).any()
    assert (
        sum(
            surface.between_voxels(*pair, neighbours=6).assd != surface.between_voxels(*pair).assd
            for pair in pairs.values()
        )
        > len(pairs) // 2
    )


@pytest.mark.parametrize("tool", oracle.TOOLS)
def test_the_stored_values_are_those_of_the_installed_tool(tool, pairs, monkeypatch):
    compute, package = oracle.TOOLS[tool]
    pytest.importorskip(package.replace("-", "_"), reason=f"{package} is not installed (extra 'oracles')")
    monkeypatch.setenv("PANOPTICA_CITATION_REMINDER", "false")
    for name in list(pairs)[::8]:
        assert compute(*pairs[name]) == pytest.approx(STORED[name][tool], rel=1e-6, abs=1e-9)
