"""Run an ablation: every variant with every fold and seed, then one table.

  liverjax sweep --ablation=norm --config=mr_liver:small --dataset=DATASET --workdir=WORKDIR --folds=0,1,2,3,4
  liverjax sweep ... --dry_run                 the commands that are left to run
  liverjax sweep ... --jobs=2                  two trainings at a time, each with half of the cores
  liverjax sweep ... --devices=0,1,2,3         four at a time, each with a GPU
  liverjax sweep ... --slurm="--partition=gpu --gres=gpu:1 --time=4:00:00"    as an array of SLURM jobs

Ablations are the functions of configs/ablations.py. The same command again skips what is done and resumes what was
interrupted; after a failure the others go on, and the exit status is 1. WORKDIR/ablations/NAME/ holds report.html,
table.csv, table.md and the plots. Several ablations of one data set may share a WORKDIR: common trials are run once.
"""

from typing import Any

from absl import flags

from liverjax.commands import trainings

#: The flags that may be given without a value.
MAY_BE_EMPTY = ("slurm",)


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: Any = {"flag_values": values}
    flags.DEFINE_string("ablation", None, "a function of configs/ablations.py, or FILE.py:NAME", **on)
    flags.DEFINE_string("config", None, "the config that is varied: NAME:arg or FILE.py:arg", **on)
    flags.DEFINE_multi_string("override", [], "another value for a field, for all variants", **on)
    flags.DEFINE_string("dataset", None, "folder of scans and masks", **on)
    flags.DEFINE_string("workdir", None, "folder for everything", **on)
    flags.DEFINE_integer("seeds", 1, "number of seeds, from the config's own upwards", lower_bound=1, **on)
    flags.DEFINE_list("folds", [], "folds whose test cases are scored (default: the config's own)", **on)
    flags.DEFINE_string("metric", "dice", "by which variants are compared, as in `liverjax evaluate`", **on)
    flags.DEFINE_integer("jobs", 1, "trainings at a time", lower_bound=1, **on)
    flags.DEFINE_list("devices", [], "CUDA devices, each for a training at a time", **on)
    flags.DEFINE_string("slurm", None, "submit to SLURM, with these options of sbatch", **on)
    flags.DEFINE_string("task", None, "one job of SLURM: stores, table, or the number of a training", **on)
    flags.DEFINE_bool("dry_run", False, "list the commands that are left to run", **on)
    flags.mark_flags_as_required(["ablation", "config", "dataset", "workdir"], **on)


def run(args: flags.FlagValues) -> int:
    """Runs the sweep, or the part of it that a SLURM job does; the exit status is 1 if a command failed."""
    from liverjax.experiments import compare, plan_sweep
    from liverjax.report.ablation import ablation_report

    settings = {"seeds": args.seeds, "folds": args.folds, "metric": args.metric, "overrides": args.override}
    sweep = plan_sweep(args.ablation, args.config, args.dataset, args.workdir, **settings)
    if args.dry_run:
        trainings.show_left(sweep)
        return 0
    if args.slurm is not None:
        names = ("ablation", "config", "dataset", "workdir", "seeds", "metric", "folds")
        trainings.submit(sweep, args, names, ("sweep",))
        return 0
    failures = trainings.run(sweep, args)
    if args.task in (None, "table"):
        found = compare(sweep)
        found.save(sweep.folder)
        title = f"Ablation: {sweep.name.replace('_', ' ')}"
        results = {name: getattr(found, name) for name in ("metric", "rows", "scores", "trials")}
        report = ablation_report(sweep.folder, title, sweep.describe(), tables=found.tables(), **results)
        print(f"{found.text()}\n\nreport: {report}")
    return trainings.status(failures)
