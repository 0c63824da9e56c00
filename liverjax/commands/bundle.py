"""Put a trained model into one file, to be passed on.

  liverjax bundle --workdir=RUN -o liver.liverjax --licence=CC-BY-SA-4.0 --scores=SCORES/summary.json

The file is a zip of plain arrays and JSON, with checksums: nothing in it can run. It tells the licence, the cases
that trained, chose and tested the model, the config, the versions and, if given, the scores. `liverjax predict
--model=liver.liverjax` uses it.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "folder of a training run", flag_values=values)
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
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["workdir", "output", "licence"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    import json
    import pathlib

    from liverjax.errors import InputError
    from liverjax.pretrained.bundle import write_bundle
    from liverjax.pretrained.load import load_model

    model = load_model(args.workdir).with_options(ensemble=args.ensemble)
    scores = None
    if args.scores:
        try:
            scores = json.loads(pathlib.Path(args.scores).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{args.scores}: not a summary.json of `liverjax evaluate` ({error})") from None
    about = {**model.about, "licence": args.licence, "credit": args.credit, "scores": scores}
    write_bundle(args.output, model.config, model.networks, model.calibration, **about)
    if not args.quiet:
        size = pathlib.Path(args.output).stat().st_size / 1e6
        members = model.networks.members
        views = f"{len(model.config.views)} views" + (f" of {members} networks" if members > 1 else "")
        print(f"{args.output}: {size:.1f} MB, {views}, licence {args.licence}")
