"""Forests: scikit-learn as the outside tool, and what a forest that is loaded cannot be."""

import dataclasses
import pathlib
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax.errors import InputError, LiverjaxError
from liverjax.objects import forest

ensemble = pytest.importorskip("sklearn.ensemble", reason="scikit-learn is not installed (extra 'lesions')")


def _samples(seed, n=60, k=5, levels=6):
    """Few values, so that samples lie on thresholds and on one another."""
    rng = np.random.default_rng(seed)
    features = rng.integers(levels, size=(n, k)) / np.float64(levels)
    return features, (features[:, 0] + 0.5 * rng.random(n) > 0.6), [f"f{i}" for i in range(k)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from((2, 3, 50, 10**6)))
@settings(max_examples=40, deadline=None)
def test_probabilities_are_those_of_scikit_learn(seed, trees, levels):
    features, true, names = _samples(seed, levels=levels)
    true[:2] = True, False
    grown = ensemble.RandomForestClassifier(trees, random_state=seed).fit(features.astype(np.float32), true)
    ours = forest.from_sklearn(grown, names)
    assert forest.fault(ours) == ""
    # Unseen samples, and ones that lie on the thresholds as float64 and as both neighbouring float32.
    edges = np.concatenate([tree.tree_.threshold for tree in grown.estimators_])[:, None]
    single = edges.astype(np.float32)
    beside = [np.nextafter(single, np.float32(end)) for end in (-np.inf, np.inf)]
    rows = np.concatenate(
        [features, np.random.default_rng(seed).random((50, 5)), *np.broadcast_arrays(*(
            np.tile(one, (1, 5)) for one in (edges, single, *beside)
        ))]
    )  # fmt: skip
    expected = grown.predict_proba(rows.astype(np.float32))[:, 1]
    for given_rows in (rows, rows.astype(np.float32)):
        assert np.abs(ours.probabilities(given_rows) - expected).max() < 1e-12
    assert ours.impurity == pytest.approx(grown.feature_importances_)


def test_growing_depends_on_the_seed_alone():
    features, true, names = _samples(0)
    first, again, other = (forest.grow(features, true, names, seed=seed, trees=8) for seed in (1, 1, 2))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in forest.ARRAYS)
    assert not np.array_equal(first.threshold, other.threshold)


def test_many_samples_are_those_of_each_alone():
    features, true, names = _samples(3)
    grown = forest.grow(features, true, names, trees=4)
    many = np.tile(features, (12, 1))  # More than a block.
    assert np.array_equal(grown.probabilities(many)[:60], grown.probabilities(features))
    assert grown.probabilities(features[:1])[0] == grown.probabilities(features)[0]
    assert grown.probabilities(features[:0]).shape == (0,)


def test_a_tree_of_one_leaf_knows_the_share_alone():
    names = ("a",)
    arrays = {
        "roots": [0],
        "children": [[-1, -1]],
        "feature": [0],
        "threshold": [0],
        "value": [0.25],
        "impurity": [0],
    }
    one = forest.Forest(names, **{name: np.array(arrays[name], kind) for name, kind in forest.ARRAYS.items()})
    assert forest.fault(one) == "" and one.probabilities(np.zeros((3, 1))).tolist() == [0.25] * 3


def _changed(grown, name, index, value):
    array = getattr(grown, name).copy()
    array[index] = value
    return dataclasses.replace(grown, **{name: array})


def test_what_is_no_forest_is_found_out():
    features, true, names = _samples(4)
    grown = forest.grow(features, true, names, trees=3)
    inner = np.flatnonzero(grown.children[:, 0] >= 0)
    first, second = int(inner[0]), int(inner[1])
    broken = {
        "a child is not behind its parent": [
            _changed(grown, "children", (second, 0), second),  # A circle of one.
            _changed(grown, "children", (second, 1), first),
            _changed(grown, "children", (second, 0), len(grown.children)),
            _changed(grown, "children", (first, 0), int(grown.roots[1])),
            _changed(grown, "children", (first, 0), -1),
        ],
        "a node has no parent, or two": [
            _changed(grown, "children", first, grown.children[first, 0]),
            _changed(grown, "children", first, -1),
        ],
        "a node asks for a feature beyond the 5": [
            _changed(grown, "feature", first, 5),
            _changed(grown, "feature", first, -1),
        ],
        "threshold holds a value that is not finite": [_changed(grown, "threshold", first, np.nan)],
        "value holds a value that is not finite": [_changed(grown, "value", first, np.inf)],
        "a share is not within 0 to 1": [_changed(grown, "value", 0, 1.5)],
        "roots are not in order": [_changed(grown, "roots", 2, 0)],
        "it has no first root": [_changed(grown, "roots", 0, 1)],
        "value is float32": [dataclasses.replace(grown, value=grown.value.astype(np.float32))],
        "feature is int32 of shape": [dataclasses.replace(grown, feature=grown.feature[:-1])],
        "impurity is float64 of shape": [dataclasses.replace(grown, impurity=grown.impurity[:-1])],
    }
    for reason, forests in broken.items():
        for one in forests:
            assert forest.fault(one).startswith(reason)


@pytest.mark.parametrize(
    ("features", "true", "message"),
    [
        (np.zeros((0, 1)), [], "no candidates to learn from"),
        (np.zeros((3, 1)), [1, 1, 1], "all 3 candidates are true, expected both kinds; lower the threshold"),
        (np.zeros((3, 1)), [0, 0, 0], "all 3 candidates are false, expected both kinds; give cases"),
        ([[0.0], [np.nan]], [0, 1], "feature a of candidate 2 is nan, expected a finite number"),
        ([[1e39], [0.0]], [0, 1], r"feature a of candidate 1 is 1e\+39, expected a finite number"),
    ],
)
def test_samples_that_teach_nothing_are_refused(features, true, message):
    with pytest.raises(InputError, match=message):
        forest.grow(np.array(features), np.array(true, bool), ["a"])


def test_another_number_of_features_is_refused():
    features, true, names = _samples(5)
    grown = forest.grow(features, true, names, trees=2)
    with pytest.raises(InputError, match=r"shape \(60, 4\), expected \(n, 5\)"):
        grown.probabilities(features[:, :4])


def test_without_scikit_learn_the_extra_is_named_and_there_is_one(monkeypatch):
    features, true, names = _samples(6)
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "sklearn.ensemble", None)
        with pytest.raises(LiverjaxError, match=r"pip install 'liverjax\[lesions\]'"):
            forest.grow(features, true, names, trees=2)
    project = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("scikit-learn") for line in project["optional-dependencies"]["lesions"])
    assert len(forest.grow(features, true, names, trees=2).roots) == 2
