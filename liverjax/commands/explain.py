"""What a model sees: how far, what at, how firmly, and in what features.

  liverjax explain field --model=RUN -i DATASET -o OUT
  liverjax explain slice --model=RUN -i SCAN.nii.gz -o OUT --worst --reference=MASK.nii.gz
  liverjax explain robustness --model=RUN,OTHER_RUN -i DATASET -o OUT
  liverjax explain features --model=RUN -i DATASET,OTHER_DATASET -o OUT

field: receptive fields per view, level and class. slice: maps of what speaks for an answer, and their sanity checks; of
a slice, a point (--at, --voxel), a predicted lesion, or the largest false region (--worst). robustness: Dice against
contrast, noise, blur, shift, missing slices, mirroring. features: kernels, feature maps, slices as points, and how far
scans lie from those of training. Writes OUT/TASK.html and OUT/TASK.csv. Definitions: docs/insight.md.
"""

import importlib
from typing import Any

from absl import flags

from liverjax.commands import reading
from liverjax.labels import NAMES

POSITIONAL = "task"
_TASKS = ["field", "slice", "robustness", "features"]
#: Flags of one task alone.
_ONLY = {
    "slice": ("at", "voxel", "lesion", "worst", "reference", "label", "baseline", "smoothgrad"),
    "field": ("samples",),
    "features": ("channel",),
}


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_enum(
        "task", None, ["field", "slice", "robustness", "features"], "what to explain: the first word", **on
    )
    flags.DEFINE_list("model", None, "run or bundle; robustness: one or more, to compare", **on)
    flags.DEFINE_list("input", None, "scan or data set; features: one or more", short_name="i", **on)
    flags.DEFINE_string("output", None, "folder for the report", short_name="o", **on)
    reading.define(values)
    flags.DEFINE_list("cases", None, "ids of the cases (default: those that did not train the model)", **on)
    flags.DEFINE_list("views", None, "trained views to look at (default: all)", **on)
    flags.DEFINE_string("tap", "", "slice, features: maps, as decoder_0 (default: bottleneck)", **on)
    flags.DEFINE_integer("samples", 32, "field: slices and positions of each", lower_bound=1, **on)
    flags.DEFINE_list("at", None, "slice: X,Y,Z of a point: world mm, right, anterior, superior", **on)
    flags.DEFINE_list("voxel", None, "slice: I,J,K of a voxel of the scan, from 0", **on)
    flags.DEFINE_integer("lesion", None, "slice: number of a predicted tumour, 1 the largest", **on)
    flags.DEFINE_bool("worst", False, "slice: the largest false region by --reference", **on)
    flags.DEFINE_string("reference", None, "slice: mask to compare with", **on)
    flags.DEFINE_enum("label", None, NAMES, "slice: the class (default: as predicted)", **on)
    flags.DEFINE_enum("baseline", "air", ["air", "blurred", "mean"], "slice: what nothing looks like", **on)
    flags.DEFINE_integer("smoothgrad", 0, "slice: draws of SmoothGrad", lower_bound=0, upper_bound=1000, **on)
    flags.DEFINE_integer("channel", 0, "features: the map whose slices are shown", lower_bound=0, **on)
    flags.mark_flags_as_required(["task", "model", "input", "output"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.errors import ConfigError

    for task, names in _ONLY.items():
        for name in names if task != args.task else ():
            if args[name].present:
                expected = f"expected it with `liverjax explain {task}`"
                raise ConfigError(f"--{name} has no effect on {args.task}, {expected}")
    for name, task, given in (("model", "robustness", args.model), ("input", "features", args.input)):
        if len(given) > 1 and args.task != task:
            raise ConfigError(f"--{name} lists {len(given)}, expected one; only {task} takes several")
    if args.task == "slice":
        from liverjax.commands.explain_slice import run as explain
    else:
        explain = getattr(importlib.import_module("liverjax.commands.explain_model"), args.task)
    print(explain(args))
