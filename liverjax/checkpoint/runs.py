"""Checkpoints of a run: written by Orbax in the background, verified before they are read."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from liverjax.errors import CheckpointError
from liverjax.files import sha256, write_json

_LOG = logging.getLogger("liverjax")

#: The file that seals a checkpoint: size and SHA-256 of each of its files.
CHECKSUMS = "checksums.json"


class Checkpoints:
    """The checkpoints of one folder, one sub-folder per step.

    A checkpoint counts from the moment its ``checksums.json`` is there: a process killed earlier leaves the one
    before it in place. Use as a context manager; leaving it waits for what is still being written.
    """

    def __init__(self, folder: str | os.PathLike, keep: int):
        """Opens or makes ``folder``; of its checkpoints the newest ``keep`` are kept."""
        self._folder = pathlib.Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._manager = ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(create=True))
        self._unfinished: int | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self.finish()
        with contextlib.suppress(Exception):  # It would raise again what `save` or `finish` have raised.
            self._manager.close()

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Starts to write a tree of arrays and its JSON facts; returns once the arrays may be changed.

        Raises:
          CheckpointError: this one or the one before could not be written; those before it are kept.
        """
        self.finish()
        with self._writing(step):
            # If the folder cannot be made, Orbax waits for minutes.
            tempfile.TemporaryDirectory(prefix=f"{step}.partial-", dir=self._folder).cleanup()
            # Later steps are unusable here: they failed verification, or belong to a run that was killed and is being
            # redone. The manager lists them and not the disk: all processes must delete together.
            for later in [found for found in self._manager.all_steps() if found >= step]:
                self._manager.delete(later)
            self._manager.save(
                step,
                args=ocp.args.Composite(tree=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta)),
                force=True,
            )
        self._unfinished = step

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Of the system, of Orbax or of what it writes with.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{self._folder / str(step)}: could not be written ({reason[0]}); the checkpoints before are kept"
            ) from error

    def poll(self) -> None:
        """Seals the checkpoint that was being written, if it is complete. Costs nothing otherwise.

        With several processes the next save does it: they would not all see it complete at the same step, and processes
        which wait for one another in different places wait for ever.
        """
        if (
            jax.process_count() == 1
            and self._unfinished is not None
            and not self._manager.is_saving_in_progress()
        ):
            self.finish()

    def finish(self) -> None:
        """Waits for the checkpoint that is being written, seals it with its checksums and removes old ones.

        Raises:
          CheckpointError: it could not be written; those before it are kept.
        """
        step, self._unfinished = self._unfinished, None
        if step is None:
            return
        with self._writing(step):
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                write_checksums(self._folder / str(step))
                self._remove_old()

    def _remove_old(self) -> None:
        """Removes all but the newest sealed checkpoints. Orbax would do so before the newest is sealed."""
        # 300, and 300.orbax-checkpoint-tmp that a kill left.
        folders = [path for path in self._folder.iterdir() if path.name.partition(".")[0].isdecimal()]
        sealed = [path for path in folders if path.name.isdecimal() and (path / CHECKSUMS).exists()]
        kept = sorted(sealed, key=lambda path: int(path.name))[-self._keep :]
        for folder in set(folders) - set(kept):
            _remove(folder)

    def restore(self, template: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Returns step, tree and facts of the newest sound checkpoint, or None if none was ever finished.

        Unsound ones are named in the log and passed over for the one before.

        Args:
          template: tree of `jax.ShapeDtypeStruct` with shardings (or of arrays), as the saved tree.

        Raises:
          CheckpointError: every checkpoint is damaged, or the newest sound one holds another network.
        """
        faults = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder = self._folder / str(step)
            try:
                verify_checksums(folder)
                try:
                    tree, meta = self._read(step, template)
                except (
                    Exception
                ) as error:  # Of Orbax, or of what it reads with, which raises a bare Exception.
                    verify_checksums(folder)  # Else another process has removed it since.
                    raise MisfitError(folder, error) from None
            except MisfitError:
                raise
            except CheckpointError as error:
                faults.append(str(error))
                _LOG.warning("checkpoint of step %d is not used: %s", step, error)
                continue
            return step, tree, meta
        if faults and not all("not finished" in fault for fault in faults):
            raise CheckpointError(f"{self._folder}: no sound checkpoint is left; {faults[0]}")
        return None

    def _read(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        args = ocp.args.Composite(tree=ocp.args.StandardRestore(template), meta=ocp.args.JsonRestore())
        restored: Any = self._manager.restore(step, args=args)
        return restored.tree, dict(restored.meta)

    def newest(self) -> int | None:
        """Returns the step of the newest finished checkpoint, or None."""
        return max((int(name) for name, _ in _sealed(self._folder)), default=None)

    def discard(self, step: int) -> bool:
        """Removes the checkpoint of a step, whether it is finished or still being written; returns if there was one."""
        with contextlib.suppress(CheckpointError):  # It is not wanted any more, written or not.
            self.finish()
        folder = self._folder / str(step)
        found = (folder / CHECKSUMS).exists()
        if jax.process_index() == 0 and found:
            _remove(folder)
        return found


class MisfitError(CheckpointError):
    """A sound checkpoint that does not fit the template."""

    def __init__(self, folder: pathlib.Path, error: Exception):
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        super().__init__(f"{folder}: holds another network than the config describes ({reason})")


def restore_parameters(folder: str | os.PathLike, template: Any) -> tuple[int, Any, dict[str, Any]]:
    """Returns step, tree and facts of the newest sound checkpoint of ``folder``, which must exist.

    A training that goes on in the folder may replace its checkpoint while it is read: then the new one is.

    Raises:
      CheckpointError: there is none, or it holds another network.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} does not exist; train this view first")
    for _ in range(_TRIES):
        before = _sealed(folder)
        vanished = False
        fault = CheckpointError(f"{folder}: holds no finished checkpoint yet")
        try:
            with Checkpoints(folder, keep=1) as checkpoints:
                if restored := checkpoints.restore(template):
                    return restored
        except CheckpointError as error:
            fault = error
        except OSError as error:
            fault = CheckpointError(f"{error.filename or folder}: cannot be read ({error.strerror or error})")
            # Of an older one, which may have been half removed before this began.
            vanished = isinstance(error, FileNotFoundError)
        if _sealed(folder) == before and not vanished:
            raise fault
    raise CheckpointError(
        f"{folder}: a training replaces its checkpoints faster than they are read; try again later"
    )


#: How often a folder is read in which a training goes on.
_TRIES = 20


def _sealed(folder: pathlib.Path) -> set[tuple[str, int]]:
    """Returns names and times of the checkpoints that are finished."""
    found = set()
    with contextlib.suppress(FileNotFoundError):  # A training removes them meanwhile.
        for path in folder.glob(f"*/{CHECKSUMS}"):
            found.add((path.parent.name, path.stat().st_mtime_ns))
    return found


def _remove(folder: pathlib.Path) -> None:
    (folder / CHECKSUMS).unlink(missing_ok=True)  # First, so that half a checkpoint never counts.
    shutil.rmtree(folder)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the files of a checkpoint by name, without those that file managers hide in folders."""
    found = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return {name: path for name, path in found.items() if name != CHECKSUMS and not path.name.startswith(".")}


def write_checksums(folder: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file below ``folder`` to its ``checksums.json``."""
    facts = {
        name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in _files(folder).items()
    }
    write_json(folder / CHECKSUMS, facts)


def verify_checksums(folder: pathlib.Path) -> None:
    """Raises `CheckpointError` if a file below ``folder`` is missing, is not what was written, or is not listed."""
    path = folder / CHECKSUMS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        expected = {name: (fact["bytes"], fact["sha256"]) for name, fact in facts.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: not finished (no {CHECKSUMS})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    try:
        found = _files(folder)
        for name, (size, digest) in expected.items():
            file = folder / name
            if file.stat().st_size != size or sha256(file) != digest:
                raise CheckpointError(f"{file}: not as it was written (checksum)")
    except OSError as error:
        raise CheckpointError(f"{error.filename}: missing ({error.strerror})") from None
    if unknown := sorted(set(found) - set(expected)):
        raise CheckpointError(f"{path}: damaged (it does not list {unknown[0]}, which lies beside it)")
    if not expected:
        raise CheckpointError(f"{path}: damaged (it lists no files)")
