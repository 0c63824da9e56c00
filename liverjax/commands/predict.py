"""Segment a scan or a folder of scans.

  liverjax predict --model=RUN [--tumor_model=RUN --lesion_filter=FILE] -i SCAN.nii.gz -o MASK.nii.gz
  liverjax predict --model=RUN -i DATASET -o FOLDER --subset=test --preview --save_uncertainty

Masks lie voxel on voxel on their scans: 0 background, 1 liver, 2 tumour. Beside them: manifest.json (what was done, and
doubts), volumes.csv, lesions.csv. A scan that cannot be used is reported, and the others go on. Research use only.
"""

import sys
from typing import Any

from absl import flags
from tqdm import tqdm

from liverjax.commands import reading, tumors


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    string, choice, boolean = flags.DEFINE_string, flags.DEFINE_enum, flags.DEFINE_bool
    string("model", None, "folder of a training run, or a bundle", **on)
    string("input", None, "scan, or folder of scans in any known layout", short_name="i", **on)
    string("output", None, "mask file for one scan, or folder", short_name="o", **on)
    tumors.define(values)
    reading.define(values)
    choice("subset", None, ["train", "validation", "test"], "only this subset of the run's split", **on)
    boolean("skip_existing", False, "leave cases alone whose mask is there", **on)
    string("shard", "1/1", "i/n: every n-th case from the i-th, for n jobs side by side", **on)
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
    missing = "train a model (liverjax train, or liverjax demo to try), or name a bundle that you were given"
    flags.register_validator("model", lambda value: value is not None, missing, flag_values=values)
    flags.mark_flags_as_required(["model", "input", "output"], flag_values=values)


def run(args: flags.FlagValues) -> int:
    """Runs the command; the exit status is 1 if a case failed."""
    from liverjax.datasets.layouts import find_cases
    from liverjax.inference import outputs, predict
    from liverjax.pretrained.onnx import with_onnx_runtime
    from liverjax.report.figures import preview

    cases = found = find_cases(args.input, reading=reading.reading(args))
    outputs.is_mask_file(args.output)  # What cannot be one is refused before the model is loaded.
    changes = {name: args[name].value for name in ("fusion", "ensemble", "flips", "accumulator")}
    model = tumors.load(args, args.model, args.views).with_options(None, args.override, **changes)
    model = with_onnx_runtime(model) if args.runtime == "onnx" else model
    cases = predict.shard(predict.subset(model, cases, args.subset) if args.subset else cases, args.shard)
    picture = preview if args.preview else None
    extras = predict.Extras(args.save_probabilities, args.save_uncertainty, args.mc_samples, picture)
    if not args.quiet:
        print(predict.describe(model, cases, extras), file=sys.stderr)
    settings = {"extras": extras, "skip_existing": args.skip_existing, "found": found}
    records, line = [], ""
    try:
        with tqdm(total=len(cases), desc="predict", unit="case", disable=args.quiet) as bar:
            for outcome in predict.predict_cases(model, cases, args.output, **settings):
                bar.update()
                records.append(outcome.record())
                if outcome.error:
                    bar.write(f"liverjax: error: {' '.join(str(outcome.error).split())}", file=sys.stderr)
    finally:  # Of an interrupted run as well.
        line = outputs.write_manifest(args.output, args.shard, model, records, args.model, args.tumor_model)
    if not args.quiet:
        print(line)
    if (failed := sum(record["status"] == "failed" for record in records)) and len(cases) > 1:
        print(f"liverjax: {failed} of {len(cases)} cases failed", file=sys.stderr)
    return 1 if failed else 0
