"""How far work is: a bar on a terminal, lines at their times elsewhere."""

import io
import sys

import pytest

from liverjax import progress
from liverjax.progress import ProgressLine, followed


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes only when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_lines_come_at_their_times_with_pace_time_left_and_numbers(clock, capsys):
    with ProgressLine("evaluate", 8, "case") as line:
        for number in range(8):
            clock(20)
            line.numbers["Dice"] = f"0.9{number}"
            line.advance()
    # One after 40 s, 80 s, 120 s; the last at the end. The first case is not counted for the pace.
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: case 2 of 8, 20.0 s/case, 02:00 left, Dice 0.91",
        "evaluate: case 4 of 8, 20.0 s/case, 01:20 left, Dice 0.93",
        "evaluate: case 6 of 8, 20.0 s/case, 00:40 left, Dice 0.95",
        "evaluate: case 8 of 8, 20.0 s/case, 02:40 in all, Dice 0.97",
    ]


def test_what_compiles_first_does_not_slow_the_pace(clock, capsys):
    with ProgressLine("train axial", 1001, "step") as line:
        clock(100)  # It compiles.
        line.advance(1, 1001)
        for step in range(2, 402):
            clock(0.125)
            line.advance(step, 1001)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("train axial: step 1 of 1001, 100.0 s/step, ")
    assert second == "train axial: step 241 of 1001, 8.0 steps/s, 01:35 left"


def test_resumed_work_counts_on_and_its_pace_is_that_of_this_call(clock, capsys):
    with ProgressLine("train axial", 100, "step", done=90) as line:
        for step in range(91, 101):
            clock(30)
            line.advance(step)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train axial: step 91 of 100, 30.0 s/step, 04:30 left" and len(lines) == 10


def test_short_work_prints_nothing_and_quiet_work_neither(clock, capsys):
    assert list(followed([1, 2, 3], "check", "case")) == [1, 2, 3]
    for _ in followed([1, 2, 3], "check", "case", quiet=True):
        clock(100)
    assert list(followed([], "check", "case")) == []
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_one_line_that_is_rewritten(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    monkeypatch.delenv("TERM", raising=False)
    with ProgressLine("evaluate", 2, "case") as line:
        line.numbers["Dice"] = "0.912"
        line.advance()
        line.print_error("liverjax: error: it is gone")
        line.advance()
    shown = terminal.getvalue()
    assert "2/2" in shown and "Dice 0.912" in shown and shown.count("\n") == 2
    assert "\rliverjax: error: it is gone\n" in shown  # At the start of a line.
    monkeypatch.setenv("TERM", "dumb")  # One that cannot go back.
    assert not progress.has_terminal()


def test_nothing_is_printed_where_standard_error_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with ProgressLine("evaluate", 1, "case") as line:
        line.advance()
    line.print_error("nobody reads this")
