"""What the commands share that plan many trainings: the list of those left, their SLURM jobs, and running them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absl import flags

    from liverjax.experiments import Sweep


def show_left(sweep: Sweep) -> None:
    """Prints the commands that are left, and how many of how many."""
    left = [command for command in sweep.commands() if not command.done]
    print(*left, sep="\n")
    print(f"{len(left)} of {len(sweep.commands())} commands are left", file=sys.stderr)


def submit(sweep: Sweep, args: flags.FlagValues, names: Sequence[str], command: Sequence[str]) -> None:
    """Submits the jobs of ``command`` with the flags of these names, but for those that have no value."""
    from liverjax.experiments import slurm

    values = {name: args[name].value for name in names}
    words = [
        f"--{name}={','.join(value) if isinstance(value, list) else value}"
        for name, value in values.items()
        if value not in (None, [])
    ]
    words += [f"--override={text}" for text in args.override]
    print(slurm.submit(sweep, words, args.slurm, command))


def run(sweep: Sweep, args: flags.FlagValues) -> list:
    """Runs what is left, or the part of it that a SLURM job does, and returns the failures."""
    from liverjax.experiments import run_chains, slurm

    chains = sweep.chains() if args.task is None else slurm.chains_of(sweep, args.task)
    every = args.log_every_seconds
    return run_chains(chains, jobs=args.jobs, devices=args.devices, show=_show, every_seconds=every)


def _show(line: str) -> None:
    print(line, flush=True)


def status(failures: Sequence) -> int:
    """Prints the failures, and returns the exit status: 1 if there are some, else 0."""
    for failure in failures:
        print(f"liverjax: error: exit status {failure.status} of: {failure.command}", file=sys.stderr)
        print(f"liverjax: error: {failure.reason} (see {failure.command.log})", file=sys.stderr)
    return 1 if failures else 0
