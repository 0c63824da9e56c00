"""The slice networks as ONNX graphs, and their use through ONNX Runtime on CPUs.

The packages `onnx` and `onnxruntime` come with the extra ``liverjax[onnx]`` and are imported on use. A graph takes
``slices`` (N, 1, H, W) float32 in [-1, 1] and gives ``probabilities`` (N, C, H, W): N, H and W are free, H and W
multiples of 2**(levels - 1).

Graphs are written here and not by jax2onnx (0.17.1), which takes no H and W that are free multiples of 8 ("No symbolic
dim origin registered"). Slices in the form (N, H/8, 8, W/8, 8, 1) get through for one network in a process, not for a
second; they give equal labels in 2.28 CPU seconds, our graph in 2.20 (4 slices of 256 x 256, default widths; 0.23 both
with 16 to 128 channels): `python tests/benchmarks/onnx_writers.py 64,128,256,512`.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping

import jax
import numpy as np

from liverjax.errors import ConfigError, InputError
from liverjax.inference.cascade import Cascade
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import UNet

# Of the operators used none is newer, and every runtime of the last years knows it.
_OPSET = 17
_IR_VERSION = 8


def onnx_graph(
    network: UNet, variables: dict, temperature: float = 1.0, facts: Mapping[str, str] | None = None
):
    """Returns a view's network as an `onnx.ModelProto`.

    Args:
      network: as `network.fold` returns it.
      variables: its variables, likewise.
      temperature: what the logits are divided by; it is taken into the last convolution.
      facts: text to put into the model's metadata.

    Raises:
      ConfigError: the network has a norm that cannot be folded.
    """
    if network.norm != "none":
        raise ConfigError(
            f"model.norm is {network.norm!r}, expected 'batch' or 'none' for ONNX; "
            "--format=stablehlo exports any, and --runtime=jax computes any"
        )
    return _Graph(network, jax.tree.map(np.asarray, variables["params"]), temperature).model(
        dict(facts or {})
    )


class OnnxNetworks:
    """The networks of all views in ONNX Runtime, on the CPU."""

    def __init__(self, network: UNet, networks: Networks, temperature: Mapping[str, float]):
        """Args: what `Networks.fold` returns; the temperature of each view, 1 if it has none."""
        runtime = package("onnxruntime")
        self._sessions = {
            (view, member): runtime.InferenceSession(
                onnx_graph(network, variables, temperature.get(view, 1.0)).SerializeToString(),
                providers=["CPUExecutionProvider"],
            )
            for view, member, variables in networks.each()
        }

    def __call__(self, view: str, slices: np.ndarray, member: int = 0) -> np.ndarray:
        """Returns the softmax (N, H, W, C) that a member of a view gives slices (N, H, W)."""
        (found,) = self._sessions[view, member].run(None, {"slices": np.ascontiguousarray(slices[:, None])})
        return found.transpose(0, 2, 3, 1)


def with_onnx_runtime(model: Segmenter | Cascade) -> Segmenter | Cascade:
    """Returns a model whose networks ONNX Runtime computes, on the CPU; the members that it has now."""
    if isinstance(model, Cascade):
        return Cascade(_with_onnx(model.liver), _with_onnx(model.tumor), model.lesion_filter)
    return _with_onnx(model)


def _with_onnx(model: Segmenter) -> Segmenter:
    return model.with_backend(OnnxNetworks(model.network, model.folded, model.calibration.temperature))


class _Graph:
    """A graph under construction. Feature maps are NCHW; methods return the name of what they add."""

    def __init__(self, network: UNet, params: dict, temperature: float):
        self._onnx = package("onnx")
        self._nodes = []
        self._arrays = []
        self._classes = network.classes
        decoder_skip = "identity" if network.short_skips == "projection" else network.short_skips

        size = self._add(
            "Slice", self._add("Shape", "slices"), self._array(np.array([2])), self._array(np.array([4]))
        )
        size = self._add("Concat", self._array(np.array([1, 1])), size, axis=0)
        one = self._onnx.numpy_helper.from_array(np.ones(1, np.float32))
        ones = self._add("ConstantOfShape", size, value=one)
        x = self._add("Relu", self._conv("slices", params["stem"]["conv"]))
        width = network.features[0]
        levels = []
        for level, features in enumerate(network.features):
            if level:
                x = self._add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
                ones = self._add("MaxPool", ones, kernel_shape=[2, 2], strides=[2, 2])
            block = params[f"encoder_{level}"]
            y = self._conv(x, block["first"]["conv"])
            x = self._block(y, x, width, features, network.short_skips, block)
            levels.append((x, ones))
            width = features
        for level in reversed(range(len(levels) - 1)):
            block, (long_skip, _), (_, ones) = params[f"decoder_{level}"], levels[level], levels[level + 1]
            y = self._joined_conv(long_skip, x, ones, block["first"]["joined"])
            features = network.features[level]
            x = self._block(y, long_skip, features, features, decoder_skip, block)
        head = {name: array / np.float32(temperature) for name, array in params["head"].items()}
        self._add("Softmax", self._conv(x, head), axis=1, output="probabilities")

    def model(self, facts: dict[str, str]):
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        slices = helper.make_tensor_value_info("slices", kind, ["slice", 1, "row", "column"])
        found = helper.make_tensor_value_info(
            "probabilities", kind, ["slice", self._classes, "row", "column"]
        )
        graph = helper.make_graph(self._nodes, "slice_network", [slices], [found], self._arrays)
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], producer_name="liverjax", ir_version=_IR_VERSION
        )
        helper.set_model_props(model, facts)
        self._onnx.checker.check_model(model)
        return model

    def _add(self, operator: str, *inputs: str, output: str | None = None, **attributes) -> str:
        output = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def _array(self, array: np.ndarray) -> str:
        name = f"array_{len(self._arrays)}"
        self._arrays.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _conv(self, x: str, params: dict, pad: int | None = None) -> str:
        size = params["kernel"].shape[0]
        inputs = [x, self._array(params["kernel"].transpose(3, 2, 0, 1))]
        if "bias" in params:
            inputs.append(self._array(params["bias"]))
        pad = size // 2 if pad is None else pad
        return self._add("Conv", *inputs, kernel_shape=[size, size], pads=[pad] * 4)

    def _joined_conv(self, skip: str, below: str, ones: str, params: dict) -> str:
        """As `blocks.JoinedConv`; ``ones`` (1, 1, H, W) is its channel of ones.

        It has a convolution of its own: an odd number of channels would be laid out unfavourably.
        """
        kernel = params["below"]["kernel"]
        y = self._conv(below, {"kernel": kernel[:, :, :-1]}, pad=1)
        y = self._add("Add", y, self._conv(ones, {"kernel": kernel[:, :, -1:]}, pad=1))
        y = self._add("DepthToSpace", y, blocksize=2, mode="DCR")
        bounds = [self._array(np.array(values)) for values in ([1, 1], [-1, -1], [2, 3])]
        y = self._add("Slice", y, *bounds)
        return self._add("Add", y, self._conv(skip, params["skip"]))

    def _block(self, y: str, x: str, width: int, features: int, skip: str, params: dict) -> str:
        """As `blocks.Block` of x, after its first convolution."""
        y = self._conv(self._add("Relu", y), params["second"]["conv"])
        if "projection" in params:
            y = self._add("Add", y, self._conv(x, params["projection"]))
        elif skip != "none":
            y = self._add("Add", y, self._resized(x, width, features))
        return self._add("Relu", y)

    def _resized(self, x: str, width: int, features: int) -> str:
        """The rectangular identity, as `blocks.resize_channels`."""
        if features > width:
            # Pads are (N, C, H, W) before, then after.
            return self._add("Pad", x, self._array(np.array([0, 0, 0, 0, 0, features - width, 0, 0])))
        if features < width:
            bounds = [self._array(np.array([value])) for value in (0, features, 1)]
            return self._add("Slice", x, *bounds)
        return x


def package(name: str) -> types.ModuleType:
    """Returns a package that is not always installed, or raises an `InputError` that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"the package {name} is missing; install it with: pip install {name}") from None
