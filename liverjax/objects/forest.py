"""A random forest as plain arrays: grown by scikit-learn, evaluated here, kept and loaded without pickle.

An evaluated forest gives what ``RandomForestClassifier.predict_proba`` gives: features are cast to float32, a sample
goes left where its feature is at most the node's threshold, and the trees' probabilities are averaged. The thresholds
of scikit-learn are float64; the greatest float32 below such a one divides all float32 in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liverjax.errors import InputError, LiverjaxError

#: Trees of a forest (Chlebus 2018).
TREES = 256
# Candidates that a leaf holds at least. With single ones the probabilities of the rarest true candidates, which decide
# the operating point, vary from seed to seed.
_LEAST_IN_LEAF = 3
# Samples that go down the trees at a time: the bound of memory, and what fits a cache.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Forest:
    """Trees whose nodes are numbered through; a tree's nodes follow its root, and children follow their parent.

    Attributes:
      names: name of each feature, in the order of the columns.
      roots: (t,) int32, first node of each tree.
      children: (m, 2) int32, the left and the right child of a node; -1 twice for a leaf.
      feature: (m,) int32, the column that a node asks for; 0 for a leaf.
      threshold: (m,) float32, the greatest value that goes left; 0 for a leaf.
      value: (m,) float64, the share of true candidates at a node.
      impurity: (k,) float64, how much each feature lowers the Gini impurity, in all 1: importance as scikit-learn
        computes it, on the candidates that grew the trees.
    """

    names: tuple[str, ...]
    roots: np.ndarray
    children: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    impurity: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns the probability of each sample to be true.

        Args:
          features: (n, k), in the order of `names`.

        Returns:
          (n,) float64 in [0, 1].

        Raises:
          InputError: another number of features, or one that is not finite as float32.
        """
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise InputError(f"features of shape {features.shape}, expected (n, {len(self.names)})")
        columns = as_float32(features, self.names)
        left = np.where(self.children[:, 0] < 0, 0, self.children[:, 0])  # 0 is a root, and so no child.
        children = np.stack([left, self.children[:, 1]], axis=1).ravel()
        found = np.empty(len(columns))
        for start in range(0, len(columns), _BLOCK):
            block = columns[start : start + _BLOCK]
            values, shape = block.ravel(), (len(block), len(self.roots))
            leaves = np.broadcast_to(self.roots, shape).ravel().copy()
            # Those that are still on their way: where they are, and where their sample's features start.
            going = np.flatnonzero(left[leaves])
            node, offset = leaves[going], np.repeat(np.arange(len(block)) * len(self.names), shape[1])[going]
            while going.size:
                right = values[offset + self.feature[node]] > self.threshold[node]
                node = children[2 * node + right]
                on = left[node] > 0
                leaves[going[~on]] = node[~on]
                going, node, offset = going[on], node[on], offset[on]
            found[start : start + len(block)] = self.value[leaves].reshape(shape).mean(axis=1)
        return found


def as_float32(features: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns features as the trees see them.

    Raises:
      InputError: one is not finite.
    """
    with np.errstate(over="ignore"):
        columns = np.ascontiguousarray(features, np.float32)
    if not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        raise InputError(
            f"feature {names[column]} of candidate {row + 1} is {features[row, column]}, expected a finite number"
        )
    return columns


def classifier() -> Any:
    """Returns scikit-learn's ``RandomForestClassifier``.

    Raises:
      LiverjaxError: it is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        raise LiverjaxError(
            "a lesion filter is grown by scikit-learn, which is not installed; pip install 'liverjax[lesions]'"
        ) from None
    return RandomForestClassifier


def grow(
    features: np.ndarray, true: np.ndarray, names: Sequence[str], *, seed: int = 0, trees: int = TREES
) -> Forest:
    """Grows a forest by scikit-learn (extra ``lesions``).

    Args:
      features: (n, k).
      true: (n,) bool, the class of each sample.
      names: of the features.
      seed: of bootstrap samples and of the features that a node chooses from.
      trees: number of trees.

    Raises:
      InputError: no samples, or of one class only; or a feature that is not finite.
      LiverjaxError: scikit-learn is not installed.
    """
    true = np.asarray(true, bool)
    if not len(true):
        raise InputError(
            "there are no candidates to learn from, expected true and false ones; lower the threshold"
        )
    if true.all() or not true.any():
        which = "true" if true.all() else "false"
        raise InputError(
            f"all {len(true)} candidates are {which}, expected both kinds; "
            + ("lower the threshold" if true.all() else "give cases whose tumours the network finds in part")
        )
    columns = as_float32(features, names)
    grown = classifier()(trees, min_samples_leaf=_LEAST_IN_LEAF, random_state=seed, n_jobs=1)
    return from_sklearn(grown.fit(columns, true), names)


def from_sklearn(grown: Any, names: Sequence[str]) -> Forest:
    """Returns a fitted ``RandomForestClassifier`` of two classes, False and True, as plain arrays."""
    parts = [tree.tree_ for tree in grown.estimators_]
    sizes = [part.node_count for part in parts]
    roots = np.cumsum([0, *sizes[:-1]])
    children, features, thresholds, values = [], [], [], []
    for part, root in zip(parts, roots, strict=True):
        pair = np.stack([part.children_left, part.children_right], axis=1)
        leaf = pair[:, :1] < 0
        children.append(np.where(leaf, -1, pair + root))
        features.append(np.where(leaf[:, 0], 0, part.feature))
        thresholds.append(np.where(leaf[:, 0], 0.0, part.threshold))
        shares = part.value[:, 0, :]
        values.append(shares[:, 1] / shares.sum(axis=1))
    return Forest(
        tuple(names),
        roots.astype(np.int32),
        np.concatenate(children).astype(np.int32),
        np.concatenate(features).astype(np.int32),
        _rounded_down(np.concatenate(thresholds)),
        np.concatenate(values).astype(np.float64),
        np.asarray(grown.feature_importances_, np.float64),
    )


def _rounded_down(values: np.ndarray) -> np.ndarray:
    """Returns the greatest float32 that is not above each float64."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


#: Arrays of a forest with their types, as a file holds them.
ARRAYS: Mapping[str, type] = {
    "roots": np.int32,
    "children": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "value": np.float64,
    "impurity": np.float64,
}


def fault(forest: Forest) -> str:
    """Returns what is wrong with a forest that a file describes, in a few words; "" if it can be evaluated.

    Checked are types and shapes, finite numbers, features and children in range, and that the nodes are trees: each
    node but the roots is the child of one node before it, in the same tree. So no sample can go round in a circle.
    """
    m, k = len(forest.children), len(forest.names)
    shapes = {"children": (m, 2), "impurity": (k,), "roots": (forest.roots.size,)}
    for name, kind in ARRAYS.items():
        array = getattr(forest, name)
        if array.dtype != kind or array.shape != shapes.get(name, (m,)):
            return f"{name} is {array.dtype} of shape {array.shape}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} holds a value that is not finite"
    if not m or not forest.roots.size or forest.roots[0] != 0:
        return "it has no first root"
    bounds = np.append(forest.roots, m)
    if (np.diff(bounds) <= 0).any():
        return "roots are not in order"
    if (forest.feature < 0).any() or (forest.feature >= max(k, 1)).any():
        return f"a node asks for a feature beyond the {k}"
    if (forest.value < 0).any() or (forest.value > 1).any():
        return "a share is not within 0 to 1"
    leaf = (forest.children == -1).all(axis=1)
    inner = np.flatnonzero(~leaf)
    pairs = forest.children[inner]
    end = bounds[np.searchsorted(bounds, inner, side="right")]
    if (pairs <= inner[:, None]).any() or (pairs >= end[:, None]).any():
        return "a child is not behind its parent in the same tree"
    once = np.bincount(pairs.ravel(), minlength=m)
    once[forest.roots] += 1
    return "" if (once == 1).all() else "a node has no parent, or two"
