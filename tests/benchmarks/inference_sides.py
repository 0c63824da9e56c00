"""The sides of the inference benchmark: one process each, started by `test_inference.py`.

  python inference_sides.py SIDE FOLDER

Reads FOLDER/inputs.npz (parameters of a network by path, slices, a volume) and writes FOLDER/SIDE.npy; prints CPU
seconds and memory as JSON. One thread. The torch sides need torch (and monai), the others liverjax.
"""

import json
import pathlib
import statistics
import sys
import time

import numpy as np

REPEATS = 3
BATCH = 8
VIEWS = ("axial", "coronal", "sagittal")
AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


def measure(work):
    """Returns the result of work(), its median CPU seconds after a first call, and the memory it took, in MB.

    Memory is what was resident at the peak of the later calls, above what was before the first; that one compiles.
    """
    before = _resident()
    result = work()
    first = _resident("VmHWM") - before
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # The peak starts anew.
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    peak = _resident("VmHWM")
    facts = {"added_mb": peak - before, "first_call_mb": first, "peak_mb": peak}
    return result, {"seconds": statistics.median(seconds), **facts}


def _resident(field="VmRSS") -> float:
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


# --- liverjax -----------------------------------------------------------------------------------------------------


def variables(inputs) -> dict:
    """Returns arrays named by paths, as ``params/head/bias``, as nested dicts."""
    tree = {}
    for path in inputs.files:
        *parents, name = path.split("/")
        if parents:
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = inputs[path]
    return tree


def _network(inputs):
    import jax.numpy as jnp

    from liverjax.inference.network import fold
    from liverjax.models import UNet

    network = UNet(classes=2, features=tuple(inputs["features"].tolist()), dtype=jnp.dtype("float32"))
    return fold(network, variables(inputs))


def jax_slice(inputs):
    import jax

    network, params = _network(inputs)
    apply = jax.jit(lambda slices: jax.nn.softmax(network.apply(params, slices[..., None])))
    return measure(lambda: np.asarray(apply(inputs["slices"])))


def onnx_slice(inputs):
    import onnxruntime

    from liverjax.pretrained.onnx import onnx_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = onnx_graph(*_network(inputs)).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    slices = inputs["slices"][:, None]
    return measure(lambda: session.run(None, {"slices": slices})[0].transpose(0, 2, 3, 1))


def jax_volume(inputs):
    from liverjax.inference import FusionPlan, Networks, orthomean

    network, params = _network(inputs)
    networks = Networks.stack({view: [params] for view in VIEWS})
    plan = FusionPlan(network, batch_size=BATCH, bucket=8)
    return measure(lambda: orthomean(networks, inputs["volume"], plan).probabilities)


# --- torch --------------------------------------------------------------------------------------------------------


def _torch_network(inputs):
    import torch
    from torch_unet import UNet

    torch.set_num_threads(1)
    network = torch.nn.Sequential(UNet(variables(inputs)), torch.nn.Softmax(1))
    return network.eval().to(memory_format=torch.channels_last)


def torch_slice(inputs, compiled=False):
    import torch

    network = _torch_network(inputs)
    slices = torch.from_numpy(inputs["slices"][:, None]).contiguous(memory_format=torch.channels_last)
    if compiled:
        network = torch.compile(network)
    with torch.inference_mode():
        return measure(lambda: network(slices).numpy().transpose(0, 2, 3, 1))


def torch_compiled_slice(inputs):
    return torch_slice(inputs, compiled=True)


def torch_volume(inputs):
    """As FastSurfer does it: one volume of sums, to which each batch of slices of each view is added in place."""
    import torch

    network = _torch_network(inputs)
    volume = torch.from_numpy(inputs["volume"])

    def work():
        total = torch.zeros((*volume.shape, 2))
        for view in VIEWS:
            slices, sums = volume.permute(AXES[view]), total.permute(*AXES[view], 3)
            for start in range(0, len(slices), BATCH):
                batch = slices[start : start + BATCH, None].contiguous(memory_format=torch.channels_last)
                sums[start : start + BATCH] += network(batch).permute(0, 2, 3, 1) / 3
        return total.numpy()

    with torch.inference_mode():
        return measure(work)


def monai_volume(inputs):
    """MONAI's SliceInferer along each axis, and the mean of the three volumes."""
    import torch
    from monai.inferers import SliceInferer

    network = _torch_network(inputs)
    volume = torch.from_numpy(inputs["volume"])

    def one(view):
        order = AXES[view]
        stack = volume.permute(order)[None, None]
        inferer = SliceInferer(
            roi_size=tuple(stack.shape[3:]), spatial_dim=0, sw_batch_size=BATCH, progress=False
        )
        found = inferer(stack, network)[0].permute(1, 2, 3, 0)
        return found.permute(*np.argsort(order).tolist(), 3)

    with torch.inference_mode():
        return measure(lambda: ((one("axial") + one("coronal") + one("sagittal")) / 3).numpy())


if __name__ == "__main__":
    side, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    found, facts = globals()[side](np.load(folder / "inputs.npz"))
    np.save(folder / f"{side}.npy", found)
    print(json.dumps(facts))
