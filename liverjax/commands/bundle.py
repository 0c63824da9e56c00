"""Put a trained model into one file, to be passed on.

  liverjax bundle --workdir=RUN -o liver.safetensors --licence=CC-BY-SA-4.0 --scores=SCORES/summary.json
  liverjax bundle --workdir=LIVER --tumor_model=TUMOR --lesion_filter=FILE -o both.safetensors --licence=CC-BY-SA-4.0

The file holds the networks and, as JSON in its metadata, config, calibration, versions, licence and, if given, scores;
its checksum is verified whenever it is read, and nothing in it can run. It names no case and no folder, so that
`predict --subset=test` needs the folder of the run.
"""

from absl import flags

from liverjax.commands import tumors


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "folder of a training run", flag_values=values)
    tumors.define(values)
    flags.DEFINE_string("output", None, "file to write", short_name="o", flag_values=values)
    flags.DEFINE_string(
        "licence",
        None,
        "licence of the weights, such as CC-BY-SA-4.0; that of the data may bind",
        flag_values=values,
    )
    flags.DEFINE_string("credit", "", "whom users are to credit", flag_values=values)
    flags.DEFINE_string("scores", None, "summary.json of `liverjax evaluate` to put in", flag_values=values)
    flags.DEFINE_enum(
        "ensemble", None, ["all", "best"], "of several restarts, what to put in", flag_values=values
    )
    flags.DEFINE_enum(
        "dtype", "float16", ["float16", "float32"], "type of the arrays in the file", flag_values=values
    )
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["workdir", "output", "licence"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.files import output_file
    from liverjax.inference.cascade import Cascade
    from liverjax.pretrained import bundle, cascade_bundle

    output = output_file(args.output, "--output")
    scores = bundle.read_scores(args.scores) if args.scores else None
    model = tumors.load(args, args.workdir).with_options(ensemble=args.ensemble)
    facts = {"licence": args.licence, "credit": args.credit, "scores": scores, "dtype": args.dtype}
    if isinstance(model, Cascade):
        cascade_bundle.write_cascade(output, model, **facts)
    else:
        bundle.write_bundle(output, model, **facts)
    if not args.quiet:
        print(cascade_bundle.describe(output))
