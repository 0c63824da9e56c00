"""``RUN/report.html`` while the run goes on: never in the way of training, and never for more than 1 % of its time."""

from __future__ import annotations

import logging
import pathlib
import time

from liverjax.report.training import training_report
from liverjax.training.distributed import is_first_process

_LOG = logging.getLogger("liverjax")
#: Seconds before the first report of a run that goes on; after each, so many times what it took before the next one.
_FIRST, _PAUSE = 30.0, 100


class RunReport:
    """The report of a run; only the first process writes it."""

    def __init__(self, workdir: pathlib.Path):
        self._workdir = workdir
        self._next, self._stale, self._failed = time.monotonic() + _FIRST, False, False

    def refresh(self) -> None:
        """Writes the report anew, if the last one is old enough; call it when there is something new."""
        self._stale = True
        if time.monotonic() >= self._next:
            self._write()

    def finish(self) -> None:
        """Writes the report if something new is not in it yet, or if there is none."""
        if self._stale or not (self._workdir / "report.html").exists():
            self._write()

    def _write(self) -> None:
        if not is_first_process():
            return
        began = time.monotonic()
        try:
            training_report(self._workdir)
            self._stale = False
        except Exception as error:
            # A full disk, a damaged picture: what was trained is worth more than its report.
            if not self._failed:
                _LOG.warning(
                    "%s: could not be written (%s); training goes on", self._workdir / "report.html", error
                )
            self._failed = True
        self._next = time.monotonic() + _PAUSE * (time.monotonic() - began)
