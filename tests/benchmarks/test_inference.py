"""Slice network and three-view inference on a CPU, side by side with torch and MONAI: CPU seconds of one thread.

  LIVERJAX_TORCH_PYTHON=/path/to/python python -m pytest -m slow -s tests/benchmarks/test_inference.py

That Python has torch (and, for some sides, monai); by default it is the one that runs the tests. All sides have the
same parameters, and their results must agree before their times count. They take turns, twice, in processes of their
own, so that a busy machine slows all; the smaller of both figures counts. The second turn finds its programs compiled
in the cache, as every run of a command but the first does.
"""

import gzip
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from liverjax.inference import postprocess
from liverjax.models import UNet
from liverjax.options import Predict, Preprocess
from liverjax.scans import intensity, nifti
from liverjax.scans.grid import labels_on_scan, to_grid, working_grid

pytestmark = pytest.mark.slow

TORCH_PYTHON = os.environ.get("LIVERJAX_TORCH_PYTHON", sys.executable)
SIDES = pathlib.Path(__file__).parent / "inference_sides.py"


def _inputs(folder: pathlib.Path, features: tuple[int, ...], slices: tuple, volume: tuple) -> None:
    noise = np.random.default_rng(0)
    variables = UNet(classes=2, features=features).init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    # Norms and biases as after some training, so that nothing is the identity.
    arrays = {
        "/".join(key.key for key in keys): np.asarray(leaf)
        + (leaf.ndim == 1) * noise.uniform(0, 0.5, leaf.shape).astype(np.float32)
        for keys, leaf in leaves
    }
    shapes = {"slices": slices, "volume": volume}
    shapes = {name: noise.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(folder / "inputs.npz", features=features, **shapes, **arrays)


def _needs(python: str, package: str) -> None:
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{python} has no {package}; set LIVERJAX_TORCH_PYTHON")


def _run(side: str, folder: pathlib.Path) -> dict:
    python = TORCH_PYTHON if side.startswith(("torch", "monai")) else sys.executable
    settings = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    words = [python, str(SIDES), side, str(folder)]
    done = subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def _race(sides: list[str], folder: pathlib.Path) -> dict[str, dict]:
    turns = [{side: _run(side, folder) for side in sides} for _ in range(2)]
    # The least of each: a busy machine only adds to times, and what is compiled in the first turn adds memory to it.
    found = {
        side: {name: min(turn[side][name] for turn in turns) for name in turns[0][side]} for side in sides
    }
    expected = np.load(folder / f"{sides[0]}.npy")
    assert expected.std() > 0.01, "all pixels alike: equal results would say nothing"
    for side in found:
        np.testing.assert_allclose(np.load(folder / f"{side}.npy"), expected, atol=1e-4)
    return found


def _note(duel, what: str, found: dict[str, dict], ours: str, peer: str, aim: float) -> None:
    """Notes CPU seconds and added memory of two sides."""
    off = "probabilities within 1e-4"
    for fact, unit, bar in (("seconds", "CPU s", aim), ("added_mb", "MB added at the peak", None)):
        sides = {"ours": found[ours][fact], "theirs": found[peer][fact]}
        duel(what, peer, **sides, unit=unit, of="least of 2", parity=off, aim=bar)


def test_slice_network_against_torch(tmp_path, duel):
    _needs(TORCH_PYTHON, "torch")
    _inputs(tmp_path, (64, 128, 256, 512), slices=(1, 512, 512), volume=(1, 1, 1))
    found = _race(["jax_slice", "torch_slice", "torch_compiled_slice"], tmp_path)
    ours = found["jax_slice"]["seconds"]
    for peer, aim in (("torch_slice", 0.9), ("torch_compiled_slice", 1)):
        _note(duel, "default slice network, 512 x 512", found, "jax_slice", peer, aim)
    # A quarter of the products is spared.
    assert ours <= 0.9 * found["torch_slice"]["seconds"]
    assert ours <= found["torch_compiled_slice"]["seconds"]


def test_slice_network_in_onnx_runtime(tmp_path, duel):
    pytest.importorskip("onnx", reason="the extra liverjax[onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra liverjax[onnx] is not installed")
    _inputs(tmp_path, (64, 128, 256, 512), slices=(1, 256, 256), volume=(1, 1, 1))
    found = _race(["jax_slice", "onnx_slice"], tmp_path)
    _note(duel, "default slice network in ONNX Runtime, 256 x 256", found, "onnx_slice", "jax_slice", 1.1)
    # Both do the same products, at what the core gives.
    assert found["onnx_slice"]["seconds"] <= 1.1 * found["jax_slice"]["seconds"]


@pytest.mark.parametrize("peer", ["torch_volume", "monai_volume"])
def test_three_views_of_a_volume(tmp_path, peer, duel):
    _needs(TORCH_PYTHON, peer.split("_")[0])
    _inputs(tmp_path, (64, 128, 256, 512), slices=(1, 16, 16), volume=(192, 192, 16))
    found = _race(["jax_volume", peer], tmp_path)
    _note(duel, "three views of a 192 x 192 x 16 volume", found, "jax_volume", peer, 1)
    assert found["jax_volume"]["seconds"] < found[peer]["seconds"]
    assert found["jax_volume"]["added_mb"] < found[peer]["added_mb"]


LONG_SCAN = """
import pathlib, resource, sys
import jax, nibabel as nib, numpy as np
from liverjax import options
from liverjax.inference.predict import describe
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.datasets.case import Case

config = options.Config()
network = build_unet(config.model, 2, accelerator=False)
variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
variables["params"]["head"]["bias"] += np.array([0, 50], np.float32)  # Liver everywhere: the most to bring back.
model = Segmenter(config, Networks.stack({view: [variables] for view in config.views}))
print(describe(model, [Case("long", pathlib.Path(sys.argv[1]), None, "long")]))
prediction = model.predict(sys.argv[1])
assert prediction.labels.voxels.all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_peak_memory_of_a_long_scan(tmp_path, shape=(512, 512, 600)):
    """The whole way with the default network on the CPU; some six minutes of CPU time."""
    voxels = np.random.default_rng(0).integers(-200, 300, shape[:2], np.int16)
    image = nib.Nifti1Image(np.repeat(voxels[:, :, None], shape[2], 2), np.diag([0.7, 0.7, 1, 1]))
    image.to_filename(tmp_path / "scan.nii")
    words = [sys.executable, "-c", LONG_SCAN, str(tmp_path / "scan.nii")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    described, peak = done.stdout.splitlines()
    estimate = float(re.search(r"; about ([\d.]+) GiB", described)[1])
    print(f"{float(peak):.2f} GiB at the peak, estimated as {estimate}")
    assert float(peak) < 6 and 0.8 < float(peak) / estimate < 1.1


def test_time_outside_the_network(real_data, duel):
    """Reading, both ways between scan and grid, clean-up and writing, beside gunzip and scipy's resampling alone."""
    path = real_data / "lits" / "volume-0.nii.gz"
    mask = nifti.read_mask(real_data / "lits" / "segmentation-0.nii.gz")
    options = Preprocess()
    grid = working_grid(mask, options.spacing)
    labels = to_grid(mask, options.spacing, labels=True).voxels
    soft = ndimage.gaussian_filter((labels > 0).astype(np.float32), 1)
    probabilities = np.stack([1 - soft, soft], -1)

    def ours():
        scan = nifti.read(path)
        on_grid = to_grid(scan, options.spacing)
        intensity.normalise(on_grid.voxels, *intensity.intensity_window(on_grid.voxels, options))
        found = labels_on_scan(probabilities, grid, scan)
        found = found.with_voxels(postprocess.clean(found.voxels, found.spacing, Predict()))
        with tempfile.TemporaryDirectory() as folder:
            nifti.write(pathlib.Path(folder) / "mask.nii.gz", found)

    def least():
        content = gzip.decompress(path.read_bytes())
        voxels = np.frombuffer(content, np.int16, mask.voxels.size, 352).reshape(mask.shape, order="F")
        factors = np.divide(grid.shape, mask.shape)
        ndimage.zoom(voxels.astype(np.float32), factors, order=1)
        ndimage.zoom(soft, np.divide(mask.shape, soft.shape), order=1)

    seconds = {}
    for name, work in (("ours", ours), ("least", least)):
        taken = []
        for _ in range(5):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
        seconds[name] = statistics.median(taken)
    duel(
        "a CT, all but the network",
        "gunzip and scipy's resampling alone",
        ours=seconds["ours"],
        theirs=seconds["least"],
        unit="CPU s",
        of="medians of 5",
        parity="none: the peer leaves out most of the work",
        aim=1.3,
    )
    assert seconds["ours"] <= 1.3 * seconds["least"]
