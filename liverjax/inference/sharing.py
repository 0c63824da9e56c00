"""Cases shared by processes, of one machine or many, that predict with the same command into one folder.

A process claims a case by a lock (`flock`) of a file in ``OUTPUT/.sharing/claims``. The system frees the lock of a
process that has ended, however it ended, and another takes the case over. A claim file that is there without a lock is
of a case that was begun and not finished; each line of it is a process that began. What a process has done it appends
to a journal of its own, so that the manifest of the last one lists the cases of those that were killed, too. The last
process removes the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from liverjax.checkpoint.manifest import environment
from liverjax.datasets.case import Case
from liverjax.datasets.layouts import natural_key
from liverjax.errors import InputError, LiverjaxError
from liverjax.files import make_folder
from liverjax.inference.cascade import Cascade
from liverjax.inference.outputs import is_mask_file
from liverjax.inference.segmenter import Segmenter
from liverjax.objects.forest import ARRAYS

if TYPE_CHECKING:
    from liverjax.inference.predict import Outcome

_LOG = logging.getLogger("liverjax")

#: The folder in the output.
FOLDER = ".sharing"
#: States of a case in which it is not this process's to predict.
DONE, TAKEN = "done", "taken"
#: So many processes may end while they predict a case; one that takes too much memory would end them all in turn.
MOST_STARTS = 3
#: Seconds between two looks at cases that others predict.
POLL_S = 2.0
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class Sharing:
    """The part of one process in cases that several predict. Use as a context manager."""

    def __init__(self, output: str | os.PathLike, cases: Sequence[Case], settings: str):
        """Begins to take part.

        Args:
          output: folder of the masks.
          cases: those that are shared.
          settings: what the masks depend on, as `fingerprint` returns it.

        Raises:
          InputError: the output is a file, or masks of these cases are being written there with other settings.
        """
        if is_mask_file(output):
            raise InputError(
                f"--share: {output} is the file of one mask, expected a folder that several processes fill"
            )
        self._folder = pathlib.Path(output) / FOLDER
        self._cases, self._settings = cases, settings
        self._worker = f"process {os.getpid()} on {socket.gethostname()}"
        self._alone = threading.Lock()
        self._held: set[pathlib.Path] = set()
        self._taking_part = self._join()
        name = f"{settings}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._journal = self._folder / name
        ids = {case.id for case in cases}
        if others := [record["id"] for record in self._records(ours=False) if record["id"] in ids]:
            os.close(self._taking_part)
            raise InputError(
                f"{self._folder}: masks here are of another model or other options, such as that of case {others[0]}, "
                "expected one command in all processes; choose another --output, or remove this folder when no "
                "process works here"
            )

    def __enter__(self) -> Sharing:
        return self

    def __exit__(self, *_) -> None:
        """Ends to take part: what was begun and will not be finished counts as not begun."""
        with self._alone:
            for place in self._held:
                place.unlink(missing_ok=True)
            self._held.clear()
        # The last process has no one beside it.
        with contextlib.suppress(OSError):
            if _lock(self._taking_part, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._taking_part)

    def _join(self) -> int:
        """Returns the descriptor of a lock that all who take part hold together."""
        path = self._folder / "processes.lock"
        while True:
            make_folder(self._folder / "claims")
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # The last process has removed the folder meanwhile.
                continue
            try:
                if not _lock(descriptor, fcntl.LOCK_SH):
                    _LOG.warning(
                        "%s: this file system has no locks: processes may predict the same cases; give each a --shard",
                        self._folder,
                    )
                if _is_at(descriptor, path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def outcomes(self, predict: Callable[[Sequence[Case]], Generator[Outcome]]) -> Iterator[Outcome]:
        """Yields the outcome of every case, of those that others predict after theirs.

        Args:
          predict: predicts cases as `predict_cases` does, with this object as ``share``.
        """
        left, told = self._cases, False
        while left:
            taken = []
            with contextlib.closing(predict(left)) as outcomes:
                for outcome in outcomes:
                    if outcome.status == TAKEN:
                        taken.append(outcome.case)
                    else:
                        yield outcome
            left = taken
            if left and not told:
                _LOG.warning(
                    "waiting for %d cases that other processes predict, such as %s", len(left), left[0].id
                )
                told = True
            if left:
                time.sleep(POLL_S)

    @contextlib.contextmanager
    def claim(self, mask: pathlib.Path, scan: pathlib.Path) -> Iterator[str]:
        """Holds the claim to a case, if it is to be had.

        Args:
          mask: where its mask is, or would be.
          scan: for the message.

        Yields:
          "" if the case is this process's; `DONE` if its mask is there; `TAKEN` if another process predicts it.

        Raises:
          LiverjaxError: too many processes have ended while they predicted it.
        """
        place = self._folder / "claims" / mask.name
        if mask.exists() and not place.exists():
            yield DONE
            return
        descriptor = self._open_locked(place)
        if descriptor is None:
            yield TAKEN
            return
        try:
            before = os.read(descriptor, 10_000).decode(errors="replace").splitlines()
            if mask.exists() and not before:
                place.unlink(missing_ok=True)
                yield DONE
                return
            if len(before) >= MOST_STARTS:
                raise LiverjaxError(
                    f"{scan}: {len(before)} processes ended while they predicted it, the last was {before[-1]}, "
                    "expected one to finish it in the memory and time that it has; run the command again with more of "
                    "them"
                )
            with self._alone:
                self._held.add(place)
            os.write(descriptor, f"{self._worker}\n".encode())
            try:
                yield ""
            finally:
                with self._alone:
                    if place in self._held:
                        place.unlink(missing_ok=True)
                        self._held.discard(place)
        finally:
            os.close(descriptor)

    def _open_locked(self, place: pathlib.Path) -> int | None:
        """Returns the descriptor of a claim file whose lock is held by it, or None if another has the lock."""
        while True:
            make_folder(
                place.parent
            )  # Where locks do not reach other hosts, the last process of one removes it.
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, place):  # Its holder may have removed it since it was opened.
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def note(self, record: dict[str, Any], mask: pathlib.Path) -> None:
        """Appends the record of a case that this process has finished to its journal."""
        facts = {**record, "worker": self._worker}
        line = json.dumps({"modified_ns": mask.stat().st_mtime_ns, "record": facts}, allow_nan=False)
        make_folder(self._folder)
        with self._alone, open(self._journal, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextlib.contextmanager
    def ending(self, records: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Gives the records of all processes, while no other process is in this block.

        Args:
          records: this process's own. Those of masks that it skipped are replaced by those of the process that wrote
            them.
        """
        make_folder(self._folder)
        descriptor = os.open(self._folder / "manifest.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            found = {record["id"]: record for record in self._records(ours=True)}
            own = {record["id"]: record for record in records}
            for id, record in own.items():
                if record["status"] == "failed" or id not in found:
                    found[id] = record
            strangers = [
                r["id"] for r in self._records(ours=False) if own.get(r["id"], {}).get("status") == "skipped"
            ]
            if strangers:
                _LOG.warning(
                    "%d masks were written meanwhile with another model or other options, such as that of case %s; the "
                    "manifest says which",
                    len(strangers), strangers[0],
                )  # fmt: skip
            ours = {case.id for case in self._cases}
            yield [found[id] for id in sorted(found, key=natural_key) if id in ours]
        finally:
            os.close(descriptor)

    def _records(self, ours: bool) -> Iterator[dict[str, Any]]:
        """Yields what journals say of masks that are as they were written, with these settings or with others."""
        for journal in sorted(self._folder.glob("*.jsonl")):
            if journal.name.startswith(f"{self._settings}-") is not ours:
                continue
            for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
                # A process that was killed leaves a line that is cut short.
                with contextlib.suppress(ValueError, LookupError, TypeError, OSError):
                    facts = json.loads(line)
                    if os.stat(facts["record"]["mask"]).st_mtime_ns == facts["modified_ns"]:
                        yield facts["record"]


def fingerprint(model: Segmenter | Cascade, *options: str | float) -> str:
    """Returns a short checksum of what masks depend on: the model with its networks, the library, the options.

    Processes whose checksums differ do not share cases. So nothing may enter that differs between processes.
    """
    facts = [model.facts(), environment()["versions"], options]
    found = hashlib.sha256(json.dumps(facts, allow_nan=False).encode())
    stages = (model.liver, model.tumor) if isinstance(model, Cascade) else (model,)
    arrays = [leaf for stage in stages for leaf in jax.tree.leaves(stage.networks.variables)]
    if isinstance(model, Cascade) and model.lesion_filter:
        arrays += [getattr(model.lesion_filter.forest, name) for name in ARRAYS]
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def _lock(descriptor: int, how: int) -> bool:
    """Locks a file; returns False if its file system has no locks.

    Raises:
      BlockingIOError: another holds the lock, and ``how`` says not to wait.
    """
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Returns whether an open file is still the one of this name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)
