"""Two models and a filter in one file: the same cascade comes back, and nothing that was tampered with is read."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liverjax
from liverjax import objects, options
from liverjax.errors import CheckpointError
from liverjax.inference import Cascade, Networks, Segmenter
from liverjax.inference.calibration import Calibration
from liverjax.models import build_unet
from liverjax.objects import features, forest
from liverjax.pretrained import bundle, cascade_bundle

LIVER = options.Config(
    name="a_liver",
    store="/home/somebody/store",
    model=options.Model(features=(4, 6)),
    preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
    batch=options.Batch(patch=(32, 32)),
)
TUMOR = dataclasses.replace(
    LIVER,
    name="a_tumor",
    views=("axial",),
    model=options.Model(features=(6, 8)),
    target=options.Target(labels=("background", "tumor"), region="reference"),
)
NAMES = features.feature_names(False)


def _segmenter(config, seed, about=None) -> Segmenter:
    network = build_unet(config.model, 2, accelerator=False)
    first = network.init(jax.random.key(seed), jnp.zeros((1, 16, 16, 1)))
    variables = {
        view: [jax.tree.map(lambda a, shift=shift: a + shift / 8, first)]
        for shift, view in enumerate(config.views)
    }
    subsets = {"train": ["patient-4711"], "validation": [], "test": ["patient-4713"]}
    return Segmenter(config, Networks.stack(variables), subsets, Calibration({"axial": 1.5}, {}), about)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    arrays = {
        "roots": [0],
        "children": [[1, 2], [-1, -1], [-1, -1]],
        "feature": [3, 0, 0],
        "threshold": [0.5, 0, 0],
        "value": [0.4, 0.1, 0.8],
        "impurity": np.eye(len(NAMES))[0],
    }
    grown = forest.Forest(NAMES, **{n: np.array(arrays[n], kind) for n, kind in forest.ARRAYS.items()})
    kept = objects.LesionFilter(grown, 0.25, objects.CandidateOptions(0.2))
    about = {"licence": "CC-BY-4.0", "credit": "those who drew"}
    return Cascade(_segmenter(LIVER, 0, about), _segmenter(TUMOR, 1), kept)


@pytest.fixture
def file(cascade, tmp_path) -> pathlib.Path:
    path = tmp_path / "both.safetensors"
    cascade_bundle.write_cascade(path, cascade, licence="CC0-1.0", dtype="float32")
    return path


def _read(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write(path, header, data) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_the_same_cascade_comes_back(file, cascade):
    read = liverjax.load_model(file)
    assert isinstance(read, Cascade)
    for one, other in ((read.liver, cascade.liver), (read.tumor, cascade.tumor)):
        assert one.config == dataclasses.replace(other.config, store="")
        assert one.calibration == other.calibration and not one.subsets
        jax.tree.map(np.testing.assert_array_equal, one.networks, other.networks)
    for name in forest.ARRAYS:
        np.testing.assert_array_equal(*(getattr(m.lesion_filter.forest, name) for m in (read, cascade)))
    assert read.lesion_filter.candidates == cascade.lesion_filter.candidates
    assert read.lesion_filter.lesion_probability == 0.25
    assert liverjax.load_model(file, views=["axial"]).liver.config.views == ("axial",)
    # A stage that came with a licence keeps it.
    assert (read.liver.about["licence"], read.tumor.about["licence"]) == ("CC-BY-4.0", "CC0-1.0")
    lines = cascade_bundle.describe(file)
    assert "liver in CT" in lines and "tumor in CT" in lines and "candidates of 0.25 or more" in lines
    assert "credit those who drew" in lines


def test_equal_cascades_are_equal_bytes_and_name_nobody(file, cascade, tmp_path):
    cascade_bundle.write_cascade(tmp_path / "again", cascade, licence="CC0-1.0", dtype="float32")
    content = file.read_bytes()
    assert (tmp_path / "again").read_bytes() == content
    assert b"4711" not in content and b"4713" not in content and b"somebody" not in content
    cascade_bundle.write_cascade(tmp_path / "half", cascade, licence="CC0-1.0")
    assert (tmp_path / "half").stat().st_size < 0.8 * len(content)
    # Without a filter, and written again from what was read.
    cascade_bundle.write_cascade(tmp_path / "two", Cascade(cascade.liver, cascade.tumor), licence="CC0-1.0")
    assert liverjax.load_model(tmp_path / "two").lesion_filter is None
    assert "no lesion filter" in cascade_bundle.describe(tmp_path / "two")
    read = liverjax.load_model(file)
    cascade_bundle.write_cascade(tmp_path / "copy", read, licence="CC0-1.0", dtype="float32")
    assert liverjax.load_model(tmp_path / "copy").liver.about["licence"] == "CC-BY-4.0"


def test_any_changed_byte_is_noticed(file, tmp_path):
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = np.random.default_rng(0)
    # Of the arrays of both stages and of the filter, and of the header.
    places = [*draw.integers(start, len(content), 12), len(content) - 3, *draw.integers(8, start, 12)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x10
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(CheckpointError) as caught:
            liverjax.load_model(tmp_path / "changed")
        assert "\n" not in str(caught.value)
    for size in (0, 5, start, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(CheckpointError):
            liverjax.load_model(tmp_path / "cut")


def _swapped(facts):
    facts["liver"], facts["tumor"] = facts["tumor"], facts["liver"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(version=2), "written by a newer liverjax .*; update liverjax"),
        (lambda facts: facts.update(version=True), "another type or value"),
        (lambda facts: facts.update(liver=[]), "another type or value"),
        (lambda facts: facts.update(extra=1), "field 'extra' of its metadata is missing or unknown"),
        (lambda facts: facts.pop("tumor"), "field 'tumor' of its metadata is missing or unknown"),
        (
            lambda facts: facts["liver"].pop("licence"),
            r"\(liver\): field 'licence' of its metadata is missing",
        ),
        (lambda facts: facts["tumor"]["config"]["model"].update(features=[4, 8]), "shape"),
        (
            lambda facts: facts["filter"].update(feature_version=0),
            r"\(lesion filter\): trained on version 0 of",
        ),
        (lambda facts: facts["filter"].update(lesion_probability=7), "lesion_probability is 7"),
        (lambda facts: facts.update(filter=None), "array 'filter/.*' is unknown"),
        (_swapped, "shape|missing or unknown"),
    ],
)
def test_what_is_not_understood_is_refused(file, change, message):
    header, data = _read(file)
    facts = {name: json.loads(text) for name, text in header["__metadata__"].items()}
    change(facts)
    header["__metadata__"] = {name: json.dumps(value) for name, value in facts.items()}
    _write(file, header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        liverjax.load_model(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_models_that_do_not_go_together_are_not_read(cascade, tmp_path):
    """A file that somebody made by hand, with a sound checksum."""
    odd = Cascade(cascade.liver, cascade.tumor)
    odd.liver, odd.tumor = odd.tumor, odd.liver
    cascade_bundle.write_cascade(tmp_path / "odd", odd, licence="CC0-1.0")
    with pytest.raises(CheckpointError, match="are the two swapped?"):
        liverjax.load_model(tmp_path / "odd")


def test_what_reads_one_model_says_that_there_are_two(file):
    with pytest.raises(CheckpointError, match="is 'liverjax cascade', expected 'liverjax model'"):
        bundle.read_facts(file)
