"""Scores by several processes, and what ends them."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from liverjax.errors import LiverjaxError
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.volume import Volume

_CALL = "liverjax.evaluate('masks', 'masks', metrics=['dice'], processes={processes}, quiet=True)"
_FOUND = "print({call}.summary['scores']['liver']['dice_per_case'])"
_GUARD = "if __name__ == '__main__':\n    "


class _Deadly:
    """Ends the process that unpickles it."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    ("deadly", "message"),
    [
        (_Deadly(os._exit, 3), "died with exit status 3"),
        (_Deadly(signal.raise_signal, signal.SIGKILL), "was killed, .* expected fewer --processes"),
        (_Deadly(signal.raise_signal, signal.SIGABRT), "died by SIGABRT"),
    ],
)
def test_a_process_that_dies_is_reported_with_its_end(deadly, message):
    with pytest.raises(LiverjaxError, match=f"one of 2 scoring processes {message}"):
        cohort._score([deadly], ("dice",), ("liver",), processes=2, quiet=True)


@pytest.fixture
def masks(tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        nifti.write(
            tmp_path / "masks" / f"{name}.nii", Volume(np.ones((3, 3, 3), np.uint8), np.diag([2, 2, 2, 1]))
        )
    return tmp_path


def _run(folder, *, guard, processes, stdin=False):
    code = "import liverjax\n" + guard + _FOUND.format(call=_CALL.format(processes=processes)) + "\n"
    (folder / "script.py").write_text(code)
    with open(folder / "script.py") as file:
        return subprocess.run(
            [sys.executable, *([] if stdin else ["script.py"])],
            stdin=file if stdin else None,
            cwd=folder,
            capture_output=True,
            text=True,
        )


def test_a_script_without_a_main_guard_is_told_so_and_runs_with_either_remedy(masks):
    plain = _run(masks, guard="", processes=2)
    assert plain.returncode == 1 and plain.stderr.count("Traceback") == 1
    last = plain.stderr.splitlines()[-1]
    assert "came to evaluate() again while it imported" in last and "script.py" in last
    assert 'if __name__ == "__main__":, or processes=1' in last
    for remedy in ({"guard": _GUARD, "processes": 2}, {"guard": "", "processes": 1}):
        assert _run(masks, **remedy).stdout == "1.0\n"


def test_a_script_on_standard_input(masks):
    done = _run(masks, guard="", processes=2, stdin=True)
    assert done.stdout == "1.0\n" or "is no file, expected a program in a file, or processes=1" in done.stderr
    assert _run(masks, guard="", processes=1, stdin=True).stdout == "1.0\n"
