"""Remedies of sweeps on SLURM: where `sbatch` is found, and which tasks there are."""

import os

import pytest

from liverjax.errors import ConfigError, InputError, LiverjaxError
from liverjax.experiments import plan_sweep, slurm
from liverjax.experiments.runner import run_chains


@pytest.fixture
def sweep(phantom_scans, tmp_path):
    return plan_sweep("loss", "demo", phantom_scans, tmp_path / "work")


def test_jobs_are_submitted_once_sbatch_is_on_the_path(sweep, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LiverjaxError, match="sbatch is not on the PATH, expected SLURM's command"):
        slurm.submit(sweep, [], "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{path}")
    for script, found in (("exit 1", None), ("echo 3", "the table is job 3")):
        (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "sbatch").chmod(0o755)
        if found is None:
            with pytest.raises(LiverjaxError, match="sbatch failed with exit status 1: sbatch --parsable"):
                slurm.submit(sweep, [], "")
        else:
            assert found in slurm.submit(sweep, [], "")


def test_tasks_and_jobs_are_those_that_the_messages_name(sweep):
    chains = sweep.chains()
    with pytest.raises(
        ConfigError, match=f"task is 'tabel', expected stores, table, or 0 to {len(chains) - 1}"
    ):
        slurm.chains_of(sweep, "tabel")
    assert slurm.chains_of(sweep, "table") == []
    assert slurm.chains_of(sweep, "stores") and slurm.chains_of(sweep, str(len(chains) - 1)) == chains[-1:]
    with pytest.raises(ConfigError, match="jobs is 0, expected 1 or more"):
        run_chains([], jobs=0, show=print)
    assert run_chains([], jobs=1, show=print) == []


def test_a_metric_is_the_one_that_is_meant(phantom_scans, tmp_path):
    with pytest.raises(InputError, match="metric 'dize' does not exist; did you mean 'dice'"):
        plan_sweep("loss", "demo", phantom_scans, tmp_path / "work", metric="dize")
    assert plan_sweep("loss", "demo", phantom_scans, tmp_path / "work", metric="dice").metric == "dice"
