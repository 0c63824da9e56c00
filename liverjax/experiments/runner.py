"""Runs chains of commands, several at a time: skips what is done, resumes what was interrupted, outlives failures.

A command that has succeeded leaves a note in its folder, and is not run again while the note is true: the same words,
the same inputs, the same version. Its output goes to a log beside the note. A lock that its process inherits keeps a
second sweep, or one that was started after a kill, from running it at the same time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from liverjax import __version__
from liverjax.errors import ConfigError, Interrupted, LockedError
from liverjax.files import locked, write_json
from liverjax.progress import EVERY_SECONDS
from liverjax.signals import StopSignals

_INTERRUPTED = 75
#: Seconds between two attempts at a lock, and between two checks for signals.
_PAUSE = 0.2


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of liverjax.

    Attributes:
      words: as they are typed after ``liverjax``.
      folder: that it writes to; log, note and lock lie there.
      title: what it is for, to be shown.
      inputs: what stands for the content of the files that it reads; if it changes, the command is run again.
    """

    words: tuple[str, ...]
    folder: pathlib.Path
    title: str = dataclasses.field(compare=False)
    inputs: str = ""

    def __str__(self) -> str:
        return shlex.join(["liverjax", *self.words])

    @property
    def log(self) -> pathlib.Path:
        """File of its output, over all starts."""
        return self.folder / f"{self.words[0]}.log"

    @property
    def note(self) -> pathlib.Path:
        """File that records its success."""
        return self.folder / f"{self.words[0]}.done.json"

    @property
    def done(self) -> bool:
        """Whether this very command has succeeded, with these inputs and by this version."""
        try:
            return json.loads(self.note.read_text(encoding="utf-8")) == self._facts()
        except (OSError, ValueError, RecursionError):
            return False

    def write_note(self) -> None:
        """Records that it has succeeded."""
        write_json(self.note, self._facts())

    def _facts(self) -> dict[str, object]:
        return {"command": list(self.words), "inputs": self.inputs, "liverjax": __version__}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A command that failed: its exit status, and the last line that it printed."""

    command: Command
    status: int
    reason: str


def run_chains(
    chains: Sequence[Sequence[Command]],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    show: Callable[[str], None] = print,
    every_seconds: float = EVERY_SECONDS,
) -> list[Failure]:
    """Runs the commands of each chain in order, several chains at a time; returns what failed.

    SIGTERM and SIGINT are passed on: trainings save, and the same call resumes them. A chain ends with a command that
    fails; the others go on.

    Args:
      chains: commands that follow one another; a command may be in several chains, and is run once.
      jobs: number of chains at a time. Each has its share of the CPU cores.
      devices: names for CUDA_VISIBLE_DEVICES, one for each chain at a time; ``jobs`` is then their number.
      show: called with one line of progress at a time.
      every_seconds: how often it is called with how far the running commands are.

    Raises:
      Interrupted: a signal came, to this process or to one of the commands.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}, expected 1 or more")
    workers = _Workers(chains, show)
    with StopSignals() as stop:
        threads = [threading.Thread(target=workers.work, args=share) for share in _shares(jobs, devices)]
        for thread in threads:
            thread.start()
        shown = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_PAUSE)
            if time.monotonic() - shown >= every_seconds:
                shown = time.monotonic()
                workers.show_running()
            if stop.received and not workers.stopping:
                show(f"{stop.received}: stopping the running commands")
                workers.stop()
    if workers.error:
        raise workers.error
    if workers.stopping:
        raise Interrupted(f"{stop.received or 'a signal to a command'}; the same command resumes")
    return workers.failures


def _shares(jobs: int, devices: Sequence[str]) -> list[tuple[set[int], dict[str, str]]]:
    """Returns the CPU cores and the environment of each chain that runs at the same time."""
    jobs = len(devices) or jobs
    # Where the system cannot bind processes to cores, they share all of them.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares = [set(cores[job::jobs]) or {cores[job % len(cores)]} if cores else set() for job in range(jobs)]
    environments = [{"CUDA_VISIBLE_DEVICES": device} for device in devices] or [{}] * jobs
    return list(zip(shares, environments, strict=True))


class _Workers:
    """What the threads share, each of which runs one chain after the other."""

    def __init__(self, chains: Sequence[Sequence[Command]], show: Callable[[str], None]):
        self.failures: list[Failure] = []
        self.stopping = False
        self.error: BaseException | None = None
        self._waiting = collections.deque(chains)
        self._show = show
        self._lock = threading.Lock()
        self._running: dict[subprocess.Popen[bytes], Command] = {}
        self._number = 0
        self._total = len({command for chain in chains for command in chain if not command.done})

    def work(self, cores: set[int], environment: dict[str, str]) -> None:
        """Runs chains until none is left; commands inherit this thread's share of the cores."""
        if cores:
            os.sched_setaffinity(0, cores)
        try:
            while not self.stopping:
                with self._lock:
                    if not self._waiting:
                        return
                    chain = self._waiting.popleft()
                for command in chain:
                    if not self._succeeds(command, environment):
                        break
        except BaseException as error:
            self.error = error
            self.stop()

    def stop(self) -> None:
        """Has the running commands save and stop."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.terminate()

    def show_running(self) -> None:
        """Shows the newest line of each running command's log."""
        with self._lock:
            running = [*self._running.values()]
        for command in running:
            if line := next(_printed(command), ""):
                self._show(f"  {command.title}: {line}")

    def _succeeds(self, command: Command, environment: dict[str, str]) -> bool:
        """Runs a command unless it is done, or has failed in another chain; returns whether it is done."""
        if command.done:
            return True
        with contextlib.ExitStack() as stack:
            lock = self._lock_of(command, stack)
            # The process that held the lock before may have run it.
            if command.done:
                return True
            if lock is None or any(failure.command == command for failure in self.failures):
                return False
            status, seconds = self._execute(command, environment, lock)
            if status == 0:
                command.write_note()
                self._show(f"  done in {seconds:.0f} s: {command.words[0]} {command.title}")
                return True
            if self.stopping or status == _INTERRUPTED:
                self.stop()
                return False
            failure = Failure(command, status, _reason(command, status))
            self.failures.append(failure)
            self._show(f"  FAILED: {command.words[0]} {command.title}: {failure.reason} (see {command.log})")
            return False

    def _lock_of(self, command: Command, stack: contextlib.ExitStack) -> int | None:
        """Waits for the lock of a command's folder; returns its descriptor, or None if a stop came first.

        A training locks its folder itself, with a file of another name: this lock is held around it.
        """
        waiting = False
        while not self.stopping:
            try:
                return stack.enter_context(locked(command.folder / ".sweep.lock"))
            except LockedError:
                if not waiting:
                    self._show(f"  waiting: another command is running in {command.folder}")
                waiting = True
                time.sleep(_PAUSE)
        return None

    def _execute(self, command: Command, environment: dict[str, str], lock: int) -> tuple[int, float]:
        """Runs a command to its end and returns its exit status and the seconds that it took."""
        program = [sys.executable, "-m", "liverjax.commands.dispatch", *command.words]
        start = time.monotonic()
        with open(command.log, "a", encoding="utf-8") as log:
            with self._lock:
                if self.stopping:
                    return _INTERRUPTED, 0.0
                log.write(f"$ {command}\n")
                log.flush()
                self._number += 1
                self._show(f"[{self._number}/{self._total}] {command.words[0]} {command.title}")
                process = subprocess.Popen(
                    program,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **environment},
                    # The lock is held until the last process that inherited it ends, also if this one is killed.
                    pass_fds=(lock,),
                    # Ctrl-C reaches only the sweep, which passes it on: a second signal would end a training unsaved.
                    start_new_session=True,
                )
                self._running[process] = command
            status = process.wait()
            with self._lock:
                del self._running[process]
        return status, time.monotonic() - start


def _reason(command: Command, status: int) -> str:
    """Returns the last line that a command printed since its last start, or how it ended if it printed none."""
    if status < 0:
        why = ", perhaps for lack of memory" if status == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-status).name}{why}"
    last = next(_printed(command), "")
    return last.removeprefix("liverjax: error: ") or f"exit status {status}, without a message"


def _printed(command: Command) -> Iterator[str]:
    """Gives the lines that a command printed since its last start, the newest first."""
    lines = reversed(command.log.read_text(encoding="utf-8", errors="replace").splitlines())
    for line in itertools.takewhile(lambda line: line != f"$ {command}", lines):
        if line.strip():
            yield line
