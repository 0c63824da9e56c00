"""Judge on held-out cases whether doubt finds the slices that want correcting.

  liverjax quality --models=RUN,RUN,... -i DATASET

Predicts the test cases of each model (such as the folds of a cross-validation) and prints the AUROC with which doubt,
and beside it the predicted area (small first), tell the axial slices with a Dice below 0.9 among those with liver in
prediction or reference. Intervals are by bootstrap over whole cases, whose slices are alike.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_list("models", None, "folders of training runs, or bundles", flag_values=values)
    flags.DEFINE_string("input", None, "data set with their test cases", short_name="i", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no progress bar", flag_values=values)
    flags.mark_flags_as_required(["models", "input"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.studies import quality

    print(quality.table(quality.held_out_slices(args.models, args.input, quiet=args.quiet)))
