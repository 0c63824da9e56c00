"""The pages' own commands run as they stand, top to bottom, in an empty folder, as a reader follows them."""

import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk

from tests.docs import pages

_SCAN = {"shape": (38, 30, 28), "spacing": (8.0, 8.0, 8.0)}
#: Pages that are quick enough for every run of the tests.
_QUICK = ("README.md", "docs/tutorials/config.md")
_SLOW = [name for page in pages.RUN if (name := page.relative_to(pages.ROOT).as_posix()) not in _QUICK]


@pytest.mark.parametrize("name", _QUICK)
def test_runs_quickly(name, tmp_path, user_environment):
    _run(pages.ROOT / name, tmp_path, user_environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", _SLOW)
def test_runs_as_it_stands(name, tmp_path, user_environment, capsys):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = _run(pages.ROOT / name, tmp_path, user_environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    blocks = ", ".join(f"{seconds:.0f}" for seconds in times)
    with capsys.disabled():
        print(f"\n{name}: {sum(times):.0f} s ({blocks}), {busy:.0f} s of processor time")


def _run(page: pathlib.Path, folder: pathlib.Path, environment: dict[str, str]) -> list[float]:
    """Runs the blocks of a page in order, and returns the seconds of each."""
    _put_scans(folder)
    programs = folder / ".bin"
    programs.mkdir()
    for name, words in {"liverjax": "-m liverjax.commands.dispatch", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{environment['PATH']}"
    environment = environment | {"PATH": path, "PYTHONPATH": str(pages.ROOT)}
    languages = ("sh", "python") if page.parent.name == "tutorials" else ("sh",)
    todo = [block for block in pages.blocks(page) if block.language in languages]
    times = []
    for block in todo:
        if block.title:
            (folder / block.title).write_text(block.text)
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        start = time.monotonic()
        done = subprocess.run([*program, block.text], cwd=folder, env=environment, capture_output=True)
        times.append(time.monotonic() - start)
        said = (done.stdout + done.stderr)[-3000:].decode(errors="replace")
        assert done.returncode == 0, f"{block.text}\n{said}"
    return times


def _put_scans(folder: pathlib.Path) -> None:
    """Puts what a reader brings along: scan.nii.gz, and the folder series with the same phantom as DICOM."""
    from liverjax.datasets import make_phantom
    from liverjax.scans import nifti
    from tests.scans.dicom_series import write_series

    scan = make_phantom(0, **_SCAN).image
    nifti.write(folder / "scan.nii.gz", scan)
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan.voxels.T))  # Array axes x, y, z lead to R, A, S.
    image.SetSpacing(scan.spacing.tolist())
    image.SetDirection([-1.0, 0, 0, 0, -1, 0, 0, 0, 1])
    image.SetOrigin((scan.affine[:3, 3] * (-1, -1, 1)).tolist())
    write_series(folder / "series", sitk.Flip(image, (True, True, False)))
