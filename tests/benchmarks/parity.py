"""How far the fused, folded program is from float32 networks applied slice by slice, on a real scan.

  python tests/benchmarks/parity.py MODEL SCAN

MODEL is a run or bundle, SCAN what `liverjax predict` takes. Prints, for float32 and bfloat16 activations, how many
voxels of the working grid have another label, the Dice of each class with the reference's, how far the two best
probabilities of the reference lie apart where labels differ, and how far any probability is off.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from liverjax import scans
from liverjax.inference import FusionPlan, Networks, orthomean
from liverjax.models import build_unet
from liverjax.pretrained.load import load_model
from liverjax.views import from_stack, to_stack


def reference(network, networks: Networks, voxels: np.ndarray) -> np.ndarray:
    """Returns the mean softmax (X, Y, Z, C) of the views: nothing folded, one slice at a time."""
    softmax = jax.jit(lambda variables, slices: jax.nn.softmax(network.apply(variables, slices[..., None])))
    multiple = 2 ** (len(network.features) - 1)
    found = []
    for view, _, parameters in networks.each():
        stack = to_stack(voxels, view)
        rows, columns = stack.shape[1:]
        margin = (0, -rows % multiple), (0, -columns % multiple)
        slices = [
            softmax(parameters, np.pad(one, margin, constant_values=-1)[None])[0, :rows, :columns]
            for one in stack
        ]
        found.append(from_stack(np.stack(slices), view))
    return np.mean(found, axis=0)


def main(path: str, scan: str) -> None:
    """Prints the comparison."""
    model = load_model(path)
    voxels, _ = model.network_input(scans.read(scan))
    networks = model.networks.best()
    network = build_unet(model.config.model, len(model.config.labels), accelerator=False)
    network = network.clone(dtype=jnp.float32)
    expected = reference(network, networks, voxels)
    best = np.sort(expected, -1)
    for dtype in (jnp.float32, jnp.bfloat16):
        architecture, folded = networks.fold(network.clone(dtype=dtype))
        plan = FusionPlan.of(architecture, model.config.predict)
        found = orthomean(folded, voxels, plan).probabilities
        labels, wanted = found.argmax(-1), expected.argmax(-1)
        differs = labels != wanted
        dice = [
            2
            * ((labels == value) & (wanted == value)).sum()
            / ((labels == value).sum() + (wanted == value).sum())
            for value in range(len(model.config.labels))
        ]
        apart = (best[..., -1] - best[..., -2])[differs].max(initial=0)
        print(
            f"{jnp.dtype(dtype).name}: {differs.sum()} of {differs.size} voxels differ, Dice "
            f"{', '.join(f'{value:.5f}' for value in dice)}, there the best two are up to {apart:.1e} apart; "
            f"probabilities differ by up to {np.abs(found - expected).max():.1e}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
