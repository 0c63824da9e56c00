"""Hard examples: the training slices without tumour in which the network sees some.

They are looked for after each validation, and kept in the checkpoint with the state: between two validations the
batches depend on seed, step and this list, so that a resumed run sees those of one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from liverjax.data.pipeline import slice_batches
from liverjax.data.sampling import MinedSlice
from liverjax.data.stored_case import StoredCase
from liverjax.models import build_unet
from liverjax.options import Config
from liverjax.training.distributed import to_devices
from liverjax.training.step import jitted_overlap_counts
from liverjax.views import VIEWS

#: Sets the draws apart from those of the batches.
_STREAM = 2**31


def mine(
    variables: dict[str, Any],
    cases: Sequence[StoredCase],
    network: str,
    config: Config,
    mesh: Mesh,
    step: int,
) -> list[MinedSlice]:
    """Returns the slices with liver and without tumour in which a network predicts tumour within the dilated liver.

    Looked at are ``train.validation_slices`` of them, drawn anew for each step: a function of seed, network and step.

    Args:
      variables: the network's parameters and running statistics.
      cases: of the training, in a store of boxes.
      network: name of the network.
      config: of the run.
      mesh: the devices; every process gets the same answer.
      step: the number of steps done.

    Returns:
      For each such slice its case, view, number, and the number of pixels that are predicted as tumour.
    """
    views = config.views_of(network)
    healthy = [
        (number, view, int(index))
        for view in views
        for number, case in enumerate(cases)
        for index in np.flatnonzero((case.counts[view][:, 0] > 0) & (case.counts[view][:, 1] == 0))
    ]
    own = VIEWS.index(views[0]) if len(views) == 1 else len(VIEWS)
    random = np.random.default_rng((config.seed, own, _STREAM, step))
    wanted = min(len(healthy), config.train.validation_slices)
    chosen = (
        [healthy[index] for index in sorted(random.choice(len(healthy), wanted, replace=False))]
        if wanted
        else []
    )
    unet = build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu")
    rows = config.batch.size // jax.process_count()
    part = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
    pixels = []
    for batch in slice_batches(cases, chosen, views, config):
        # Each row is counted as a case of its own.
        batch |= {
            "case": np.arange(config.batch.size, dtype=np.int32),
            "lesion": np.zeros_like(batch["lesion"]),
        }
        on_devices = to_devices({name: array[part] for name, array in batch.items()}, mesh)
        counts, _, _ = jitted_overlap_counts(
            variables,
            on_devices,
            network=unet,
            decision=config.predict.decision,
            cases=config.batch.size,
            lesions=0,
        )
        pixels += np.asarray(counts)[:, -1, 1].tolist()
    found = zip(chosen, pixels, strict=False)  # The rows that fill up the last batch hold nothing.
    return [(cases[number].id, view, index, count) for (number, view, index), count in found if count]
