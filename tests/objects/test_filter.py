"""Lesion filters: what they keep, their file, and files that are refused."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from liverjax import objects, sealed
from liverjax.errors import CheckpointError, ConfigError, InputError
from liverjax.objects import features, forest

NAMES = features.feature_names(False)


def _forest(names=NAMES, column="p_max", threshold=0.6):
    """One tree that asks one question."""
    arrays = {
        "roots": [0],
        "children": [[1, 2], [-1, -1], [-1, -1]],
        "feature": [names.index(column), 0, 0],
        "threshold": [threshold, 0, 0],
        "value": [0.4, 0.1, 0.8],
        "impurity": np.eye(len(names))[names.index(column)],
    }
    return forest.Forest(
        names, **{name: np.array(arrays[name], kind) for name, kind in forest.ARRAYS.items()}
    )


OPTIONS = objects.CandidateOptions(0.3, 0, 0)


@pytest.fixture
def lesion_filter():
    return objects.LesionFilter(_forest(), 0.5, OPTIONS, facts={"cases": 7})


@pytest.fixture
def case():
    """Scan, liver, probability with candidates of 0.5 and 0.9 at their best, and the affine."""
    liver = np.zeros((12, 10, 8), bool)
    liver[1:11, 1:9, 1:7] = True
    chance = np.zeros(liver.shape)
    chance[2:4, 3, 3], chance[7:9, 4:6, 4] = 0.5, 0.9
    scan = np.random.default_rng(0).normal(100, 10, liver.shape)
    return scan, liver, chance, np.diag([1.0, 1.0, 2.0, 1.0])


def test_candidates_above_the_operating_point_are_kept(lesion_filter, case):
    found = lesion_filter.apply(*case)
    assert found.probabilities.tolist() == [0.1, 0.8] and found.kept.tolist() == [False, True]
    assert np.array_equal(found.mask, case[2] == 0.9)


@pytest.mark.parametrize(("least", "kept"), [(0, 2), (0.1, 2), (0.11, 1), (0.8, 1), (0.81, 0), (1, 0)])
def test_the_operating_point_can_be_moved(lesion_filter, case, least, kept):
    assert lesion_filter.apply(*case, lesion_probability=least).kept.sum() == kept


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_an_operating_point_that_cannot_be_is_refused(lesion_filter, case, least):
    with pytest.raises(ConfigError, match=r"lesion_probability is .*, expected 0 to 1"):
        lesion_filter.apply(*case, lesion_probability=least)
    with pytest.raises(ConfigError, match="lesion_probability"):
        dataclasses.replace(lesion_filter, lesion_probability=least)


def test_a_filter_of_views_needs_them_and_others_ignore_them(lesion_filter, case):
    names = features.feature_names(True)
    of_views = objects.LesionFilter(_forest(names, "view_lowest", 0.4), 0.5, OPTIONS, ("axial", "coronal"))
    views = {"axial": case[2], "coronal": case[2] / 2}
    assert of_views.apply(*case, views=views).kept.tolist() == [False, True]
    assert lesion_filter.apply(*case, views=views).kept.tolist() == [False, True]
    with pytest.raises(
        InputError, match=r"needs the tumour probability of the coronal view, given were axial; give"
    ):
        of_views.apply(*case, views={"axial": case[2]})
    # The remedies: all of them, or a filter without.
    assert of_views.apply(*case, views=views | {"sagittal": case[2]}).candidates.count == 2
    assert lesion_filter.apply(*case).candidates.count == 2


def test_a_filter_comes_back_from_its_file_and_equal_ones_are_equal_files(lesion_filter, case, tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    objects.write_filter(path, lesion_filter)
    objects.write_filter(other, lesion_filter)
    assert path.read_bytes() == other.read_bytes()
    back = objects.read_filter(path)
    for name in ("lesion_probability", "candidates", "views", "facts"):
        assert getattr(back, name) == getattr(lesion_filter, name)
    assert back.forest.names == NAMES
    assert all(
        np.array_equal(getattr(back.forest, n), getattr(lesion_filter.forest, n)) for n in forest.ARRAYS
    )
    assert np.array_equal(back.apply(*case).probabilities, lesion_filter.apply(*case).probabilities)


def _rewritten(path, change=lambda facts, arrays: None):
    """Writes a filter's file anew with other facts or arrays, and the checksum that belongs to them."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = {name: json.loads(text) for name, text in header["__metadata__"].items()}
    arrays = safetensors.numpy.load(data)
    change(facts, arrays)
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    metadata["sha256"] = json.dumps(sealed.digest(metadata, arrays))
    path.write_bytes(safetensors.numpy.save(arrays, metadata))


def _set(**changes):
    return lambda facts, arrays: facts.update(changes)


def _without(name):
    return lambda facts, arrays: facts.pop(name)


CHANGES = {
    "no_format": (_without("format"), "no lesion filter"),
    "format": (_set(format="liverjax model"), "is 'liverjax model'"),
    "newer": (_set(version=2), "newer liverjax"),
    "field": (_without("views"), "'views' of its metadata is missing"),
    "surplus": (_set(more=1), "'more' of its metadata is missing or unknown"),
    "type": (_set(views="axial"), "views is 'axial'"),
    "names": (_set(features=[1]), "without names"),
    "feature_version": (
        _set(feature_version=features.VERSION + 1),
        "version 2 of the features, this liverjax measures",
    ),
    "other_features": (
        _set(features=["texture", *NAMES[1:]]),
        "'texture' where this liverjax measures intensity_mean",
    ),
    "fewer_features": (_set(features=list(NAMES[:-1])), "'no more' where this liverjax measures p_drop"),
    "views": (_set(views=["axial"]), "'no more' where this liverjax measures view_sd"),
    "point": (_set(lesion_probability=1.5), "lesion_probability is 1.5"),
    "options": (_set(candidates={"threshold": 2}), "threshold is 2"),
    "unknown_options": (_set(candidates={"colour": 2}), "colour"),
    "odd_options": (_set(candidates={"threshold": "0.3"}), "no lesion filter of this version"),
    "circle": (lambda facts, arrays: arrays["children"].fill(0), "holds no forest .a child"),
    "nan": (lambda facts, arrays: arrays["value"].fill(np.nan), "holds no forest .value"),
    "array": (lambda facts, arrays: arrays.pop("value"), "array 'value' is missing"),
    "dtype": (
        lambda facts, arrays: arrays.update(value=arrays["value"].astype("f4")),
        "value is F32, expected F64",
    ),
    "none": (lambda facts, arrays: arrays.update({n: a[:0] for n, a in arrays.items()}), "holds no forest"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_cannot_be_used_are_refused_by_one_line(change, lesion_filter, tmp_path):
    path = tmp_path / "filter.safetensors"
    objects.write_filter(path, lesion_filter)
    _rewritten(path)
    assert objects.read_filter(path).lesion_probability == 0.5  # The change is what is refused.
    edit, message = CHANGES[change]
    _rewritten(path, edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        objects.read_filter(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_files_are_refused(lesion_filter, tmp_path):
    path = tmp_path / "filter.safetensors"
    objects.write_filter(path, lesion_filter)
    data = path.read_bytes()
    for broken in (data[:5], data[: len(data) // 2], data[:-1], b"\xff" * 100, b""):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="no lesion filter|damaged"):
            objects.read_filter(path)
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(CheckpointError, match="not as it was written .*; copy it again"):
        objects.read_filter(path)
    path.write_bytes(data)
    assert objects.read_filter(path).facts == {"cases": 7}
    with pytest.raises(CheckpointError, match="no file, expected a lesion filter"):
        objects.read_filter(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is an address"):
        objects.write_filter("gs://bucket/filter.safetensors", objects.read_filter(path))
