"""The learning curve of `liverjax study`."""

from __future__ import annotations

import sys
from typing import Any

from absl import flags


def run(args: flags.FlagValues) -> int:
    """Runs the trainings that are left, then reads and draws the curve; the exit status is 1 if a command failed."""
    from liverjax.experiments import run_chains, slurm
    from liverjax.report import learning_curve_report
    from liverjax.scoring.tables import name
    from liverjax.studies import learning_curve

    sizes, targets = _numbers(args, "sizes", int), _numbers(args, "targets", float)
    names = ("seeds", "folds", "equal", "metric")
    settings: dict[str, Any] = {key: args[key].value for key in names} | {"overrides": args.override}
    sweep = learning_curve.plan_curve(args.config, args.dataset, args.workdir, sizes=sizes, **settings)
    if args.dry_run:
        left = [command for command in sweep.commands() if not command.done]
        print(*left, sep="\n")
        print(f"{len(left)} of {len(sweep.commands())} commands are left", file=sys.stderr)
        return 0
    if args.slurm is not None:
        given = ("config", "dataset", "workdir", "seeds", "equal", "metric")
        words = [f"--{key}={args[key].value}" for key in given] + [f"--override={t}" for t in args.override]
        words += [f"--{key}={','.join(args[key].value or [])}" for key in ("sizes", "targets", "folds")]
        print(slurm.submit(sweep, words, args.slurm, ("study", "learning-curve")))
        return 0
    chains = sweep.chains() if args.task is None else slurm.chains_of(sweep, args.task)
    failures = run_chains(
        chains, jobs=args.jobs, devices=args.devices, show=lambda line: print(line, flush=True)
    )
    if args.task in (None, "table"):
        found = learning_curve.read_curves(sweep, targets, seed=args.seed)
        path = learning_curve.save(sweep, found) / "report.html"
        regions = {curve.region: learning_curve.report_rows(curve) for curve in found}
        report = learning_curve_report(path, sweep.describe(), name(sweep.metric), regions)
        print("\n\n".join([*(curve.text() for curve in found), f"report: {report}"]))
    for failure in failures:
        print(f"liverjax: error: exit status {failure.status} of: {failure.command}", file=sys.stderr)
        print(f"liverjax: error: {failure.reason} (see {failure.command.log})", file=sys.stderr)
    return 1 if failures else 0


def _numbers(args: flags.FlagValues, name: str, kind: type) -> list:
    from liverjax.errors import ConfigError

    words = args[name].value or []
    try:
        return [kind(word) for word in words]
    except ValueError:
        expected = "whole numbers, as 2,4,8,16" if kind is int else "scores, as 0.9,0.95"
        raise ConfigError(f"--{name} is {','.join(words)!r}, expected {expected}") from None
