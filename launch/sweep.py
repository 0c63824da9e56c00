"""Run an ablation: every variant with every fold and seed, then one table.

  python launch/sweep.py --ablation=norm --config=mr_liver:small --dataset=DATASET --workdir=WORKDIR --folds=0,1,2,3,4
  python launch/sweep.py ... --dry_run                 the commands that are left to run
  python launch/sweep.py ... --jobs=2                  two trainings at a time, each with half of the cores
  python launch/sweep.py ... --devices=0,1,2,3         four at a time, each with a GPU
  python launch/sweep.py ... --slurm="--partition=gpu --gres=gpu:1 --time=4:00:00"    as an array of SLURM jobs

Ablations are the functions of configs/ablations.py. The same command again skips what is done and goes on with what
was interrupted; after a failure the others go on, and the exit status is 1. WORKDIR/ablations/NAME/ holds report.html,
table.csv, table.md and the plots. Several ablations of one data set may share a WORKDIR: common runs are run once.
"""

import os
import pathlib
import shlex
import subprocess
import sys

from absl import flags

from liverjax.commands import dispatch
from liverjax.errors import LiverjaxError
from liverjax.files import replacing

#: A job of SLURM: its signal before the end of its time is passed on, and what was saved then is queued again.
_JOB = """#!/bin/bash
cd {here}
{program} --task="${{1:-$SLURM_ARRAY_TASK_ID}}" &
trap 'kill -TERM $!' TERM
wait $!; status=$?
if [ $status -gt 128 ]; then wait $!; status=$?; fi
if [ $status -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
"""


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    on = {"flag_values": values}
    flags.DEFINE_string("ablation", None, "a function of configs/ablations.py, or FILE.py:NAME", **on)
    flags.DEFINE_string("config", None, "the config that is varied: NAME:arg or FILE.py:arg", **on)
    flags.DEFINE_multi_string("override", [], "another value for a field, for all variants", **on)
    flags.DEFINE_string("dataset", None, "folder of scans and masks", **on)
    flags.DEFINE_string("workdir", None, "folder for everything", **on)
    flags.DEFINE_integer("seeds", 1, "number of seeds, from the config's own upwards", lower_bound=1, **on)
    flags.DEFINE_list("folds", [], "folds whose test part is scored (default: the config's own)", **on)
    flags.DEFINE_integer("jobs", 1, "trainings at a time", lower_bound=1, **on)
    flags.DEFINE_list("devices", [], "CUDA devices, each for a training at a time", **on)
    flags.DEFINE_string("slurm", None, "submit to SLURM, with these options of sbatch", **on)
    flags.DEFINE_string("task", None, "of the sweep only: stores, table, or the number of a training", **on)
    flags.DEFINE_bool("dry_run", False, "list the commands that are left to run", **on)
    flags.mark_flags_as_required(["ablation", "config", "dataset", "workdir"], **on)


def run(args: flags.FlagValues) -> int:
    """Runs the sweep, or the part of it that a SLURM job does; the exit status is 1 if a command failed."""
    from liverjax.errors import ConfigError
    from liverjax.experiments import plan, runner

    study = plan.plan(
        args.ablation,
        args.config,
        args.dataset,
        args.workdir,
        seeds=args.seeds,
        folds=args.folds,
        overrides=args.override,
    )
    units = study.units()
    if args.dry_run:
        left = [command for command in study.commands() if not command.done]
        print(*left, sep="\n")
        print(f"{len(left)} of {len(study.commands())} commands are left", file=sys.stderr)
        return 0
    if args.slurm is not None:
        return _submit(args, study.folder, units)
    if args.task == "stores":
        units = list(dict.fromkeys(unit[:1] for unit in units))
    elif args.task == "table":
        units = []
    elif args.task is not None:
        if not args.task.isdecimal() or int(args.task) >= len(units):
            raise ConfigError(f"task is {args.task!r}, expected stores, table, or 0 to {len(units) - 1}")
        units = [units[int(args.task)]]
    failures = runner.run(
        units, jobs=args.jobs, devices=args.devices, show=lambda line: print(line, flush=True)
    )
    if args.task in (None, "table"):
        _tabulate(study)
    for failure in failures:
        print(f"liverjax: error: exit status {failure.status} of: {failure.command}", file=sys.stderr)
        print(f"liverjax: error: {failure.reason} (see {failure.command.log})", file=sys.stderr)
    return 1 if failures else 0


def _tabulate(study) -> None:
    """Writes and prints the table of what is scored."""
    from liverjax.experiments.comparison import compare
    from liverjax.report.ablation import ablation_report

    found = compare(study)
    found.save(study.folder)
    title = f"Ablation: {study.name.replace('_', ' ')}"
    report = ablation_report(
        study.folder, title, str(study), found.tables(), found.rows, found.dice, found.runs
    )
    print(f"{found.text()}\n\nreport: {report}")


def _submit(args: flags.FlagValues, folder: pathlib.Path, units: list) -> int:
    """Submits to SLURM: a job for the stores, an array with a job for each training, and one for the table."""
    names = ("ablation", "config", "dataset", "workdir", "seeds")
    words = [f"--{name}={args[name].value}" for name in names]
    words += [f"--override={text}" for text in args.override] + [f"--folds={','.join(args.folds)}"]
    program = [sys.executable, str(pathlib.Path(__file__).resolve()), *words]
    script = folder / "slurm" / "job.sh"
    with replacing(script) as temporary:
        temporary.write_text(_JOB.format(here=shlex.quote(os.getcwd()), program=shlex.join(program)))
    left = [index for index, unit in enumerate(units) if not all(command.done for command in unit)]
    options = [f"--job-name={args.ablation}", f"--output={folder}/slurm/%j.out", "--requeue"]
    options += ["--signal=B:TERM@120", *shlex.split(args.slurm)]

    def submit(*more: str, task: str = "") -> str:
        command = ["sbatch", "--parsable", *options, *more, str(script), task]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise LiverjaxError(f"sbatch failed with exit status {done.returncode}: {shlex.join(command)}")
        return done.stdout.strip().partition(";")[0]

    after = []
    if left:
        stores = submit(task="stores")
        array = submit(f"--array={','.join(map(str, left))}", f"--dependency=afterok:{stores}")
        after = [f"--dependency=afterany:{array}"]
    table = submit(*after, task="table")
    print(
        f"{len(left)} of {len(units)} trainings are left; the table is job {table}, logs in {script.parent}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(dispatch.run_program(sys.modules[__name__], "python launch/sweep.py", sys.argv[1:]))
