"""Exported networks: the same probabilities in another program, with all that is needed around them."""

import hashlib
import importlib.util
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from liverjax import options
from liverjax.errors import ConfigError
from liverjax.inference.calibration import Calibration
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.pretrained.bundle import write_bundle
from liverjax.pretrained.export import export_model
from liverjax.pretrained.load import load_model


@pytest.fixture(scope="module")
def model() -> Segmenter:
    config = options.Config(
        views=("axial", "sagittal"),
        store="/home/somebody/store",
        batch=options.Batch(patch=(32, 32)),
        model=options.Model(features=(4, 6, 8)),
    )
    network = build_unet(config.model, 2, accelerator=False)
    variables = {
        v: [network.init(jax.random.key(i), jnp.zeros((1, 16, 16, 1)))] for i, v in enumerate(config.views)
    }
    subsets = {"train": ["patient-1"], "validation": [], "test": []}
    about = {"licence": "CC0-1.0", "checkpoints": {}}
    return Segmenter(config, Networks.stack(variables), subsets, Calibration({"axial": 2.0}), about)


def _expected(model, view, slices):
    network, variables = model.trained(view)
    temperature = model.calibration.temperature.get(view, 1)
    return jax.nn.softmax(network.apply(variables, slices) / temperature)


needs_flatbuffers = pytest.mark.skipif(
    importlib.util.find_spec("flatbuffers") is None, reason="the extra liverjax[onnx] is not installed"
)


@needs_flatbuffers
@pytest.mark.parametrize("shape", [(1, 16, 24, 1), (3, 8, 4, 1)])
def test_stablehlo_gives_the_probabilities_at_any_size(model, tmp_path, shape):
    export_model(model, tmp_path, "stablehlo")
    slices = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    for view in ("axial", "sagittal"):
        exported = export.deserialize(bytearray((tmp_path / f"{view}.stablehlo").read_bytes()))
        assert {"cpu", "cuda", "tpu"} <= set(exported.platforms)
        np.testing.assert_allclose(exported.call(slices), _expected(model, view, slices), atol=1e-5)


def test_onnx_gives_the_probabilities(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra liverjax[onnx] is not installed")
    pytest.importorskip("onnx", reason="the extra liverjax[onnx] is not installed")
    export_model(model, tmp_path, "onnx")
    slices = np.random.default_rng(1).uniform(-1, 1, (2, 16, 8, 1)).astype(np.float32)
    for view in ("axial", "sagittal"):
        session = runtime.InferenceSession(tmp_path / f"{view}.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"slices": slices.transpose(0, 3, 1, 2)})
        np.testing.assert_allclose(found.transpose(0, 2, 3, 1), _expected(model, view, slices), atol=1e-5)


@needs_flatbuffers
def test_the_description_holds_what_is_needed(model, tmp_path):
    files = export_model(model, tmp_path, "stablehlo")
    assert {file.name for file in files} == {"axial.stablehlo", "sagittal.stablehlo", "model.json"}
    facts = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    for view in ("axial", "sagittal"):
        entry = facts["networks"][view]
        data = (tmp_path / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest() and entry["bytes"] == len(data)
    text = (tmp_path / "model.json").read_text(encoding="utf-8")
    assert "patient" not in text and "somebody" not in text  # neither cases nor folders
    assert facts["multiple"] == 4 and facts["licence"] == "CC0-1.0"
    assert facts["config"]["preprocess"]["window"] == [-160.0, 240.0]
    assert facts["calibration"]["temperature"] == {"axial": 2.0}
    # Every field of the config that a step names is there.
    named = re.findall(
        r"(preprocess|predict)\.(\w+)", " ".join(facts["steps"]["before"] + facts["steps"]["after"])
    )
    assert {"spacing", "window", "percentiles", "gamma", "flips", "fusion", "decision"} == {
        field for _, field in named
    }
    assert all(field in facts["config"][group] for group, field in named)


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_no_file_names_a_case_or_a_folder(tiny_run, tmp_path, format):
    pytest.importorskip(
        "flatbuffers" if format == "stablehlo" else "onnx", reason="liverjax[onnx] is not installed"
    )
    run = tmp_path / "Telling-Folder" / "run"
    shutil.copytree(tiny_run, run)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["data"] |= {subset: [f"Telling-Case-{subset}"] for subset in ("train", "validation", "test")}
    facts["config"]["store"] = "/home/Telling-User/store"
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    model = load_model(run)
    assert model.subset("test") == ["Telling-Case-test"]
    write_bundle(tmp_path / "out" / "model.safetensors", model, licence="CC0-1.0")
    export_model(model, tmp_path / "out", format)
    files = list((tmp_path / "out").iterdir())
    assert len(files) == 5
    here = pathlib.Path(__file__).parent.parent.parent
    for file in files:
        content = file.read_bytes()
        for name in (b"Telling", str(here).encode(), str(tmp_path).encode(), b"site-packages", b".py"):
            assert name not in content, f"{file.name} holds {name}"


def test_an_unknown_format_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="expected one of stablehlo, onnx"):
        export_model(model, tmp_path / "out", "pickle")
    assert not (tmp_path / "out").exists()
