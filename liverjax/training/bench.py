"""How fast a machine trains with a config: the step alone, the step fed by the pipeline, the pipeline alone."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import statistics
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from liverjax.checkpoint.manifest import environment
from liverjax.errors import InputError
from liverjax.options import Config
from liverjax.training.distributed import data_mesh, describe_devices, replicated, to_devices
from liverjax.training.monitor import Clock, device_memory, peak_flops, step_flops
from liverjax.training.optim import learning_rate
from liverjax.training.step import init_state, jitted_train_step, step_spec

#: What the pipeline imports beside what the step does; without them the step alone can be measured.
PIPELINE_NEEDS = ("grain", "nibabel")
#: The table's columns: heading, and how a value is written.
_COLUMNS = {
    "slices_per_second": ("slices/s", "{:.1f}".format),
    "cpu_seconds_per_slice": ("CPU-s/slice", "{:.5f}".format),
    "step_seconds": ("s/step", "{:.4f}".format),
    "data_wait_share": ("waiting", "{:.2%}".format),
    "device_memory_bytes": ("memory", lambda value: f"{value / 2**30:.2f} GiB"),
    "peak_flops_share": ("of peak", "{:.1%}".format),
}
#: Passes over the pipeline when the store is in memory, of which the median counts.
_WARM_PASSES = 3


def bench(config: Config, *, store: str | os.PathLike | None = None, steps: int = 10) -> dict:
    """Measures the training of the first view of a config; writes nothing that stays.

    Seconds are medians over the steps after the first one, which waits for the compiler. CPU seconds are those of all
    threads of the process.

    Args:
      config: the system; its ``views[0]`` is measured, with all augmentation.
      store: folder that `liverjax prepare` wrote, or None for the step alone.
      steps: number of steps and batches that each figure is taken from, 2 or more.

    Returns:
      Facts for JSON: "config", "view", "batch" (slices, rows, columns), "steps", "devices", "versions", "machine", and

      - "step", on one synthetic batch: "compile_seconds" (short where JAX's cache held the program; with
        ``JAX_ENABLE_COMPILATION_CACHE=false`` it never does), "step_seconds", "slices_per_second",
        "cpu_seconds_per_slice", "data_wait_share", and where the device tells "device_memory_bytes" and
        "peak_flops_share";
      - "fed": the same of steps fed by the pipeline;
      - "pipeline": for "cold" (the store's pages dropped where the system can; one pass) and "warm" (median)
        "slices_per_second" and "cpu_seconds_per_slice".

      "fed" and "pipeline" are None without a store.

    Raises:
      ConfigError: a batch that cannot be divided over the devices.
      InputError: the store cannot be read, for instance without grain.
    """
    missing = [name for name in PIPELINE_NEEDS if not importlib.util.find_spec(name)]
    if store and missing:
        raise InputError(f"{store}: cannot be read without {' and '.join(missing)}; leave --store out")
    mesh = data_mesh(config.batch.size, config.train.accumulate)
    facts = {
        "config": config.name,
        "view": config.views[0],
        "batch": [config.batch.size, *config.batch.patch],
        "steps": steps,
        "devices": describe_devices(),
        **environment(),
    }
    if store:  # Before minutes of compiling.
        from liverjax.data.store import open_store

        open_store(store, config.preprocess, config.target)
    step = _Step(config, mesh)
    # First of all: a page that is mapped into memory cannot be dropped.
    pipeline = _pipeline(config, store, steps) if store else None
    alone = step.measure(itertools.repeat(step.synthetic), steps)
    fed = None
    if store:
        batches = _batches(config, store, steps)
        fed = step.measure((to_devices(batch, mesh) for batch in batches), steps)
    return {
        **facts,
        "step": {"compile_seconds": step.compile_seconds, **alone},
        "fed": fed,
        "pipeline": pipeline,
    }


class _Step:
    """The compiled training step of a config, and its state, as `liverjax.training.loop` runs it."""

    def __init__(self, config: Config, mesh: Mesh):
        options = config.train
        spec = step_spec(config)
        self._size = config.batch.size
        self.synthetic = to_devices(_synthetic(config), mesh)
        self._state = init_state(spec, config.batch.patch, config.seed, replicated(mesh))
        self._rate = np.float32(learning_rate(options, 0, options.steps))
        self._key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=replicated(mesh))()
        arguments = (self._state, self.synthetic, self._rate, self._key, spec)
        start = time.monotonic()
        self._run = jitted_train_step.lower(*arguments).compile()
        self.compile_seconds = time.monotonic() - start
        self._flops = step_flops(jitted_train_step, *arguments) if peak_flops() else None

    def measure(self, batches: Iterator[dict[str, jax.Array]], steps: int) -> dict[str, float]:
        """Runs one step to get going, and ``steps`` more, each handed over before the one before it is waited for."""
        clock = Clock(0, 0.0)

        def run() -> jax.Array:
            with clock.waiting():
                batch = next(batches)
            self._state, metrics = self._run(self._state, batch, self._rate, self._key)
            return metrics["loss"]

        jax.block_until_ready(run())
        clock.compiled(0)
        cpu, ends, pending = time.process_time(), [time.monotonic()], run()
        for _ in range(steps - 1):
            before, pending = pending, run()
            jax.block_until_ready(before)
            ends.append(time.monotonic())
        jax.block_until_ready(pending)
        ends.append(time.monotonic())
        cpu = time.process_time() - cpu
        seconds = statistics.median(np.diff(ends).tolist())
        facts = {
            "step_seconds": seconds,
            "slices_per_second": self._size / seconds,
            "cpu_seconds_per_slice": cpu / (steps * self._size),
            "data_wait_share": clock.interval(steps)["data_wait_share"],
            **device_memory(),
        }
        if self._flops and (peak := peak_flops()):
            facts["peak_flops_share"] = self._flops / seconds / peak
        return facts


def _synthetic(config: Config) -> dict[str, np.ndarray]:
    """Returns a batch of noise, with a rectangle of each class."""
    size, (rows, columns) = config.batch.size, config.batch.patch
    image = np.random.default_rng(config.seed).integers(-100, 100, (size, rows, columns), np.int16)
    window = np.tile(np.array([-100, 100, 1], np.float32), (size, 1))
    label = np.zeros((size, rows, columns), np.uint8)
    for value in range(1, len(config.labels)):
        label[:, : rows // (value + 1), : columns // (value + 1)] = value
    return {"image": image, "window": window, "label": label}


def _batches(config: Config, store: str | os.PathLike, steps: int) -> Iterator[dict[str, np.ndarray]]:
    """Returns ``steps + 1`` batches of a store, read ahead as in training."""
    from liverjax.data.pipeline import train_batches
    from liverjax.data.store import open_store

    view = config.views[0]
    cases = open_store(store, config.preprocess, config.target).cases
    return train_batches(cases, view, config, first_step=0, last_step=steps + 1, process=0, processes=1)


def _pipeline(config: Config, store: str | os.PathLike, steps: int) -> dict[str, dict[str, float]]:
    """Measures the pipeline alone, as fast as it goes, over ``steps + 1`` batches a pass."""

    def one_pass() -> dict[str, float]:
        start, cpu = time.monotonic(), time.process_time()
        slices = sum(len(batch["label"]) for batch in _batches(config, store, steps))
        wall, cpu = time.monotonic() - start, time.process_time() - cpu
        return {"slices_per_second": slices / wall, "cpu_seconds_per_slice": cpu / slices}

    drop_pages(store)
    cold = one_pass()
    passes = [one_pass() for _ in range(_WARM_PASSES)]
    warm = {name: statistics.median(found[name] for found in passes) for name in cold}
    return {"cold": cold, "warm": warm}


def drop_pages(folder: str | os.PathLike) -> None:
    """Lets the system forget what it holds of the files in memory, where it can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in pathlib.Path(folder).rglob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # A page that is not on the disk yet stays.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(facts: dict) -> str:
    """Returns the facts of `bench` as lines for a terminal."""
    slices, rows, columns = facts["batch"]
    parts = {"step alone": facts["step"], "step, fed": facts["fed"]}
    parts |= {f"pipeline, {temperature}": found for temperature, found in (facts["pipeline"] or {}).items()}
    lines = [
        f"{facts['config']}, {facts['view']}, {slices} slices of {rows} x {columns}, {facts['devices']}",
        f"compiled in {facts['step']['compile_seconds']:.1f} s",
        " ".join([f"{'':14}", *(f"{heading:>11}" for heading, _ in _COLUMNS.values())]),
    ]
    for part, found in parts.items():
        if found:
            cells = [write(found[name]) if name in found else "" for name, (_, write) in _COLUMNS.items()]
            lines.append(" ".join([f"{part:14}", *(f"{cell:>11}" for cell in cells)]).rstrip())
    if facts["fed"] is None:
        lines.append(f"the pipeline was not measured: it needs a store, {' and '.join(PIPELINE_NEEDS)}")
    return "\n".join(lines)
