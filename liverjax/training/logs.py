"""What a run tells while it goes: one JSON line per look, TensorBoard scalars, a progress bar."""

from __future__ import annotations

import json
import os
import pathlib
import struct
import time

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tqdm import tqdm

from liverjax.files import naming, replacing


class RunLog:
    """The log of one view: ``log.jsonl``, TensorBoard events, and a progress bar on the terminal.

    Only the first process writes. After a resume, lines of steps that are done again are dropped, so that a
    curve has one value per step.
    """

    def __init__(self, folder: pathlib.Path, view: str, *, first_step: int, steps: int, quiet: bool):
        self._path = folder / "log.jsonl"
        self._leader = jax.process_index() == 0
        if self._leader:
            kept = [record for record in read_log(self._path) if record["step"] <= first_step]
            with replacing(self._path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
            self._board = _Board(folder / "tensorboard", first_step)
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            desc=f"train {view}",
            unit="step",
            disable=quiet or not self._leader,
        )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, step: int, steps: int) -> None:
        """Moves the bar to ``step`` of ``steps``."""
        self._bar.total = steps
        self._bar.update(step - self._bar.n)

    def write(self, step: int, **values: float) -> None:
        """Writes named numbers of a step."""
        if not self._leader:
            return
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._board.write(step, *(summary.scalar(name, value) for name, value in values.items()))
        shown = {
            name: f"{value:.3f}" for name, value in values.items() if name in ("loss", "validation_dice")
        }
        self._bar.set_postfix(shown, refresh=False)

    def show(self, step: int, images: np.ndarray, reference: np.ndarray, predicted: np.ndarray) -> None:
        """Puts slices with their outlines on TensorBoard: the reference's in green, the prediction's in red.

        Args:
          step: the step that the prediction is of.
          images: (N, H, W) in [-1, 1], and ``reference`` and ``predicted`` their labels.
        """
        if not self._leader:
            return
        pictures = []
        for place, (image, *masks) in enumerate(zip(images, reference, predicted, strict=True)):
            colours = np.repeat((image[..., None] + 1) / 2, 3, axis=2)
            for mask, channel in zip(masks, (1, 0), strict=True):
                outline = _outline(mask)
                colours[outline] = 0
                colours[outline, channel] = 1
            pictures.append(summary.image(f"validation/{place}", colours, dataformats="HWC"))
        self._board.write(step, *pictures)


class _Board:
    """A TensorBoard events file, written when `write` returns.

    The writer of tensorboardX keeps up to two minutes in memory, which a kill would take, and its thread dies
    unheard on a full disk.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Starts a file in ``folder``; of the files before, TensorBoard shows only what is up to ``first_step``."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        start = SessionLog(status=SessionLog.START)
        self._append(Event(file_version="brain.Event:2"), Event(step=first_step + 1, session_log=start))

    def write(self, step: int, *summaries) -> None:
        """Writes summaries of a step."""
        self._append(*(Event(step=step, summary=each) for each in summaries))

    def _append(self, *events: Event) -> None:
        """Writes records as TensorBoard reads them: length and content, each followed by its checksum."""
        with naming(self._path), open(self._path, "ab") as file:
            for event in events:
                event.wall_time = time.time()
                content = event.SerializeToString()
                length = struct.pack("<Q", len(content))
                for part in (length, content):
                    file.write(part + struct.pack("<I", masked_crc32c(part)))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels whose label is not that of the pixel below or to the right."""
    outline = np.zeros(mask.shape, bool)
    outline[:-1] |= mask[:-1] != mask[1:]
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    return outline


def read_log(path: str | os.PathLike) -> list[dict]:
    """Returns the records of a ``log.jsonl``, in order of step; a line cut short by a kill is left out."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records
