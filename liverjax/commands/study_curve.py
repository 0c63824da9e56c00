"""The learning curve of `liverjax study`."""

from __future__ import annotations

from typing import Any

from absl import flags

from liverjax.commands import trainings


def run(args: flags.FlagValues) -> int:
    """Runs the trainings that are left, then reads and draws the curve; the exit status is 1 if a command failed."""
    from liverjax.report import learning_curve_report
    from liverjax.scoring.tables import name
    from liverjax.studies import learning_curve

    sizes, targets = _numbers(args, "sizes", int), _numbers(args, "targets", float)
    names = ("seeds", "folds", "equal", "metric")
    settings: dict[str, Any] = {key: args[key].value for key in names} | {"overrides": args.override}
    sweep = learning_curve.plan_curve(args.config, args.dataset, args.workdir, sizes=sizes, **settings)
    if args.dry_run:
        trainings.show_left(sweep)
        return 0
    if args.slurm is not None:
        given = ("config", "dataset", "workdir", "seeds", "equal", "metric", "sizes", "targets", "folds")
        trainings.submit(sweep, args, given, ("study", "learning-curve"))
        return 0
    failures = trainings.run(sweep, args)
    if args.task in (None, "table"):
        found = learning_curve.read_curves(sweep, targets, seed=args.seed)
        path = learning_curve.save(sweep, found) / "report.html"
        regions = {curve.region: learning_curve.report_rows(curve) for curve in found}
        report = learning_curve_report(path, sweep.describe(), name(sweep.metric), regions)
        print("\n\n".join([*(curve.text() for curve in found), f"report: {report}"]))
    return trainings.status(failures)


def _numbers(args: flags.FlagValues, name: str, kind: type) -> list:
    from liverjax.errors import ConfigError

    words = args[name].value or []
    try:
        return [kind(word) for word in words]
    except ValueError:
        expected = "whole numbers, as 2,4,8,16" if kind is int else "scores, as 0.9,0.95"
        raise ConfigError(f"--{name} is {','.join(words)!r}, expected {expected}") from None
