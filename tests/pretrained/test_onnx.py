"""The networks in ONNX: the same probabilities and masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax import options
from liverjax.errors import ConfigError
from liverjax.inference.network import Networks, fold
from liverjax.inference.segmenter import Segmenter
from liverjax.models import UNet, build_unet
from liverjax.volume import Volume

onnx = pytest.importorskip("onnx", reason="the extra liverjax[onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra liverjax[onnx] is not installed")

from liverjax.pretrained.export import export_model  # noqa: E402
from liverjax.pretrained.onnx import OnnxNetworks, onnx_graph, with_onnx_runtime  # noqa: E402


def _trained(network: UNet, seed=0) -> dict:
    noise = np.random.default_rng(seed)
    variables = network.init(jax.random.key(seed), jnp.zeros((1, 16, 16, 1)))
    return jax.tree.map(lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype), variables)


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "none"}, {"short_skips": "projection"}, {"short_skips": "none"}, {"features": (6, 4, 8)}],
)
def test_a_graph_gives_the_probabilities_of_its_network(changes):
    network = UNet(**{"classes": 3, "features": (4, 6, 8), **changes})
    variables = _trained(network)
    folded, parameters = fold(network, variables)
    networks = OnnxNetworks(folded, Networks.stack({"axial": [parameters]}), {"axial": 2.0})
    for shape in ((1, 16, 24), (3, 8, 8)):  # one graph for any number and size of slices
        slices = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        expected = jax.nn.softmax(network.apply(variables, slices[..., None]) / 2)
        np.testing.assert_allclose(networks("axial", slices), expected, atol=1e-5)


def test_group_norm_is_refused():
    network = UNet(classes=2, features=(4, 8), norm="group")
    with pytest.raises(ConfigError, match=r"model\.norm is 'group'"):
        onnx_graph(*fold(network, _trained(network)))


def test_a_norm_that_onnx_does_not_take_is_exported_and_computed_otherwise(tmp_path):
    config = options.Config(views=("axial",), batch=options.Batch(patch=(32, 32)))
    config = dataclasses.replace(config, model=options.Model(features=(4, 8), norm="group"))
    network = build_unet(config.model, 2, accelerator=False)
    model = Segmenter(config, Networks.stack({"axial": [_trained(network)]}))
    message = "--format=stablehlo exports any, and --runtime=jax computes any"
    for refused in (lambda: with_onnx_runtime(model), lambda: export_model(model, tmp_path / "out", "onnx")):
        with pytest.raises(
            ConfigError, match=f"model.norm is 'group', expected 'batch' or 'none' for ONNX; {message}"
        ):
            refused()
    assert len(export_model(model, tmp_path / "out", "stablehlo")) == 2
    scan = Volume(
        np.random.default_rng(0).integers(-200, 300, (9, 8, 7)).astype(np.int16), np.diag([4.0, 4, 4, 1])
    )
    assert model.predict(scan).labels.shape == scan.shape


def test_facts_are_in_the_metadata():
    network = UNet(classes=2, features=(4, 8), norm="none")
    model = onnx_graph(*fold(network, _trained(network)), facts={"view": "axial"})
    assert {prop.key: prop.value for prop in model.metadata_props} == {"view": "axial"}


@pytest.mark.parametrize("flips", [False, True])
def test_the_runtime_gives_the_same_masks_and_maps(flips):
    config = options.Config(
        target=options.Target(labels=("background", "liver", "tumor")),
        preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
        batch=options.Batch(patch=(32, 32)),
        augment=options.Augment(flip=0.5),
        model=options.Model(features=(4, 8)),
        predict=options.Predict(flips=flips),
    )
    network = build_unet(config.model, 3, accelerator=False)
    variables = {view: [_trained(network, seed)] for seed, view in enumerate(config.views)}
    model = Segmenter(config, Networks.stack(variables))
    voxels = np.random.default_rng(0).integers(-200, 300, (21, 30, 12)).astype(np.int16)
    scan = Volume(voxels, np.diag([4.0, 5.0, 9.0, 1.0]))
    one = model.predict(scan, uncertainty=True)
    other = with_onnx_runtime(model).predict(scan, uncertainty=True)
    np.testing.assert_allclose(other.grid_probabilities, one.grid_probabilities, atol=2e-5)
    np.testing.assert_allclose(
        other.uncertainty.mutual_information, one.uncertainty.mutual_information, atol=1e-4
    )
    assert (other.labels.voxels != one.labels.voxels).mean() < 1e-3
    with pytest.raises(ConfigError, match="dropout need jax"):
        with_onnx_runtime(model).predict(scan, uncertainty=True, mc_samples=2)
