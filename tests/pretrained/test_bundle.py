"""Model bundles: the same model comes back; nothing that was tampered with is read, nothing is executed."""

import dataclasses
import json
import os
import pathlib
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liverjax
from liverjax import options
from liverjax.errors import CheckpointError
from liverjax.inference.calibration import Calibration
from liverjax.inference.network import Networks
from liverjax.models import build_unet
from liverjax.pretrained.bundle import write_bundle

CONFIG = options.Config(
    views=("axial", "sagittal"),
    model=options.Model(features=(4, 6)),
    preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
    batch=options.Batch(patch=(32, 32)),
)
CASES = {"train": ["a", "b"], "validation": ["c"], "test": []}
CALIBRATION = Calibration({"axial": 1.5}, {"axial": (1.0, 2.0), "sagittal": (1.0, 0.5)})


@pytest.fixture(scope="module")
def networks() -> Networks:
    network = build_unet(CONFIG.model, 2, accelerator=False)
    return Networks.stack(
        {
            view: [network.init(jax.random.key(i), jnp.zeros((1, 16, 16, 1)))]
            for i, view in enumerate(CONFIG.views)
        }
    )


@pytest.fixture
def bundle(networks, tmp_path) -> pathlib.Path:
    path = tmp_path / "model.liverjax"
    write_bundle(path, CONFIG, networks, CALIBRATION, cases=CASES, licence="CC0-1.0")
    return path


def _rewrite(path: pathlib.Path, change=lambda entries: None) -> None:
    """Writes the zip anew after a change of {name: bytes}; names may occur twice in a list of pairs."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    pairs = change(entries) or list(entries.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _change_facts(path: pathlib.Path, **changes) -> None:
    def change(entries):
        entries["bundle.json"] = json.dumps({**json.loads(entries["bundle.json"]), **changes}).encode()

    _rewrite(path, change)


def test_the_same_model_comes_back(bundle, networks):
    model = liverjax.load_model(bundle)
    assert model.config == CONFIG and model.subsets == CASES and model.calibration == CALIBRATION
    assert model.about["licence"] == "CC0-1.0"
    for one, other in zip(jax.tree.leaves(model.networks), jax.tree.leaves(networks), strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert jax.tree.structure(model.networks) == jax.tree.structure(networks)


def test_equal_models_give_equal_files(bundle, networks, tmp_path):
    write_bundle(tmp_path / "again", CONFIG, networks, CALIBRATION, cases=CASES, licence="CC0-1.0")
    assert (tmp_path / "again").read_bytes() == bundle.read_bytes()


def test_nothing_in_it_is_compressed_or_needs_pickle(bundle):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert "axial/params/stem/conv/kernel.npy" in names and "axial/batch_stats/stem/norm/var.npy" in names
        for name in names:
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    np.load(file, allow_pickle=False)


KERNEL = "axial/params/stem/conv/kernel.npy"


class _Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_executed(bundle, tmp_path):
    canary = tmp_path / "canary"

    def change(entries):
        import hashlib
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([_Canary(canary)], object), allow_pickle=True)
        facts = json.loads(entries["bundle.json"])
        for data in (buffer.getvalue(), pickle.dumps(_Canary(canary))):
            entries[KERNEL] = data
            facts["arrays"][KERNEL] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        entries["bundle.json"] = json.dumps(facts).encode()

    _rewrite(bundle, change)
    with pytest.raises(CheckpointError, match=r"kernel\.npy: no array"):
        liverjax.load_model(bundle)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["../outside.npy", "/etc/outside.npy", "axial/params/../../x.npy", "code.py"]
)
def test_entries_that_lead_elsewhere_are_refused(bundle, name):
    _rewrite(bundle, lambda entries: [*entries.items(), (name, b"x")])
    with pytest.raises(CheckpointError, match="missing or unknown"):
        liverjax.load_model(bundle)


def test_an_entry_that_occurs_twice_is_refused(bundle):
    with pytest.warns(UserWarning, match="Duplicate name"):
        _rewrite(bundle, lambda entries: [*entries.items(), (KERNEL, entries[KERNEL])])
    with pytest.raises(CheckpointError, match="occurs twice"):
        liverjax.load_model(bundle)


def test_a_missing_entry_is_refused(bundle):
    _rewrite(bundle, lambda entries: [pair for pair in entries.items() if pair[0] != KERNEL])
    with pytest.raises(CheckpointError, match=r"stem/conv/kernel\.npy' is missing or unknown"):
        liverjax.load_model(bundle)


@pytest.mark.parametrize("name", [KERNEL, "bundle.json"])
def test_a_bomb_is_refused_before_it_is_unpacked(bundle, name):
    _rewrite(bundle, lambda entries: entries.update({name: bytes(64 * 2**20)}))
    assert bundle.stat().st_size < 2**20
    with pytest.raises(CheckpointError, match="expected at most"):
        liverjax.load_model(bundle)


def test_a_flipped_bit_is_found_or_changes_nothing(bundle, networks):
    content, config = bundle.read_bytes(), liverjax.load_model(bundle).config
    found = 0
    for position in range(0, len(content), 1999):
        bundle.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            model = liverjax.load_model(bundle)
        except CheckpointError as error:
            assert str(bundle) in str(error)
            found += 1
        else:  # A byte of the zip that means nothing, such as an entry's attributes.
            assert model.config == config
            jax.tree.map(np.testing.assert_array_equal, model.networks, networks)
    assert found >= 20


def test_another_array_with_a_right_checksum_is_refused(bundle):
    def change(entries):
        import hashlib
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.zeros((3, 3, 1, 4), np.float16))
        facts = json.loads(entries["bundle.json"])
        entries[KERNEL] = buffer.getvalue()
        facts["arrays"][KERNEL] = {
            "bytes": len(entries[KERNEL]),
            "sha256": hashlib.sha256(entries[KERNEL]).hexdigest(),
        }
        entries["bundle.json"] = json.dumps(facts).encode()

    _rewrite(bundle, change)
    with pytest.raises(CheckpointError, match=r"is no float32 array of shape \(1, 3, 3, 1, 4\)"):
        liverjax.load_model(bundle)


def test_what_is_not_understood_is_refused(bundle):
    original = bundle.read_bytes()
    for changes, message in (
        ({"version": 2}, "version 2, expected"),
        ({"format": "other"}, "expected"),
        ({"config": {"novelty": 1}}, "no field 'novelty'"),
        ({"config": {**dataclasses.asdict(CONFIG), "views": ["oblique"]}}, "oblique"),
        ({"calibration": {"temperature": {"axial": -1}, "weights": {}}}, "not a calibration"),
        ({"calibration": None}, "not a calibration"),
        ({"arrays": []}, "missing or unknown"),
        ({"arrays": 3}, "no model bundle"),
    ):
        bundle.write_bytes(original)
        _change_facts(bundle, **changes)
        with pytest.raises(CheckpointError, match=message):
            liverjax.load_model(bundle)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04K\x01.", b"x" * 1000])
def test_other_files_are_no_bundles(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match="no model bundle"):
        liverjax.load_model(tmp_path / "file")
