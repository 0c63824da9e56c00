"""Many commands in order: several at a time, what is done skipped, what was interrupted resumed, failures passed over.

Each command leaves a note in its folder when it has succeeded, and is never run again while the note stands. Its output
goes to a log beside the note. A lock that the command's own process holds keeps a second sweep, or one that was started
after a kill, from running it at the same time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
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

from liverjax.errors import ConfigError, Interrupted
from liverjax.files import write_json
from liverjax.signals import StopSignals

_INTERRUPTED = 75
#: Seconds between two looks at locks and signals.
_PAUSE = 0.2


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of liverjax.

    Attributes:
      words: as they are typed after ``liverjax``, without ``--quiet``.
      folder: that it writes to; log, note and lock lie there.
      title: what it is for, to be shown.
    """

    words: tuple[str, ...]
    folder: pathlib.Path
    title: str = dataclasses.field(compare=False)

    def __str__(self) -> str:
        return shlex.join(["liverjax", *self.words])

    @property
    def log(self) -> pathlib.Path:
        """File of what it printed, over all starts."""
        return self.folder / f"{self.words[0]}.log"

    @property
    def note(self) -> pathlib.Path:
        """File that says that it has succeeded."""
        return self.folder / f"{self.words[0]}.done.json"

    @property
    def done(self) -> bool:
        """Whether this very command has succeeded."""
        try:
            return json.loads(self.note.read_text(encoding="utf-8")) == list(self.words)
        except (OSError, ValueError):
            return False


@dataclasses.dataclass(frozen=True)
class Failure:
    """A command that failed: its exit status, and the last line that it printed."""

    command: Command
    status: int
    reason: str


def run(
    units: Sequence[Sequence[Command]],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    show: Callable[[str], None] = print,
) -> list[Failure]:
    """Runs the commands of each unit in order, several units at a time; returns what failed.

    SIGTERM and SIGINT are passed on: trainings save, and the same call goes on with them. A unit with a failure ends
    there, and the others go on.

    Args:
      units: commands that follow one another; a command may be in several units, and is run once.
      jobs: number of units at a time. Each has its share of the CPU cores.
      devices: names for CUDA_VISIBLE_DEVICES, one for each unit at a time; ``jobs`` is their number then.
      show: called with a line of progress at a time.

    Raises:
      Interrupted: a signal came, to this process or to one of the commands.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}, expected 1 or more")
    places = _places(jobs, devices)
    sweep = _Sweep(units, show)
    with StopSignals() as stop:
        threads = [threading.Thread(target=sweep.work, args=place) for place in places]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_PAUSE)
            if stop.received and not sweep.stopping:
                show(f"{stop.received}: the running commands are told to stop")
                sweep.stop()
    if sweep.error:
        raise sweep.error
    if sweep.stopping:
        raise Interrupted(f"{stop.received or 'a signal to a command'}; the same command goes on")
    return sweep.failures


def _places(jobs: int, devices: Sequence[str]) -> list[tuple[set[int], dict[str, str]]]:
    """Returns CPU cores and environment of each unit that runs at the same time."""
    jobs = len(devices) or jobs
    # Where the system cannot bind processes to cores, they share all of them.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares = [set(cores[job::jobs]) or {cores[job % len(cores)]} if cores else set() for job in range(jobs)]
    environments = [{"CUDA_VISIBLE_DEVICES": device} for device in devices] or [{}] * jobs
    return list(zip(shares, environments, strict=True))


class _Sweep:
    """What the threads share, each of which works off units, one after the other."""

    def __init__(self, units: Sequence[Sequence[Command]], show: Callable[[str], None]):
        self.failures: list[Failure] = []
        self.stopping = False
        self.error: BaseException | None = None
        self._waiting = collections.deque(units)
        self._show = show
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen] = set()
        self._number = 0
        self._total = len({command for unit in units for command in unit if not command.done})

    def work(self, cores: set[int], environment: dict[str, str]) -> None:
        """Works off units until none is left; commands inherit this thread's share of the cores."""
        if cores:
            os.sched_setaffinity(0, cores)
        try:
            while not self.stopping:
                with self._lock:
                    if not self._waiting:
                        return
                    unit = self._waiting.popleft()
                for command in unit:
                    if not self._succeeds(command, environment):
                        break
        except BaseException as error:
            self.error = error
            self.stop()

    def stop(self) -> None:
        """Tells the running commands to save and stop."""
        with self._lock:
            self.stopping = True
            for process in self._processes:
                process.terminate()

    def _succeeds(self, command: Command, environment: dict[str, str]) -> bool:
        """Runs a command unless it is done, or has failed in another unit; returns whether it is done."""
        if command.done:
            return True
        with self._locked(command) as lock:
            # Whoever held the lock before may have done it.
            if command.done:
                return True
            if lock is None or any(failure.command == command for failure in self.failures):
                return False
            status, seconds = self._execute(command, environment, lock)
            if status == 0:
                write_json(command.note, list(command.words))
                self._show(f"  done in {seconds:.0f} s: {command.words[0]} {command.title}")
                return True
            if self.stopping or status == _INTERRUPTED:
                self.stop()
                return False
            failure = Failure(command, status, _last_words(command, status))
            self.failures.append(failure)
            self._show(f"  FAILED: {command.words[0]} {command.title}: {failure.reason} (see {command.log})")
            return False

    @contextlib.contextmanager
    def _locked(self, command: Command) -> Iterator[int | None]:
        """Gives the descriptor of the locked folder, or None if a stop came while another process held it."""
        command.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(command.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            told = False
            while not self.stopping:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not told:
                        self._show(f"  waiting for another process at work in {command.folder}")
                    told = True
                    time.sleep(_PAUSE)
                else:
                    yield descriptor
                    return
            yield None
        finally:
            os.close(descriptor)

    def _execute(self, command: Command, environment: dict[str, str], lock: int) -> tuple[int, float]:
        """Runs a command to its end and returns its exit status and the seconds that it took."""
        program = [sys.executable, "-m", "liverjax.commands.dispatch", *command.words, "--quiet"]
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
                    # The lock is held until the last process that has inherited it ends, also when this one is killed.
                    pass_fds=(lock,),
                    # Ctrl-C reaches the sweep alone, which passes it on: a second signal would end a training unsaved.
                    start_new_session=True,
                )
                self._processes.add(process)
            status = process.wait()
            with self._lock:
                self._processes.remove(process)
        return status, time.monotonic() - start


def _last_words(command: Command, status: int) -> str:
    """Returns the last line that a command printed since it was last started, or how it ended without a word."""
    lines = reversed(command.log.read_text(encoding="utf-8", errors="replace").splitlines())
    printed = itertools.takewhile(lambda line: line != f"$ {command}", lines)
    last = next((line for line in printed if line.strip()), "")
    if not last and status < 0:
        return f"ended by {signal.Signals(-status).name}, perhaps for want of memory"
    return last.removeprefix("liverjax: error: ") or f"exit status {status} without a word"
