"""What a run prints: a bar on a terminal, lines elsewhere, errors only if it is to be quiet."""

import contextlib
import dataclasses
import io
import re

import pytest

from liverjax.progress import EVERY_SECONDS, print_every
from liverjax.training.loop import train


@pytest.fixture(scope="module")
def config(tiny_config):
    options = dataclasses.replace(tiny_config.train, log_every=2)
    return dataclasses.replace(tiny_config, views=("axial", "coronal"), train=options)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def every_step():
    print_every(0)
    yield
    print_every(EVERY_SECONDS)


def test_a_file_gets_lines_with_pace_time_left_and_dice(config, tmp_path, capsys, every_step):
    train(config, tmp_path)
    printed = capsys.readouterr()
    assert printed.out.startswith("devices: ")
    number = r"\d[\d.e-]*"
    for view in config.views:
        lines = [line for line in printed.err.splitlines() if line.startswith(f"train {view}: ")]
        pace = rf"({number} steps/s|{number} s/step)"
        numbers = rf"loss {number}, learning rate {number}(, Dice {number})?"
        for step, line in zip((1, 2, 2, 3, 4, 4), lines, strict=True):
            if "validation" in line:
                assert re.fullmatch(rf"train {view}: step {step} of 4, validation Dice {number}", line), line
            else:
                left = "in all" if step == 4 else "left"
                more = "" if step == 1 else f", {numbers}"
                assert re.fullmatch(rf"train {view}: step {step} of 4, {pace}, \d\d:\d\d {left}{more}", line)
        assert [("validation" in line, "Dice" in line) for line in lines].count((False, True)) == 2
    assert "\r" not in printed.err


def test_a_file_gets_validations_alone_where_work_is_short(config, tmp_path, capsys):
    train(dataclasses.replace(config, views=("axial",)), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [
        "train axial: step 2 of 4", "train axial: step 4 of 4", "train axial: step 4 of 4"
    ]  # fmt: skip
    assert "in all" in lines[-2]


def test_a_terminal_gets_a_bar(config, tmp_path):
    with contextlib.redirect_stderr(_Terminal()) as printed:
        train(config, tmp_path)
    assert "train axial" in printed.getvalue() and "4/4" in printed.getvalue()
    assert "learning rate" in printed.getvalue() and "Dice" in printed.getvalue()
    assert printed.getvalue().count("\n") == len(config.views)


def test_quiet_prints_nothing_and_a_closed_standard_error_does_no_harm(config, tmp_path, capsys):
    train(config, tmp_path / "quiet", quiet=True)
    assert capsys.readouterr() == ("", "")
    with contextlib.redirect_stderr(None):
        assert train(config, tmp_path / "closed")["axial"].finished
