"""Fit a run's temperatures and fusion weights on its validation cases, and show how well it is calibrated.

  liverjax calibrate --workdir=RUN -i DATASET

DATASET holds the run's validation cases with their masks. Writes RUN/calibration.json, which every later
prediction of the run uses (weights with --fusion=weighted) until its checkpoints change, and the reliability diagram
RUN/calibration.png. The printed scores of each validation case are of a fit to the other cases.
"""

from absl import flags

from liverjax.commands import reading


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "folder of a training run", flag_values=values)
    flags.DEFINE_string(
        "input", None, "data set with the validation cases", short_name="i", flag_values=values
    )
    reading.define(values)
    flags.DEFINE_enum(
        "ensemble", None, ["all", "best"], "of several restarts, those to calibrate", flag_values=values
    )
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["workdir", "input"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    import pathlib

    from liverjax.report.figures import reliability
    from liverjax.studies.calibration import calibrate

    found = calibrate(
        args.workdir, args.input, ensemble=args.ensemble, reading=reading.reading(args), quiet=args.quiet
    )
    curves = {
        f"{name}: ECE {found.scores[name]['expected_calibration_error']:.4f}": (confidence, accuracy)
        for name, (confidence, accuracy, _) in found.curves.items()
    }
    reliability(curves, pathlib.Path(args.workdir) / "calibration.png")
    if args.quiet:
        return
    for view, temperature in found.calibration.temperature.items():
        weights = ", ".join(f"{weight:.2f}" for weight in found.calibration.weights[view])
        print(f"{view:9} temperature {temperature:.2f}, weights {weights}")
    for name, scores in found.scores.items():
        likelihood, error = scores["negative_log_likelihood"], scores["expected_calibration_error"]
        print(f"{name:20} negative log-likelihood {likelihood:.4f}, calibration error {error:.4f}")
    if not found.held_out:
        print("only one validation case: these are scores of the fit to itself, and too good")
