"""Progress of long work: on a terminal one line that is rewritten, elsewhere a line of text now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
#: Seconds between two lines of the same work where there is no terminal.
EVERY_SECONDS = 30.0
_every = EVERY_SECONDS


def print_every(seconds: float) -> None:
    """Sets how many seconds of work, from 0, lie between two lines of text. It holds for the whole process."""
    global _every
    _every = seconds


def has_terminal() -> bool:
    """Returns whether standard error rewrites a line: a terminal, or a notebook, which draws bars as well."""
    if sys.stderr is None:
        return False
    # Loaded it may be anywhere; in a notebook it also runs.
    shell = (
        getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if "ipykernel" in sys.modules
        else None
    )
    return shell is not None or (sys.stderr.isatty() and os.environ.get("TERM") != "dumb")


class ProgressLine:
    """How far a piece of work is, on standard error: count, pace, time left, and some numbers of the moment.

    On a terminal this is a bar. In the log of a batch system or a pod it is a line of text, at most one in the seconds
    that `print_every` sets, and one at the end if there was one before; no line is rewritten there.

    Attributes:
      numbers: what is shown beside the count, by name, as ``{"Dice": "0.941"}``.
    """

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, quiet: bool = False):
        """Starts the clock.

        Args:
          title: what is done.
          total: how many units there are.
          unit: one of them, such as "case".
          done: units that earlier calls did.
          quiet: show nothing.
        """
        self.numbers: dict[str, str] = {}
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = done
        self._start = self._printed_at = time.monotonic()
        self._paced_from = done, self._start
        self._printed, shows_bar = False, has_terminal()
        self._prints = not quiet and not shows_bar and sys.stderr is not None
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=unit,
            disable=quiet or not shows_bar,
            dynamic_ncols=True,
        )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, done: int | None = None, total: int | None = None) -> None:
        """Counts one more unit, or up to ``done`` of ``total``; prints a line if it is time."""
        before, self._done = self._done, self._done + 1 if done is None else done
        self._total = self._total if total is None else total
        if before == self._first:  # What compiled, and says nothing of the pace of the others.
            self._paced_from = self._done, time.monotonic()
        self._bar.total = self._total
        self._bar.set_postfix_str(self._shown_numbers(), refresh=False)
        self._bar.update(self._done - before)
        ends = self._done >= self._total and self._printed
        if ends or time.monotonic() - self._printed_at >= _every:
            self.print_now()

    def print_now(self, more: str = "") -> None:
        """Prints a line, unless there is a bar: what ``more`` says, or pace, time left and numbers."""
        self._printed, self._printed_at = True, time.monotonic()
        if self._prints:
            parts = [f"{self._unit} {self._done} of {self._total}", more or self._pace()]
            parts += [] if more else [self._shown_numbers()]
            print(f"{self._title}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)

    def print_error(self, line: str) -> None:
        """Prints a line on standard error, above the bar if there is one."""
        if self._bar.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)

    def _pace(self) -> str:
        """Returns how fast it goes, and the time that is left."""
        now = time.monotonic()
        if self._done == self._first:
            return f"after {tqdm.format_interval(now - self._start)}"
        first, start = self._paced_from
        if self._done == first:
            first, start = self._first, self._start
        each = max(now - start, 1e-9) / (self._done - first)
        pace = f"{1 / each:.1f} {self._unit}s/s" if each < 1 else f"{each:.1f} s/{self._unit}"
        if self._done >= self._total:
            return f"{pace}, {tqdm.format_interval(now - self._start)} in all"
        return f"{pace}, {tqdm.format_interval(each * (self._total - self._done))} left"

    def _shown_numbers(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.numbers.items())


def followed(items: Sequence[_Item], title: str, unit: str, *, quiet: bool = False) -> Iterator[_Item]:
    """Gives the items one after the other, and shows how many are done (`ProgressLine`)."""
    with ProgressLine(title, len(items), unit, quiet=quiet) as line:
        for item in items:
            yield item
            line.advance()
