"""Measure how fast this machine trains with a config.

  liverjax bench --config=ct_liver:small
  liverjax bench --config=ct_liver --store=STORE -o bench.json

Three things are measured: the training step on synthetic data, the step fed by the input pipeline, and the pipeline
alone, cold (the store's files dropped from memory, if the system can do that) and warm. Without --store it makes a
store of phantoms in a temporary folder. If grain or nibabel is not installed, only the step is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from liverjax.options import Config

_PATIENTS = range(3)
_SLICES = 64


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("config", "ct_liver:small", "NAME:arg or FILE.py:arg", flag_values=values)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.DEFINE_string("store", None, "folder that `liverjax prepare` wrote", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file for the figures", short_name="o", flag_values=values)
    flags.DEFINE_integer("steps", 10, "steps that are measured", lower_bound=2, flag_values=values)
    flags.DEFINE_string("view", "axial", "the view that is measured", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no table", flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    import tempfile

    from liverjax.config import load_config, override
    from liverjax.files import local_path, write_json
    from liverjax.training.bench import bench, table

    output = args.output and local_path(args.output, "--output")
    store = args.store and local_path(args.store, "--store")
    config = load_config(args.config)
    config.views = (args.view,)
    config = override(config, args.override)
    with tempfile.TemporaryDirectory(prefix="liverjax-bench-") as folder:
        facts = bench(config, store=store or _phantom_store(folder, config), steps=args.steps)
    if output:
        write_json(output, facts)
    if not args.quiet:
        print(table(facts))


def _phantom_store(folder: str, config: Config) -> str | None:
    """Makes a store of phantoms whose axial slices are as large as the patch; None if packages for that are missing."""
    import importlib.util

    from liverjax.training.bench import PIPELINE_NEEDS

    if not all(map(importlib.util.find_spec, PIPELINE_NEEDS)):
        return None
    from liverjax.data.store import prepare
    from liverjax.datasets.phantom import write_dataset

    rows, columns = config.batch.patch
    grid = {"shape": (columns, rows, _SLICES), "spacing": config.preprocess.spacing}
    write_dataset(f"{folder}/scans", _PATIENTS, modality=config.preprocess.modality, **grid)
    prepare(f"{folder}/scans", f"{folder}/store", config, quiet=True)
    return f"{folder}/store"
