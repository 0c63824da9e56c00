"""What a run prints: a bar on a terminal, lines elsewhere, errors only if it is to be quiet."""

import contextlib
import dataclasses
import io
import re

import pytest

from liverjax.training.loop import train


@pytest.fixture(scope="module")
def config(tiny_config):
    options = dataclasses.replace(tiny_config.train, log_every=2)
    return dataclasses.replace(tiny_config, views=("axial", "coronal"), train=options)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_a_line_for_each_record(config, tmp_path, capsys):
    train(config, tmp_path)
    printed = capsys.readouterr()
    assert printed.out.startswith("devices: ")
    number = r"\d[\d.e-]*"
    for view in config.views:
        lines = [line for line in printed.err.splitlines() if line.startswith(f"{view}: ")]
        for step, line in zip((2, 2, 4, 4), lines, strict=True):
            values = rf"loss {number}, rate {number}, {number} slices/s, \d\d:\d\d left"
            assert re.fullmatch(rf"{view}: step {step} of 4, ({values}|validation Dice {number})", line), line
    assert "\r" not in printed.err


def test_a_terminal_gets_a_bar(config, tmp_path):
    with contextlib.redirect_stderr(_Terminal()) as printed:
        train(config, tmp_path)
    assert "train axial" in printed.getvalue() and "4/4" in printed.getvalue()
    assert "rate" not in printed.getvalue()


def test_quiet_prints_nothing_and_a_closed_standard_error_does_no_harm(config, tmp_path, capsys):
    train(config, tmp_path / "quiet", quiet=True)
    assert capsys.readouterr() == ("", "")
    with contextlib.redirect_stderr(None):
        assert train(config, tmp_path / "closed")["axial"].finished
