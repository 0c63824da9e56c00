"""Segment a scan or a folder of scans.

  liverjax predict --model=RUN -i SCAN.nii.gz -o MASK.nii.gz
  liverjax predict --model=RUN -i DATASET -o FOLDER --part=test --preview

Masks lie voxel on voxel on their scans: 0 background, 1 liver, 2 tumour. Research use only.
"""

import sys

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model", None, "folder of a training run", flag_values=values)
    flags.DEFINE_string(
        "input", None, "scan, or folder of scans in any known layout", short_name="i", flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "mask file for one scan, or folder", short_name="o", flag_values=values
    )
    flags.DEFINE_string("phase", None, "of 4D scans, the phase: an index from 0, or last", flag_values=values)
    flags.DEFINE_enum(
        "part",
        None,
        ["train", "validation", "test"],
        "only the cases of this part of the run",
        flag_values=values,
    )
    flags.DEFINE_bool("preview", False, "write a picture of three views beside each mask", flag_values=values)
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["model", "input", "output"], flag_values=values)


def run(args: flags.FlagValues) -> int:
    """Runs the command; the exit status is 1 if a case failed."""
    from tqdm import tqdm

    from liverjax.errors import InputError
    from liverjax.inference.predict import predict_cases
    from liverjax.inference.segmenter import load_model
    from liverjax.report.figures import preview
    from liverjax.scans.layouts import find_cases

    cases = find_cases(args.input)
    model = load_model(args.model)
    if args.part:
        cases = [case for case in cases if case.id in model.parts[args.part]]
        if not cases:
            raise InputError(f"{args.input}: holds no {args.part} case of {args.model}")
    failed = 0
    with tqdm(total=len(cases), desc="predict", unit="case", disable=args.quiet) as bar:
        for outcome in predict_cases(model, cases, args.output, phase=args.phase):
            bar.update()
            if outcome.error:
                failed += 1
                bar.write(f"liverjax: error: {outcome.error}", file=sys.stderr)
            elif args.preview:
                picture = str(outcome.path).removesuffix(".gz").removesuffix(".nii") + ".png"
                preview(outcome.prediction.scan, outcome.prediction.labels, picture, title=outcome.case.id)
    if failed:
        print(f"liverjax: {failed} of {len(cases)} cases failed", file=sys.stderr)
    return 1 if failed else 0
