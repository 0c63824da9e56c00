"""The validation proxy: Dice on fixed slices of the validation cases, on the working grid.

It chooses the checkpoint and is not a score: scores are computed on whole cases in the scan's own grid.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from liverjax.data.augment import normalise
from liverjax.models import UNet
from liverjax.training.distributed import local_rows, to_devices
from liverjax.training.step import jitted_overlap_counts

#: Slices that TensorBoard shows.
_EXAMPLES = 4


class Validation:
    """Calling it with a state's variables returns the proxy Dice of each foreground class.

    Attributes:
      batch_size: number of slices of a global batch.
      examples: after a call, images (N, H, W), reference and predicted labels (N, H, W) of a few slices.
    """

    def __init__(
        self,
        batches: Sequence[dict[str, np.ndarray]],
        names: Sequence[str],
        network: UNet,
        mesh: Mesh,
        *,
        decision: str = "nested",
    ):
        """Copies the batches to the devices.

        Args:
          batches: global batches as `liverjax.data.pipeline.validation_batches` returns them.
          names: of the foreground classes.
          network: the architecture.
          mesh: the devices.
          decision: the rule of `liverjax.labels.decide`.
        """
        self.batch_size = len(batches[0]["label"])
        rows = self.batch_size // jax.process_count()
        own = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        self._batches = [
            to_devices({name: array[own] for name, array in batch.items()}, mesh) for batch in batches
        ]
        self._names = tuple(names)
        self._network = network
        self._decision = decision
        self.examples: tuple[np.ndarray, ...] = ()

    def seconds(self, variables: dict[str, Any]) -> float:
        """Returns how long a call takes once it is compiled, which is done here; measured on its first batch."""
        took = 0.0
        for _ in range(2):
            start = time.monotonic()
            jax.block_until_ready(self._counts(variables, self._batches[0]))
            took = time.monotonic() - start
        return took * len(self._batches)

    def _counts(self, variables: dict[str, Any], batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jitted_overlap_counts(variables, batch, network=self._network, decision=self._decision)

    def __call__(self, variables: dict[str, Any]) -> dict[str, float]:
        """Returns class name -> Dice over all validation slices together; NaN for a class in neither mask."""
        counts = np.zeros((len(self._names), 2))
        for place, batch in enumerate(self._batches):
            count, predicted = self._counts(variables, batch)
            counts += np.asarray(count, np.float64)
            if place == 0:  # The slices with liver come first.
                shown = (batch["image"], batch["window"], batch["label"], predicted)
                stored, window, *labels = (local_rows(array)[:_EXAMPLES] for array in shown)
                image = normalise(jnp.asarray(stored), jnp.asarray(window))
                self.examples = np.asarray(image)[..., 0], *labels
        return {
            name: float(2 * overlap / sizes) if sizes else math.nan
            for name, (overlap, sizes) in zip(self._names, counts, strict=True)
        }
