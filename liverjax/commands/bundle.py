"""Put a trained model into one file, to be passed on.

  liverjax bundle --workdir=RUN -o liver.safetensors --licence=CC-BY-SA-4.0 --scores=SCORES/summary.json
  liverjax bundle --workdir=LIVER --tumor_model=TUMOR --lesion_filter=FILE -o both.safetensors --licence=CC-BY-SA-4.0

The file holds the networks and, as JSON in its metadata, config, calibration, versions, licence and, if given, scores
and a card (docs/models.md: --card, with --held_out=NAME=SCORES/summary.json for each of its held-out groups). Its
checksum is verified whenever it is read, and nothing in it can run. It names no case and no folder, so that
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
    flags.DEFINE_string("card", None, "JSON file of words for the card to put in", flag_values=values)
    flags.DEFINE_multi_string(
        "held_out", [], "NAME=FILE: summary.json of a held-out group of the card", flag_values=values
    )
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
    import pathlib

    from liverjax.errors import ConfigError
    from liverjax.files import output_file
    from liverjax.inference.cascade import Cascade
    from liverjax.pretrained import bundle, cascade_bundle
    from liverjax.pretrained.card import read_card

    output = output_file(args.output, "--output")
    scores = bundle.read_scores(args.scores) if args.scores else None
    groups = dict(group.partition("=")[::2] for group in args.held_out)
    given = f"--held_out is {', '.join(map(repr, args.held_out))}"
    if groups and not args.card:
        raise ConfigError(f"{given} without --card, expected --card=FILE, whose groups it scores")
    if "" in groups.values():
        raise ConfigError(f"{given}, expected NAME=SCORES/summary.json each")
    held_out = {name: bundle.read_scores(file) for name, file in groups.items()}
    card = read_card(args.card, held_out) if args.card else None
    # As a path, not as a name: what is shipped is not bundled again.
    model = tumors.load(args, pathlib.Path(args.workdir)).with_options(ensemble=args.ensemble)
    facts = {
        "licence": args.licence,
        "credit": args.credit,
        "scores": scores,
        "card": card,
        "dtype": args.dtype,
    }
    if isinstance(model, Cascade):
        cascade_bundle.write_cascade(output, model, **facts)
    else:
        bundle.write_bundle(output, model, **facts)
    if not args.quiet:
        print(cascade_bundle.describe(output))
