"""The flags of the learning curve of `liverjax study`."""

from __future__ import annotations

from typing import Any

from absl import flags

#: Flags of this study; the first four must be given.
NAMES = (
    *("config", "dataset", "workdir", "sizes", "override", "seeds", "folds", "equal", "targets", "metric"),
    *("jobs", "devices", "slurm", "task", "dry_run"),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    on: dict[str, Any] = {"flag_values": values}
    of, string, words = "learning-curve: ", flags.DEFINE_string, flags.DEFINE_list
    string("config", None, of + "the config that is trained: NAME:arg or FILE.py:arg", **on)
    flags.DEFINE_multi_string("override", [], of + "another value for a field", **on)
    string("dataset", None, of + "folder of scans and masks", **on)
    string("workdir", None, of + "folder for everything", **on)
    words("sizes", [], of + "numbers of training patients, as 2,4,8,16", **on)
    flags.DEFINE_integer("seeds", 3, of + "number of seeds, each with other patients", lower_bound=1, **on)
    words("folds", [], of + "folds whose test cases are scored (default: the config's own)", **on)
    flags.DEFINE_enum("equal", "steps", ["steps", "epochs"], of + "what all sizes train alike", **on)
    words("targets", ["0.9", "0.95"], of + "scores of which the patients needed are said", **on)
    string("metric", "dice", of + "dice, iou or nsd at a tolerance", **on)
    flags.DEFINE_integer("jobs", 1, of + "trainings at a time", lower_bound=1, **on)
    words("devices", [], of + "CUDA devices, each for a training at a time", **on)
    string("slurm", None, of + "submit to SLURM, with these options of sbatch", **on)
    string("task", None, of + "one job of SLURM: stores, table, or the number of a training", **on)
    flags.DEFINE_bool("dry_run", False, of + "list the commands that are left to run", **on)
