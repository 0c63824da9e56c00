"""One process of several, started by test_distributed.py: ``one_process.py CONFIG.json RESULT.npz``.

Writes its rows of the first two batches as they lie on the devices, the gradient of the first step, and what the
validation says after it.
"""

import json
import sys

import jax
import numpy as np
from absl import flags

from liverjax.config import resolve
from liverjax.data.pipeline import train_batches, validation_batches
from liverjax.data.splits import split_cases
from liverjax.data.store import open_store
from liverjax.training.distributed import (
    barrier,
    data_mesh,
    initialize_distributed,
    local_rows,
    replicated,
    to_devices,
)
from liverjax.training.step import init_state, jitted_train_step, step_spec
from liverjax.training.validation import Validation


def batches_and_gradient(config, mesh, process, processes):
    """Returns name -> array. The state of SGD without momentum is the last gradient."""
    parts = split_cases(open_store(config.store, config.preprocess, config.target).cases, config.split)
    rows = {"first_step": 0, "last_step": 2, "process": process, "processes": processes}
    batches = [to_devices(batch, mesh) for batch in train_batches(parts.train, "axial", config, **rows)]
    result = {
        f"{name} {step}": local_rows(array)
        for step, batch in enumerate(batches)
        for name, array in batch.items()
    }
    spec = step_spec(config)
    state = init_state(spec, config.batch.patch, config.seed, replicated(mesh))
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=replicated(mesh))()
    state, metrics = jitted_train_step(state, batches[0], np.float32(0.1), key, spec)
    chosen = validation_batches(parts.validation, "axial", config)
    scores = Validation(chosen, config.labels[1:], spec.network, mesh)(state.variables)
    result |= {f"score {name}": np.float64(score) for name, score in scores.items()}
    for place, leaf in enumerate(jax.tree.leaves(state.opt_state)):
        result[f"gradient {place}"] = np.asarray(leaf)
    return {**result, "loss": np.asarray(metrics["loss"])}


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    with open(sys.argv[1], encoding="utf-8") as file:
        options = resolve(json.load(file))
    with initialize_distributed():
        devices = data_mesh(options.batch.size)
        barrier(devices)
        found = batches_and_gradient(options, devices, jax.process_index(), jax.process_count())
        np.savez(sys.argv[2], devices=devices.size, processes=jax.process_count(), **found)
