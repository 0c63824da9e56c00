"""The validation proxy: Dice on fixed slices of the validation cases, on the working grid.

It chooses the checkpoint, and is no score: scores are taken on whole cases in the scan's own grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from liverjax.data.augment import normalise
from liverjax.data.pipeline import validation_batches
from liverjax.data.store import StoredCase
from liverjax.models import UNet
from liverjax.options import Config
from liverjax.training.mesh import local_rows, to_devices
from liverjax.training.step import jitted_overlap_counts

#: Slices that TensorBoard shows.
_EXAMPLES = 4


class Validation:
    """Calling it with a state's variables gives the proxy Dice of each foreground class.

    Attributes:
      view: the view that is looked at.
      examples: after a call, images (N, H, W), reference and predicted labels (N, H, W) of a few slices.
    """

    def __init__(self, cases: Sequence[StoredCase], view: str, config: Config, network: UNet, mesh: Mesh):
        self.view = view
        rows = config.batch.size // jax.process_count()
        own = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        self._batches = [
            to_devices({name: array[own] for name, array in batch.items()}, mesh)
            for batch in validation_batches(cases, view, config)
        ]
        self._names = config.labels[1:]
        self._network = network

    def __call__(self, variables: dict) -> dict[str, float]:
        """Returns class name -> Dice over all validation slices together; 0 for a class in neither mask."""
        counts = 0.0
        for place, batch in enumerate(self._batches):
            count, predicted = jitted_overlap_counts(variables, batch, network=self._network)
            counts += np.asarray(count, np.float64)
            if place == 0:  # The slices with liver come first.
                shown = (batch["image"], batch["window"], batch["label"], predicted)
                stored, window, *labels = (local_rows(array)[:_EXAMPLES] for array in shown)
                self.examples = np.asarray(normalise(stored, window))[..., 0], *labels
        return {
            name: float(2 * overlap / max(sizes, 1))
            for name, (overlap, sizes) in zip(self._names, counts, strict=True)
        }
