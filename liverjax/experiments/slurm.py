"""Runs a sweep as jobs of SLURM: one for the stores, an array with one for each training, and one for the table."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from liverjax.errors import ConfigError, LiverjaxError
from liverjax.experiments.plan import Sweep
from liverjax.experiments.runner import Command
from liverjax.files import replacing

#: The script of all jobs. SLURM's signal before the time limit is passed on; what was saved then is queued again, of an
#: array only the task itself (the number of a task may be that of the whole array).
_JOB = """#!/bin/bash
cd {folder}
{program} --task="${{1:-$SLURM_ARRAY_TASK_ID}}" &
trap 'kill -TERM $!' TERM
wait $!; status=$?
if [ $status -gt 128 ]; then wait $!; status=$?; fi
if [ $status -eq 75 ]; then
    job="${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}}}"
    scontrol requeue "${{job:-$SLURM_JOB_ID}}"
fi
exit $status
"""


def submit(sweep: Sweep, words: Sequence[str], options: str, command: Sequence[str] = ("sweep",)) -> str:
    """Submits the jobs that are left to run, and returns what was submitted in a line.

    Args:
      sweep: as planned.
      words: as they are typed after ``command``; each job adds its ``--task``.
      options: of sbatch, as they are typed.
      command: the words after ``liverjax`` that plan this sweep.

    Raises:
      LiverjaxError: sbatch failed.
    """
    folder = sweep.folder / "slurm"
    script = folder / "job.sh"
    program = shlex.join([sys.executable, "-m", "liverjax.commands.dispatch", *command, *words])
    with replacing(script) as temporary:
        temporary.write_text(_JOB.format(folder=shlex.quote(os.getcwd()), program=program), encoding="utf-8")
    common = [f"--job-name={sweep.name}", f"--output={folder}/%j.out", "--requeue", "--signal=B:TERM@120"]
    common += shlex.split(options)

    def job(*more: str, task: str = "") -> str:
        sbatch = ["sbatch", "--parsable", *common, *more, str(script), task]
        try:
            done = subprocess.run(sbatch, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            raise LiverjaxError("sbatch is not on the PATH, expected SLURM's command") from None
        if done.returncode:
            raise LiverjaxError(f"sbatch failed with exit status {done.returncode}: {shlex.join(sbatch)}")
        return done.stdout.strip().partition(";")[0]

    chains = sweep.chains()
    left = [index for index, chain in enumerate(chains) if not all(command.done for command in chain)]
    after = []
    if left:
        stores = job(task="stores")
        array = job(f"--array={','.join(map(str, left))}", f"--dependency=afterok:{stores}")
        after = [f"--dependency=afterany:{array}"]
    table = job(*after, task="table")
    return f"{len(left)} of {len(chains)} trainings are left; the table is job {table}, logs in {folder}"


def chains_of(sweep: Sweep, task: str) -> list[tuple[Command, ...]]:
    """Returns the chains of a job: those of the stores, none for the table, or that of a training by its number.

    Raises:
      ConfigError: there is no such task.
    """
    chains = sweep.chains()
    if task == "stores":
        return list(dict.fromkeys(chain[:1] for chain in chains))
    if task == "table":
        return []
    if not task.isdecimal() or int(task) >= len(chains):
        raise ConfigError(f"task is {task!r}, expected stores, table, or 0 to {len(chains) - 1}")
    return [chains[int(task)]]
