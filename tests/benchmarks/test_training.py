"""Training side by side with its peers: the input pipeline with augmentation, and the step.

  LIVERJAX_TORCH_PYTHON=/path/to/python python -m pytest -m slow -s tests/benchmarks/test_training.py

That Python has torch, batchgeneratorsv2 and monai; by default it is the one that runs the tests. Results must agree
before times count. Sides take turns in processes of their own, so that a busy machine slows all; medians count.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from liverjax.data.store import prepare
from liverjax.models import UNet
from liverjax.options import Config, Preprocess
from liverjax.training.bench import drop_pages

pytestmark = pytest.mark.slow

TORCH_PYTHON = os.environ.get("LIVERJAX_TORCH_PYTHON", sys.executable)
HERE = pathlib.Path(__file__).parent
#: Turns of each side: of short measurements more.
PIPELINE_ROUNDS, STEP_ROUNDS = 5, 2


def _needs(python: str, condition: str) -> None:
    if subprocess.run([python, "-c", condition], capture_output=True).returncode:
        pytest.skip(f"{python} does not do `{condition}`; set LIVERJAX_TORCH_PYTHON")


def _run(script: str, side: str, *words: object, threads: int = 1, **environment: str) -> dict:
    python = TORCH_PYTHON if side.startswith(("torch", "monai", "batchgeneratorsv2")) else sys.executable
    # Threads that wait must not spin: spinning counts as CPU time.
    settings = {"XLA_FLAGS": "", "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", **environment}
    if threads == 1:
        settings["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    command = [python, str(HERE / script), side, *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# --- pipeline and augmentation --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[256, 512])
def store(request, tmp_path_factory) -> pathlib.Path:
    """Folder with a store of ten cases of 48 slices: smooth structures over the whole window, a liver, a tumour."""
    folder, size = tmp_path_factory.mktemp("pipeline"), request.param
    random = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for case in range(10):
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (size, size, 48)), indexing="ij", sparse=True)
        waves = [random.uniform(2, 9, 3) for _ in range(6)]
        voxels = sum(90 * np.sin(a * x + b * y + c * z) for a, b, c in waves)
        voxels = np.where(x**2 + y**2 < 0.8, voxels + 20 * random.standard_normal(voxels.shape), -1000)
        label = ((x + 0.2) ** 2 + y**2 + z**2 / 4 < 0.3).astype(np.uint8)
        label[(x + 0.3) ** 2 + (y - 0.1) ** 2 + z**2 / 9 < 0.02] = 2
        affine = np.diag([1.0, 1.0, 3.0, 1.0])
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / "images" / f"case{case}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / "labels" / f"case{case}.nii")
    config = Config(preprocess=Preprocess(spacing=(1.0, 1.0, 3.0)))
    prepare(folder, folder / "store", config, layout="plain", quiet=True)
    return folder


@pytest.mark.parametrize("peer", ["batchgeneratorsv2", "monai"])
def test_pipeline_and_augmentation(store, peer, duel):
    _needs(TORCH_PYTHON, f"import torch, {peer}")
    sides = ("liverjax_side", f"{peer}_side")
    found = {side: [] for side in sides}
    for _ in range(PIPELINE_ROUNDS):
        for side in sides:
            drop_pages(store / "store")
            found[side].append(_run("pipeline_sides.py", side, store))

    ours, theirs = (np.load(store / f"{side}.npz") for side in sides)
    # The brim aside, where a pixel more or less lies outside: the same pixels.
    assert (np.abs(ours["image"] - theirs["image"]) < 1e-3).mean() > 0.999
    assert (ours["label"] == theirs["label"]).mean() > 0.999
    assert len(np.unique(ours["label"])) == 3 and np.ptp(ours["image"]) > 1.99

    for temperature in ("cold", "warm"):
        rates = [statistics.median(facts[temperature] for facts in found[side]) for side in sides]
        size = " x ".join(map(str, ours["label"].shape[1:]))
        duel(
            f"pipeline and augmentation, {size}, {temperature}",
            peer,
            ours=rates[0],
            theirs=rates[1],
            unit="slices per CPU s",
            of=f"medians of {PIPELINE_ROUNDS}",
            parity="99.9 % of pixels within 1e-3, and of labels equal",
            aim=2,
            more=True,
        )
        assert rates[0] > 2 * rates[1]


# --- the step -----------------------------------------------------------------------------------------------------


def _inputs(folder: pathlib.Path, features: tuple[int, ...], slices: int, size: int) -> None:
    noise = np.random.default_rng(0)
    network = UNet(classes=2, features=features)
    params = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {"/".join(key.key for key in keys): np.asarray(leaf) for keys, leaf in leaves}
    # Structures of all sizes: of noise alone the deep levels see hardly any, and their gradients would be rounding.
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    waves = noise.uniform(2, 40, (slices, 8, 2))
    image = np.stack([sum(np.sin(a * x + b * y) for a, b in slice_) / 4 for slice_ in waves])
    image = (image + noise.uniform(-0.2, 0.2, image.shape)).clip(-1, 1)
    image = np.rint(image * 1000).astype(np.int16)
    window = np.tile(np.float32([-1000, 1000]), (slices, 1))
    label = ((x[None] + waves[:, :1, :1] / 80) ** 2 + y**2 < 0.3).astype(np.uint8)
    np.savez(folder / "inputs.npz", features=features, image=image, window=window, label=label, **arrays)


def _assert_same_gradients(folder: pathlib.Path, sides: tuple[str, str], exact: str) -> str:
    """Ours must be as near to the gradient in double precision as torch's own in single precision, or twice as far.

    Returns how near both are.
    """
    exact = dict(np.load(folder / f"{exact}.npz"))
    loss = exact.pop("loss")
    whole = np.linalg.norm([np.linalg.norm(leaf) for leaf in exact.values()])
    off = {}
    for side in sides:
        found = dict(np.load(folder / f"{side}.npz"))
        np.testing.assert_allclose(found.pop("loss"), loss, rtol=1e-4)
        assert found.keys() == exact.keys()
        off[side] = {name: np.linalg.norm(found[name] - exact[name]) / whole for name in exact}
    ours, theirs = ({**off[side], "whole": np.linalg.norm(list(off[side].values()))} for side in sides)
    assert theirs["whole"] < 1e-2
    assert all(ours[name] <= 2 * theirs[name] + 1e-4 for name in theirs)
    return f"off the gradient in double precision by {ours['whole']:.0e}, torch by {theirs['whole']:.0e}"


#: Features, slices and size: few slices, and the batches that `ct_liver` and `ct_liver:small` train with.
STEPS = {
    "default-few": ((64, 128, 256, 512), 2, 256),
    "default": ((64, 128, 256, 512), 16, 192),
    "small-few": ((16, 32, 64, 128), 2, 256),
    "small": ((16, 32, 64, 128), 8, 128),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", STEPS)
def test_step_on_a_cpu(tmp_path, name, threads, duel):
    _needs(TORCH_PYTHON, "import torch")
    _inputs(tmp_path, *STEPS[name])
    sides = ("jax_step", "torch_step")
    found = {side: [] for side in sides}
    for _ in range(STEP_ROUNDS):
        for side in sides:
            facts = _run("step_sides.py", side, tmp_path, threads, threads=threads)
            found[side].append(facts["seconds"])
    _run("step_sides.py", "torch_double", tmp_path, threads, threads=threads)
    parity = _assert_same_gradients(tmp_path, sides, "torch_double")
    ours, theirs = (min(found[side]) for side in sides)
    # Of few slices XLA's gradients of narrow kernels are slow.
    aim = 2 if name == "small-few" else 1.4
    features, slices, size = STEPS[name]
    duel(
        f"step of {slices} slices of {size} x {size}, features from {features[0]}, threads: {threads}",
        "torch",
        ours=ours,
        theirs=theirs,
        unit="CPU s",
        of=f"least of {STEP_ROUNDS}",
        parity=parity,
        aim=aim,
    )
    assert ours <= aim * theirs


@pytest.mark.parametrize("slices", [12, 64])
def test_step_on_a_gpu(tmp_path, slices, duel):
    """bfloat16 beside `torch.compile` with autocast; wall seconds, for there the device works and not the CPU."""
    _needs(TORCH_PYTHON, "import torch; torch.ones(1, device='cuda')")
    _needs(sys.executable, "import os; os.environ['JAX_PLATFORMS'] = 'cuda'; import jax; jax.devices()")
    _inputs(tmp_path, (64, 128, 256, 512), slices=slices, size=512)
    sides = ("jax_step_gpu", "torch_step_gpu")
    found = {
        side: _run("step_sides.py", side, tmp_path, os.cpu_count(), JAX_PLATFORMS="cuda") for side in sides
    }
    _run("step_sides.py", "torch_double_gpu", tmp_path, os.cpu_count())
    parity = _assert_same_gradients(tmp_path, tuple(found), "torch_double_gpu")
    duel(
        f"step of {slices} slices of 512 x 512 on a GPU",
        "torch.compile",
        ours=found["jax_step_gpu"]["seconds"],
        theirs=found["torch_step_gpu"]["seconds"],
        unit="s",
        of="one",
        parity=parity,
        aim=1,
    )
    assert found["jax_step_gpu"]["seconds"] <= found["torch_step_gpu"]["seconds"]


@pytest.mark.parametrize(("name", "steps"), [("ct_liver:small", 20), ("ct_liver", 4)])
def test_waiting_for_data(tmp_path, name, steps):
    file = tmp_path / "bench.json"
    flags = [f"--config={name}", f"--steps={steps}", "-o", str(file)]
    # Without the flags of the tests: a step that XLA did not optimise is slow, and never waits.
    command = [sys.executable, "-m", "liverjax.commands.dispatch", "bench", *flags]
    subprocess.run(command, check=True, env={**os.environ, "XLA_FLAGS": ""})
    assert json.loads(file.read_text(encoding="utf-8"))["fed"]["data_wait_share"] < 0.03
