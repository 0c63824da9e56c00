"""Segment a scan or a folder of scans.

  liverjax predict -i SCAN.nii.gz -o MASK.nii.gz
  liverjax predict --model=RUN [--tumor_model=RUN --lesion_filter=FILE] -i SCAN.nii.gz -o MASK.nii.gz
  liverjax predict --model=RUN -i DATASET -o FOLDER --subset=test --preview --save_uncertainty

Without --model, a shipped model for the modality of each scan is taken, and named (`liverjax models` lists them).
Masks lie voxel on voxel on their scans: 0 background, 1 liver, 2 tumour. Beside them: manifest.json (what was done, and
doubts), volumes.csv, lesions.csv. A scan that cannot be used is reported, and the others go on. Research use only.
"""

import sys
from typing import Any

from absl import flags

from liverjax.commands import reading, tumors
from liverjax.commands.segmenting import segment


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    string, choice, boolean = flags.DEFINE_string, flags.DEFINE_enum, flags.DEFINE_bool
    string("model", None, "run, bundle or shipped model; RUN1,RUN2: all fused (default: shipped)", **on)
    string("input", None, "scan, or folder of scans in any known layout", short_name="i", **on)
    string("output", None, "mask file for one scan, or folder", short_name="o", **on)
    choice("format", "nifti", ["nifti", "dicom-seg", "rtstruct"], "of the masks", **on)
    tumors.define(values)
    reading.define(values)
    choice("subset", None, ["train", "validation", "test"], "only this subset of the run's split", **on)
    boolean("skip_existing", False, "leave cases alone whose mask is there", **on)
    string("shard", "1/1", "i/n: every n-th case from the i-th, for n jobs side by side", **on)
    boolean("share", False, "share the cases with processes of the same command, on any host", **on)
    boolean("save_probabilities", False, "write each class's probability in the scan's grid", **on)
    boolean("save_uncertainty", False, "write maps, and a table of the slices by quality", **on)
    flags.DEFINE_integer("mc_samples", 0, "draws of dropout for the uncertainty", lower_bound=0, **on)
    flags.DEFINE_list("views", None, "trained views to fuse (default: all)", **on)
    choice("fusion", None, ["mean", "weighted", "majority"], "another rule to fuse the views", **on)
    choice("ensemble", None, ["all", "best"], "of several restarts, those to fuse", **on)
    boolean("flips", None, "also look at mirrored slices, if training did; four times as long", **on)
    choice("accumulator", None, ["auto", "device", "host"], "where the views are summed", **on)
    choice("runtime", "jax", ["jax", "onnx"], "what computes the networks; onnx is in liverjax[onnx]", **on)
    flags.DEFINE_multi_string("override", [], "another value for a field predict.* of the config", **on)
    boolean("preview", False, "write a picture of three views beside each mask", **on)
    boolean("quiet", False, "print errors only", **on)
    flags.mark_flags_as_required(["input", "output"], flag_values=values)


def run(args: flags.FlagValues) -> int:
    """Runs the command; the exit status is 1 if a case failed."""
    from liverjax.datasets.layouts import find_cases
    from liverjax.inference import outputs
    from liverjax.pretrained import registry

    cases = find_cases(args.input, reading=reading.reading(args))
    outputs.check_output(args.output, cases, args.format)  # Before a model is loaded.
    chosen = registry.for_cases(cases, args.input) if args.model is None else {args.model: cases}
    if len(chosen) > 1:  # Several models never write one file in turn.
        outputs.mask_paths(cases, args.output, format=args.format)
    return max(_predict(args, model, of_model, cases) for model, of_model in chosen.items())


def _predict(args: flags.FlagValues, source: str, cases: Any, found: Any) -> int:
    from liverjax.inference import predict
    from liverjax.pretrained.onnx import with_onnx_runtime
    from liverjax.report.figures import preview

    changes = {name: args[name].value for name in ("fusion", "ensemble", "flips", "accumulator")}
    model = tumors.load(args, source, args.views).with_options(None, args.override, **changes)
    model = with_onnx_runtime(model) if args.runtime == "onnx" else model
    cases = predict.subset(model, cases, args.subset) if args.subset else cases
    cases = predict.shard(cases, args.shard, share=args.share)
    picture = preview if args.preview else None
    extras = predict.Extras(args.save_probabilities, args.save_uncertainty, args.mc_samples, picture)
    if not args.quiet:
        print(f"model {source}: {predict.describe(model, cases, extras)}", file=sys.stderr)
    settings = {"extras": extras, "skip_existing": args.skip_existing, "found": found, "format": args.format}
    return segment(args, model, source, cases, **settings)
