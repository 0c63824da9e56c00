"""Stores that are damaged: refused in one line that names file and field, and repaired by `prepare`."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from liverjax.data.store import open_store, prepare
from liverjax.errors import InputError

REMEDY = "; run `liverjax prepare` again"


@pytest.fixture(params=["ct", "mr"])
def prepared(request, two_scans, tiny_config, tmp_path, contents):
    """A store of two cases, its data set, its config, and the function `contents`."""
    changed = dataclasses.replace(tiny_config.preprocess, modality=request.param)
    config = dataclasses.replace(tiny_config, preprocess=changed)
    store = tmp_path / "store"
    prepare(two_scans, store, config, quiet=True)
    return store, two_scans, config, contents


def _open_all(store, config):
    """Opens all that training reads."""
    for case in open_store(store, config.preprocess, config.target).cases:
        for view in case.shapes:
            case.image(view), case.labels(view)


def _refused_and_repaired(prepared, damaged, message):
    """Asserts one line that names the file, and that its remedy works."""
    store, scans, config, contents = prepared
    with pytest.raises(InputError) as caught:
        _open_all(store, config)
    text = str(caught.value)
    assert str(damaged) in text and message in text and text.endswith(REMEDY) and "\n" not in text
    prepare(scans, store, config, quiet=True)
    prepare(scans, store.parent / "fresh", config, quiet=True)
    assert contents(store) == contents(store.parent / "fresh")
    _open_all(store, config)


_CASE = [
    (lambda f: f.clear(), "identity is missing"),
    (lambda f: f.update(identity=[]), "identity is [], expected that of the store"),
    (lambda f: f["identity"].update({"preprocess.modality": "us"}), "expected that of the store"),
    (lambda f: f.update(id=".."), "id is '..', expected 'phantom_001'"),
    (lambda f: f.update(id="phantom_002"), "id is 'phantom_002', expected 'phantom_001'"),
    (lambda f: f.pop("patient"), "patient is missing, expected a name"),
    (lambda f: f.update(patient=3), "patient is 3, expected a name"),
    (lambda f: f.update(scale=0), "scale is 0, expected 1 of a CT, a number above 0 of an MR scan"),
    (lambda f: f.update(scale=-1.5), "scale is -1.5"),
    (lambda f: f.update(scale=True), "scale is True"),
    (lambda f: f.update(scale=1e-320), "scale is 1e-320"),
    (lambda f: f.update(scale=[1]), "scale is [1]"),
    (lambda f: f.update(quantiles=[1, 2]), "quantiles is [1, 2]"),
    (lambda f: f.update(quantiles="x"), "quantiles is 'x'"),
    (lambda f: f.update(quantiles=list(range(1199, 0, -1))), "quantiles is [1199"),
    (lambda f: f.update(fingerprint=["a"]), "fingerprint is ['a'], expected two checksums"),
    (lambda f: f.update(fingerprint=None), "fingerprint is None"),
    (lambda f: f.update(liver_only="no"), "liver_only is 'no', expected true or false"),
    (lambda f: f.update(doubts=[1]), "doubts is [1], expected a list of texts"),
    (lambda f: f.update(shapes=3), "shapes is 3, expected slices, rows and columns"),
    (lambda f: f["shapes"].pop("axial"), "shapes is {"),
    (lambda f: f["shapes"].update(axial=[-36, 40, 48]), "shapes is {'axial': [-36"),
    (lambda f: f["shapes"].update(axial=[36.0, 40, 48]), "shapes is {'axial': [36.0"),
    (lambda f: f["shapes"].update(axial=[10**30, 40, 48]), "shapes is {'axial': [1000000"),
    (lambda f: f["shapes"].update(axial=[48, 40, 36]), "shapes is {'axial': [48, 40, 36]"),
    (lambda f: f["counts"].update(axial=f["counts"]["axial"][1:]), "counts is {"),
    (lambda f: f["counts"]["axial"].__setitem__(3, [1]), "counts is {"),
    (lambda f: f["counts"]["axial"].__setitem__(3, [-1, -1]), "counts is {"),
    (lambda f: f["counts"]["axial"].__setitem__(3, [5, 6]), "counts is {"),
    (lambda f: f["counts"]["axial"].__setitem__(3, [10**6, 0]), "counts is {"),
    (lambda f: f["counts"]["axial"].__setitem__(3, [0.5, 0]), "counts is {"),
    (lambda f: f["counts"]["coronal"].__setitem__(0, [1, 0]), "alike in sum"),
    (lambda f: f["counts"]["axial"].__setitem__(0, [10**40, 0]), "counts is {"),
    (lambda f: f["counts"].update(axial={"a": 1}), "counts is {"),
]


@pytest.mark.parametrize("number", range(len(_CASE)))
@pytest.mark.parametrize("prepared", ["ct"], indirect=True)
def test_a_wrong_field_of_a_case_is_named_and_repaired(prepared, number):
    damage, message = _CASE[number]
    path = prepared[0] / "cases" / "phantom_001" / "case.json"
    facts = json.loads(path.read_text())
    damage(facts)
    path.write_text(json.dumps(facts))
    _refused_and_repaired(prepared, path, message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: f.update(quantiles=None),
            "quantiles is None, expected those of an MR scan in rising order",
        ),
        (lambda f: f["quantiles"].__setitem__(3, 1e300), "quantiles is ["),
        (lambda f: f.update(scale=1e300), "scale is 1e+300"),
    ],
)
@pytest.mark.parametrize("prepared", ["mr"], indirect=True)
def test_a_wrong_field_of_an_mr_case_is_named_and_repaired(prepared, damage, message):
    path = prepared[0] / "cases" / "phantom_002" / "case.json"
    facts = json.loads(path.read_text())
    damage(facts)
    path.write_text(json.dumps(facts))
    _refused_and_repaired(prepared, path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds [], expected a JSON object"),
        ("{}", "store of format None, expected 2"),
        ("", "not JSON (line 1, column 1"),
        ('{"format": true, "identity": {}, "cases": []}', "identity"),
        ('{"format": 2, "cases": ["phantom_001"]}', "identity is missing"),
        ('{"format": 2, "identity": [], "cases": []}', "identity is [], expected an object"),
        ("CASES null", "cases is None, expected a list of different case ids"),
        ("CASES []", "cases is []"),
        ('CASES ["../../outside"]', "cases is ['../../outside']"),
        ('CASES ["phantom_001", "phantom_001"]', "cases is ['phantom_001', 'phantom_001']"),
        ("CASES [1, {}]", "cases is [1, {}]"),
        ('CASES ["phantom_009"]', "phantom_009/case.json does not exist"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": NaN}', "NaN is no number of JSON"),
        ('{"format": 2, "format": 2}', "the key 'format' stands twice"),
    ],
)
@pytest.mark.parametrize("prepared", ["ct"], indirect=True)
def test_a_damaged_index_is_named_and_repaired(prepared, text, message):
    path = prepared[0] / "index.json"
    if text.startswith("CASES "):
        text = json.dumps({**json.loads(path.read_text()), "cases": json.loads(text[6:])})
    path.write_text(text)
    if message == "identity":  # a format of true is none
        message = "store of format True, expected 2"
    _refused_and_repaired(prepared, prepared[0], message)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def _zip(path):
    with open(path, "wb") as file:
        np.savez(file, np.zeros(3))


def _save(change):
    return lambda path: np.save(path, change(np.load(path)))


@pytest.mark.parametrize("name", ["coronal.npy", "coronal_labels.npy"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pathlib.Path.unlink, "No such file"),
        (lambda path: path.write_bytes(b""), "not readable"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not readable"),
        (_save(lambda array: array.astype(np.int32)), "int32 (40, 36, 48), expected"),
        (_save(lambda array: array.astype(array.dtype.newbyteorder(">")).view(">u2")), "expected"),
        (_save(lambda array: array[1:]), "(39, 36, 48), expected"),
        (_save(np.asfortranarray), "expected"),
        (_zip, "not readable"),
        (lambda path: path.write_bytes(b"\x93NUMPY\1\0\x76\0" + b"{'descr': (".ljust(118)), "not readable"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "no regular file"),
    ],
    ids=["missing", "empty", "short", "int32", "big-endian", "shape", "fortran", "zip", "header", "pipe"],
)
@pytest.mark.parametrize("prepared", ["mr"], indirect=True)
def test_a_damaged_array_is_named_and_repaired(prepared, name, damage, message):
    path = prepared[0] / "cases" / "phantom_002" / name
    if name == "coronal_labels.npy" and message == "expected" and "fortran" not in str(damage):
        damage = _save(lambda array: array.astype(np.int8))
    damage(path)
    _refused_and_repaired(prepared, path, message)


@pytest.mark.parametrize("name", ["axial.npy", "sagittal_labels.npy"])
@pytest.mark.parametrize("prepared", ["ct"], indirect=True)
def test_one_flipped_bit_of_an_array_is_repaired(prepared, name):
    store, scans, config, contents = prepared
    fresh = contents(store)
    _flip(store / "cases" / "phantom_001" / name)
    assert contents(store) != fresh
    prepare(scans, store, config, quiet=True)
    assert contents(store) == fresh
