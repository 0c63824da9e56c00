"""Judge on held-out cases whether slice quality finds the slices that need correction.

  liverjax quality --models=RUN,RUN,... -i DATASET

Predicts the test cases of each model (such as the folds of a cross-validation). Of the axial slices with liver in
prediction or reference, those with a Dice below 0.9 are to be found: prints the AUROC of slice quality (the expected
Dice, low first), and beside it that of the predicted area (small first). Intervals are bootstrapped over whole cases,
as slices of one case are alike.
"""

from absl import flags

from liverjax.commands import reading


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_list("models", None, "folders of training runs", flag_values=values)
    flags.DEFINE_string("input", None, "data set with their test cases", short_name="i", flag_values=values)
    reading.define(values)
    flags.DEFINE_bool("quiet", False, "no progress bar", flag_values=values)
    flags.mark_flags_as_required(["models", "input"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.studies import quality

    slices = quality.held_out_slices(args.models, args.input, reading=reading.reading(args), quiet=args.quiet)
    print(quality.table(slices))
