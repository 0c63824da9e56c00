"""Fit a run's temperatures and fusion weights on its validation cases, and show how true its probabilities are.

  liverjax calibrate --workdir=RUN -i DATASET

DATASET holds the run's validation cases with their masks. Writes RUN/calibration.json, which every later
prediction of the run uses (weights with --fusion=weighted), and the reliability plot RUN/calibration.png. The
printed scores of each validation case are by what the other cases taught.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "folder of a training run", flag_values=values)
    flags.DEFINE_string(
        "input", None, "data set with the validation cases", short_name="i", flag_values=values
    )
    flags.DEFINE_enum(
        "ensemble", None, ["all", "best"], "of several restarts, those to calibrate", flag_values=values
    )
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["workdir", "input"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.studies.calibration import calibrate

    facts = calibrate(args.workdir, args.input, ensemble=args.ensemble, quiet=args.quiet)
    if args.quiet:
        return
    for view, temperature in facts["temperature"].items():
        weights = ", ".join(f"{weight:.2f}" for weight in facts["weights"][view])
        print(f"{view:9} temperature {temperature:.2f}, weights {weights}")
    for name, scores in facts["scores"].items():
        likelihood, error = scores["negative_log_likelihood"], scores["expected_calibration_error"]
        print(f"{name:20} negative log-likelihood {likelihood:.4f}, calibration error {error:.4f}")
    if not facts["held_out"]:
        print("one validation case alone: the scores are those of the fit itself, and flatter it")
