"""The demo, as a newcomer starts it."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

_COMMAND = [sys.executable, "-m", "liverjax.commands.dispatch", "demo"]
_SHORT = ["--config.train.steps=8", "--config.train.warmup_steps=1", "--config.train.validation_slices=8"]


def test_the_demo_goes_all_the_way_and_goes_on_when_it_is_started_again(tmp_path, user_environment):
    command = [*_COMMAND, "-o", str(tmp_path / "demo"), *_SHORT]
    # Not strict: a progress bar that ends within a letter is no failure.
    printed: dict[str, Any] = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
    done = subprocess.run(command, env=user_environment, **printed)
    assert done.returncode == 0, done.stderr
    assert "devices: " in done.stdout and f"report: {tmp_path / 'demo' / 'report.html'}" in done.stdout
    summary = json.loads((tmp_path / "demo" / "scores" / "summary.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in summary["metric_per_case"]] == [
        f"phantom_0{n}" for n in ("00", "04", "08", "12")
    ]
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 18 and "Does the validation Dice rise?" in page
    assert "http" not in page.split("</style>")[1]
    # A model of real scans finds the liver of a phantom: 0.908 to 0.942 on the 16, 0.935 on this one.
    found = re.search(
        r"^shipped model \w+, .*: liver Dice (\d\.\d{3}) of phantom_000$", done.stdout, re.MULTILINE
    )
    assert found and float(found[1]) > 0.85
    best = tmp_path / "demo" / "run" / "axial" / "best" / "8" / "checksums.json"
    written = best.stat().st_mtime_ns

    again = subprocess.run([*command, "--quiet"], env=user_environment, **printed)
    assert again.returncode == 0 and again.stdout == "" and best.stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_demo_finds_the_liver_of_unseen_phantoms(tmp_path):
    subprocess.run([*_COMMAND, "-o", str(tmp_path / "demo"), "--quiet"], check=True)
    summary = json.loads((tmp_path / "demo" / "scores" / "summary.json").read_text(encoding="utf-8"))
    dice = [case["metrics"]["(1, 2)"]["Dice"] for case in summary["metric_per_case"]]
    assert len(dice) == 4 and sum(dice) / 4 >= 0.90
