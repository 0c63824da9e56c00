"""The validation proxy: Dice, and detection of tumours, on fixed slices of the validation cases, on the working grid.

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
#: A lesion counts as found if at least this share of its pixels on the validation slices is predicted.
_FOUND_SHARE = 0.5


class Validation:
    """Calling it with a state's variables returns the proxy Dice of each foreground class.

    Of a network for tumours in boxes (`Config.finds_lesions`), the Dice of a class is the mean over the
    cases whose slices hold it, so that a patient with large tumours counts no more than one with small ones; and
    "detection" stands beside: ``2 P R / (P + R)`` of the share R of lesions that are found, half of their pixels at
    least, and the share P of slices with predicted tumour that hold one, in which false alarms in healthy livers count.

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
        self._cases, self._lesions = 1, None
        if "lesion" in batches[0]:
            self._cases = 1 + max(int(batch["case"].max()) for batch in batches)
            self._lesions = max(int(batch["lesion"].max()) for batch in batches)
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

    def _counts(self, variables: dict[str, Any], batch: dict[str, jax.Array]) -> tuple[Any, ...]:
        return jitted_overlap_counts(
            variables,
            batch,
            network=self._network,
            decision=self._decision,
            cases=self._cases,
            lesions=self._lesions,
        )

    def __call__(self, variables: dict[str, Any]) -> dict[str, float]:
        """Returns class name -> Dice, over all validation slices together or as the mean of cases, and "detection".

        NaN for a class in neither mask.
        """
        counts = np.zeros((self._cases, len(self._names), 3))
        found, alarms = np.zeros((0 if self._lesions is None else self._lesions + 1, 2)), np.zeros(2)
        for place, batch in enumerate(self._batches):
            count, predicted, (of_lesions, of_slices) = self._counts(variables, batch)
            counts += np.asarray(count, np.float64)
            if self._lesions is not None:
                found += np.asarray(of_lesions, np.float64)
                alarms += np.asarray(of_slices, np.float64)
            if place == 0:  # The slices with liver come first.
                shown = (batch["image"], batch["window"], batch["label"], predicted)
                stored, window, *labels = (local_rows(array)[:_EXAMPLES] for array in shown)
                image = normalise(jnp.asarray(stored), jnp.asarray(window))
                self.examples = np.asarray(image)[..., 0], *labels
        if self._lesions is None:
            return {
                name: float(2 * overlap / (predicted + reference)) if predicted + reference else math.nan
                for name, (overlap, predicted, reference) in zip(self._names, counts[0], strict=True)
            }
        overlap, predicted, reference = np.moveaxis(counts, -1, 0)
        dice = np.where(reference > 0, 2 * overlap / np.maximum(predicted + reference, 1), math.nan)
        scores = {
            name: float(np.nanmean(of_cases)) if not np.isnan(of_cases).all() else math.nan
            for name, of_cases in zip(self._names, dice.T, strict=True)
        }
        return {**scores, "detection": _detection(found[1:], alarms)}


def _detection(found: np.ndarray, alarms: np.ndarray) -> float:
    """Returns ``2 P R / (P + R)``, 0 if nothing is found.

    Args:
      found: (lesions, 2) pixels of each lesion that are predicted, and all of them on the validation slices.
      alarms: slices with predicted tumour, and those of them that hold a tumour.
    """
    seen = found[found[:, 1] > 0]
    recall = float((seen[:, 0] >= _FOUND_SHARE * seen[:, 1]).mean()) if len(seen) else 0.0
    precision = float(alarms[1] / alarms[0]) if alarms[0] else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
