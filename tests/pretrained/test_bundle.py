"""Model bundles: the same model comes back, names nobody, and nothing that was tampered with is read."""

import dataclasses
import json
import os
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import liverjax
from liverjax import options
from liverjax.errors import CheckpointError, ConfigError, InputError
from liverjax.inference.calibration import Calibration
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.pretrained import bundle as bundles

CONFIG = options.Config(
    views=("axial", "sagittal"),
    store="/home/somebody/store",
    model=options.Model(features=(4, 6)),
    preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
    batch=options.Batch(patch=(32, 32)),
    train=options.Train(restarts=4),
    split=options.Split(test_cases=("patient-4714",)),
)
#: As a bundle has it, without folders and ids.
NAMELESS = dataclasses.replace(CONFIG, store="", split=options.Split())
SUBSETS = {"train": ["patient-4711", "patient-4712"], "validation": ["patient-4713"], "test": []}
CALIBRATION = Calibration({"axial": 1.5}, {"axial": (1.0, 2.0), "sagittal": (1.0, 0.5)}, members=2)
ABOUT = {"data": "5f" * 32, "versions": {"liverjax": "0.1.0"}, "checkpoints": {"axial": []}}
KERNEL = "axial/params/stem/conv/kernel"
VARIANCE = "axial/batch_stats/stem/norm/var"


@pytest.fixture(scope="module")
def model() -> Segmenter:
    """Two networks of each view."""
    network = build_unet(CONFIG.model, 2, accelerator=False)
    variables = {
        view: [network.init(jax.random.key(2 * i + k), jnp.zeros((1, 16, 16, 1))) for k in range(2)]
        for i, view in enumerate(CONFIG.views)
    }
    return Segmenter(CONFIG, Networks.stack(variables), SUBSETS, CALIBRATION, ABOUT)


@pytest.fixture
def bundle(model, tmp_path) -> pathlib.Path:
    bundles.write_bundle(tmp_path / "model.safetensors", model, licence="CC0-1.0", dtype="float32")
    return tmp_path / "model.safetensors"


def _read(path: pathlib.Path) -> tuple[dict, bytes]:
    """Header and data of a file, as the format describes them."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write(path: pathlib.Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _change_facts(path: pathlib.Path, **changes) -> None:
    header, data = _read(path)
    header["__metadata__"] |= {name: json.dumps(value) for name, value in changes.items()}
    _write(path, header, data)


def test_the_same_model_comes_back(bundle, model):
    read = liverjax.load_model(bundle)
    assert read.config == NAMELESS and read.calibration == CALIBRATION
    assert read.about["licence"] == "CC0-1.0" and read.about["data"] == ABOUT["data"]
    jax.tree.map(np.testing.assert_array_equal, read.networks, model.networks)
    assert read.networks.members == 2
    assert {array.dtype for array in jax.tree.leaves(read.networks)} == {np.dtype(np.float32)}
    best = model.with_options(ensemble="best")
    bundles.write_bundle(bundle, best, licence="CC0-1.0", dtype="float32")
    read = liverjax.load_model(bundle)
    jax.tree.map(np.testing.assert_array_equal, read.networks, best.networks)


def test_arrays_are_rounded_to_half_precision_by_default(model, tmp_path):
    bundles.write_bundle(tmp_path / "half", model, licence="CC0-1.0")
    bundles.write_bundle(tmp_path / "single", model, licence="CC0-1.0", dtype="float32")
    half, single = (len(_read(tmp_path / name)[1]) for name in ("half", "single"))
    assert 2 * half == single == model.networks.nbytes
    for one, other in zip(
        jax.tree.leaves(liverjax.load_model(tmp_path / "half").networks),
        jax.tree.leaves(model.networks),
        strict=True,
    ):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, np.asarray(other).astype(np.float16).astype(np.float32))


def test_some_views_are_taken(bundle, model):
    read = liverjax.load_model(bundle, views=["sagittal"])
    assert read.config.views == read.networks.views == ("sagittal",)
    jax.tree.map(np.testing.assert_array_equal, read.networks, model.networks.select(["sagittal"]))
    with pytest.raises(ConfigError, match="views names 'coronal', but the model has only axial, sagittal"):
        liverjax.load_model(bundle, views=["coronal"])


def test_cases_are_counted_and_not_named(bundle, tmp_path):
    read = liverjax.load_model(bundle)
    assert read.about["cases"] == {"train": 2, "validation": 1, "test": 0}
    with pytest.raises(InputError, match="does not list its test cases.*expected the folder of its run"):
        read.subset("test")
    content = bundle.read_bytes()
    assert b"471" not in content and b"somebody" not in content and b"/home" not in content
    # A bundle can be bundled again.
    bundles.write_bundle(tmp_path / "again", read, licence="CC0-1.0", dtype="float32")
    assert (tmp_path / "again").read_bytes() == content


def test_equal_models_give_equal_files_that_any_reader_reads(bundle, model, tmp_path):
    bundles.write_bundle(tmp_path / "again", model, licence="CC0-1.0", dtype="float32")
    assert (tmp_path / "again").read_bytes() == bundle.read_bytes()
    arrays = safetensors.numpy.load_file(bundle)
    assert KERNEL in arrays and "sagittal/batch_stats/stem/norm/var" in arrays
    np.testing.assert_array_equal(
        arrays[KERNEL][1], model.networks.member("axial", 1)["params"]["stem"]["conv"]["kernel"]
    )
    metadata = _read(bundle)[0]["__metadata__"]
    assert json.loads(metadata["licence"]) == "CC0-1.0" and json.loads(metadata["labels"]) == [
        "background",
        "liver",
    ]


def _extended(model, change) -> Segmenter:
    """The model with a change of the first array."""
    leaves, tree = jax.tree.flatten(model.networks)
    leaves[0] = change(np.array(leaves[0]))
    return Segmenter(CONFIG, jax.tree.unflatten(tree, leaves), SUBSETS, CALIBRATION, ABOUT)


def test_values_that_cannot_be_stored_are_refused(model, tmp_path):
    path = tmp_path / "model"

    def put(value):
        def change(array):
            array.flat[0] = value
            return array

        return _extended(model, change)

    with pytest.raises(ConfigError, match=r"mean holds 7e\+04, too large for float16; choose float32"):
        bundles.write_bundle(path, put(7e4), licence="CC0-1.0")
    bundles.write_bundle(path, put(7e4), licence="CC0-1.0", dtype="float32")
    path.unlink()
    with pytest.raises(CheckpointError, match="not finite"):
        bundles.write_bundle(path, put(np.nan), licence="CC0-1.0")
    with pytest.raises(ConfigError, match="dtype is 'int8', expected one of float16, float32"):
        bundles.write_bundle(path, model, licence="CC0-1.0", dtype="int8")
    assert not path.exists()


class _Canary(str):
    def __reduce__(self):
        return os.mkdir, (str(self),)


def test_pickles_are_never_executed(bundle, tmp_path):
    canary = tmp_path / "canary"
    header, data = _read(bundle)
    code = pickle.dumps(_Canary(canary))
    start, end = header[KERNEL]["data_offsets"]
    for header_of, content in (
        (header, data[:start] + code.ljust(end - start, b"\0") + data[end:]),
        (None, code),
    ):
        if header_of:
            _write(bundle, header_of, content)
        else:
            bundle.write_bytes(content)
        with pytest.raises(CheckpointError):
            liverjax.load_model(bundle)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "axial/params/../../x", "coronal/params/x"])
def test_unknown_arrays_are_refused(bundle, name):
    header, data = _read(bundle)
    header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    _write(bundle, header, data + bytes(4))
    with pytest.raises(CheckpointError, match="is missing or unknown"):
        liverjax.load_model(bundle)


def test_a_missing_array_is_refused(bundle):
    header, data = _read(bundle)
    start, end = header.pop(KERNEL)["data_offsets"]
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [offset - (end - start) for offset in entry["data_offsets"]]
    _write(bundle, header, data[:start] + data[end:])
    with pytest.raises(CheckpointError, match=r"stem/conv/kernel' is missing or unknown"):
        liverjax.load_model(bundle)


@pytest.mark.parametrize("change", [{"dtype": "I32"}, {"shape": [2, 3, 3, 4, 1]}, {"shape": [72]}])
def test_another_type_or_shape_is_refused(bundle, change):
    header, data = _read(bundle)
    header[KERNEL] |= change
    _write(bundle, header, data)
    with pytest.raises(CheckpointError, match=r"kernel is .* expected F32 of shape \(2, 3, 3, 1, 4\)"):
        liverjax.load_model(bundle)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [(KERNEL, np.inf, "value that is not finite"), (VARIANCE, -1, "variance below 0")],
)
def test_values_that_no_training_gives_are_refused(bundle, name, value, said):
    header, data = _read(bundle)
    start, _ = header[name]["data_offsets"]
    _write(bundle, header, data[:start] + np.float32(value).tobytes() + data[start + 4 :])
    with pytest.raises(CheckpointError, match=f"{name} holds a {said}"):
        liverjax.load_model(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**62], "data_offsets": [0, 2**64 - 8]},  # more than there is
        {"data_offsets": [0, 8]},  # less than the shape takes
        {"shape": [-1]},
    ],
)
def test_bounds_that_lie_are_refused(bundle, change):
    header, data = _read(bundle)
    header[KERNEL] |= change
    _write(bundle, header, data)
    with pytest.raises(CheckpointError, match="damaged, or no model bundle"):
        liverjax.load_model(bundle)


def test_no_memory_is_taken_for_what_a_config_or_header_claims(bundle):
    original = bundle.read_bytes()
    bundle.write_bytes((2**40).to_bytes(8, "little") + original[8:])
    with pytest.raises(CheckpointError, match="a header of 1099511627776 bytes"):
        liverjax.load_model(bundle)
    config = {**dataclasses.asdict(CONFIG), "store": ""}
    for model, message in (
        ({"features": [2**40, 2**41]}, "batch.patch is"),
        ({"features": [2**62, 2**62]}, "batch.patch is"),
        ({"features": [1] * 400}, "batch.patch is|model.features"),
    ):
        bundle.write_bytes(original)
        levels = len(model["features"])
        size = [2 ** (levels - 1) * 2**30] * 2  # no array of this size is made either
        changed = {
            **config,
            "model": {**config["model"], **model},
            "batch": {**config["batch"], "patch": size},
        }
        changed["predict"] = {**config["predict"], "bucket": size[0]}
        _change_facts(bundle, config=changed)
        with pytest.raises(CheckpointError, match=message):
            liverjax.load_model(bundle)


def test_every_flipped_bit_is_found(bundle):
    content = bundle.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(0, header, 97), *range(header, len(content), 499)]:
        bundle.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match=str(bundle)):
            liverjax.load_model(bundle)


def test_what_is_not_understood_is_refused(bundle):
    original = bundle.read_bytes()
    for changes, message in (
        ({"version": 3}, r"written by a newer liverjax \(format 3, this one reads up to 2\)"),
        ({"version": 0}, "another type or value"),
        ({"version": "1"}, "another type or value"),
        ({"version": True}, "another type or value"),
        ({"format": "other"}, "is 'other', expected 'liverjax model'"),
        ({"novelty": 1}, "field 'novelty' of its metadata is missing or unknown"),
        ({"config": {"novelty": 1}}, "no field 'novelty'"),
        ({"config": {**dataclasses.asdict(CONFIG), "views": ["oblique"]}}, "oblique"),
        ({"config": 3}, "another type or value"),
        ({"labels": ["background", "spleen"]}, "labels"),
        ({"calibration": {"temperature": {"axial": -1}, "weights": {}, "members": 1}}, "not a calibration"),
        ({"calibration": None}, "another type or value"),
        ({"members": 0}, "holds 0 networks of each view, expected 1 to 4"),
        ({"members": 3}, r"expected F32 of shape \(3,"),
        ({"members": 5}, "expected 1 to 4"),
        ({"members": True}, "another type or value"),
        ({"dtype": "float16"}, "is F32 of shape .* expected F16"),
        ({"dtype": "float64"}, "another type or value"),
        ({"cases": {"train": ["a"]}}, "another type or value"),
        ({"cases": []}, "another type or value"),
        ({"licence": "MIT"}, r"not as it was written \(checksum\)"),
        ({"scores": float("nan")}, "no model bundle"),
    ):
        bundle.write_bytes(original)
        _change_facts(bundle, **changes)
        with pytest.raises(CheckpointError, match=message):
            liverjax.load_model(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"\x80\x04K\x01.",
        b"x" * 1000,
        safetensors.numpy.save({"a": np.zeros(3)}, {"format": "pt"}),
    ],
)
def test_other_files_are_no_bundles(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match="no model bundle"):
        liverjax.load_model(tmp_path / "file")


def test_a_bundle_describes_itself(model, tmp_path):
    region = {"cases": 26, "dice_per_case": 0.9512, "per_case": {"dice": {"mean": 0.95}}}
    summary = {
        "metric_per_case": [{"case": "patient-4711"}],
        "scores": {"liver": region},
        "comparison": {"other": "/x"},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    scores = bundles.read_scores(tmp_path / "summary.json")
    assert scores == {"scores": {"liver": region}}
    path = tmp_path / "liver.safetensors"
    bundles.write_bundle(path, model, licence="CC0-1.0", credit="us", scores=scores)
    assert bundles.describe(path).splitlines() == [
        f"{path}: liver in CT at 6 x 6 x 6 mm; 2 views, 2 networks each; "
        f"{path.stat().st_size / 1e6:.1f} MB in float16",
        "cases: 2 train, 1 validation, 0 test; data 5f5f5f5f5f5f; liverjax 0.1.0",
        "liver: Dice per case 0.951 of 26 cases",
        "licence CC0-1.0; credit us",
    ]
    (tmp_path / "summary.json").write_text("[]", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"summary\.json: holds \[\], .*; evaluate again, or bundle without scores"
    ):
        bundles.read_scores(tmp_path / "summary.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"scores": {"liver": {"cases": 2, "dice_per_case": NaN}}}', "NaN is no number of JSON"),
        ('{"scores": {"liver": {"cases": 2, "dice_per_case": "0.9"}}}', "not a summary.json"),
        ('{"scores": {"liver": {"cases": null}}}', "not a summary.json"),
        ('{"scores": [1]}', "not a summary.json"),
        ('{"lits": {}}', "not a summary.json"),
        ('{"scores": ' + "[" * 100_000, "nested too deeply"),
        ('{"scores": {}, "scores": {}}', "the key 'scores' stands twice"),
        ("", "line 1, column 1"),
    ],
)
def test_scores_of_another_form_are_refused_and_may_be_left_out(model, tmp_path, text, message):
    path = tmp_path / "summary.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        bundles.read_scores(path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("; evaluate again, or bundle without scores")
    bundles.write_bundle(tmp_path / "model", model, licence="CC0-1.0")
    with pytest.raises(InputError, match=r"nothing\.json does not exist, expected a summary\.json"):
        bundles.read_scores(tmp_path / "nothing.json")


def test_a_bundle_without_a_checksum_is_refused(bundle):
    original = bundle.read_bytes()
    for checksum in ("", "0" * 64):
        bundle.write_bytes(original)
        _change_facts(bundle, sha256=checksum)
        with pytest.raises(CheckpointError, match=r"not as it was written \(checksum\)"):
            liverjax.load_model(bundle)
    header, data = _read(bundle)
    del header["__metadata__"]["sha256"]
    _write(bundle, header, data)
    with pytest.raises(CheckpointError, match="'sha256' of its metadata is missing"):
        liverjax.load_model(bundle)


def test_addresses_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the bundle: gs://b/model is an address"):
        bundles.write_bundle("gs://b/model", model, licence="CC0-1.0")
    assert not os.listdir(tmp_path)
