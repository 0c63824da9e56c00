"""The log of a network's training: JSON lines, TensorBoard events, and a progress bar or lines of text."""

from __future__ import annotations

import json
import os
import pathlib
import struct
import time
from collections.abc import Callable

import numpy as np

from liverjax.files import naming, read_json_lines, replacing
from liverjax.progress import ProgressLine
from liverjax.training.distributed import is_first_process


class RunLog:
    """The log of one network: ``log.jsonl``, TensorBoard events, and on standard error a progress bar.

    Where that is no terminal but the file of a batch system, there are lines of text (`ProgressLine`), one for each
    validation among them. Only the first process writes. Leaving the log closes the bar. After a resume, lines of steps
    that are done again are dropped, so that a curve has one value per step.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        label: str,
        *,
        first_step: int,
        steps: int,
        quiet: bool,
        listener: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    ):
        """Opens the log in ``folder``; ``label`` names the network in them, ``listener`` gets what is written."""
        self._listener = listener
        self._path = folder / "log.jsonl"
        self._events: _EventFile | None = None
        if is_first_process():
            kept = [record for record in read_log(self._path) if record["step"] <= first_step]
            with replacing(self._path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
            self._events = _EventFile(folder / "tensorboard", first_step)
        quiet = quiet or not is_first_process()
        self._line = ProgressLine(f"train {label}", steps, "step", done=first_step, quiet=quiet)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        self._line.__exit__()

    def advance(self, step: int, steps: int) -> None:
        """Shows that the training is at ``step`` of ``steps``."""
        self._line.advance(step, steps)

    def write(self, step: int, **values: float) -> None:
        """Writes named numbers of a step."""
        if self._events is None:
            return
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._events.add_scalars(step, values)
        numbers = self._line.numbers
        if "learning_rate" in values:  # The numbers of a step.
            numbers["loss"] = f"{values['loss']:.4g}" if "loss" in values else "not finite"
            numbers["learning rate"] = f"{values['learning_rate']:.3g}"
        if "validation_dice" in values:
            numbers["Dice"] = f"{values['validation_dice']:.3f}"
        self._listener(step, values)

    def print_validation(self, dice: float, detection: float | None = None) -> None:
        """Prints the result of an evaluation after the newest step in a line, unless there is a progress bar."""
        more = "" if detection is None else f", detection {detection:.3f}"
        self._line.print_now(f"validation Dice {dice:.3f}{more}")

    def add_images(self, step: int, images: np.ndarray, reference: np.ndarray, predicted: np.ndarray) -> None:
        """Adds slices with outlines to TensorBoard: the reference's in green, the prediction's in red.

        Args:
          step: the step of the prediction.
          images: (N, H, W) in [-1, 1], and ``reference`` and ``predicted`` their labels.
        """
        if self._events is None:
            return
        pictures = {}
        for place, (image, *masks) in enumerate(zip(images, reference, predicted, strict=True)):
            colours = np.repeat((image[..., None] + 1) / 2, 3, axis=2)
            for mask, channel in zip(masks, (1, 0), strict=True):
                outline = _outline(mask)
                colours[outline] = 0
                colours[outline, channel] = 1
            pictures[f"validation/{place}"] = colours
        self._events.add_images(step, pictures)


class _EventFile:
    """A TensorBoard events file whose records are on disk when a method returns.

    The writer of tensorboardX keeps up to two minutes in memory, which a kill would lose, and its thread dies
    silently on a full disk.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Starts a file in ``folder``; of earlier files TensorBoard shows only records up to ``first_step``."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        start = SessionLog(status=SessionLog.START)
        self._append(Event(file_version="brain.Event:2"), Event(step=first_step + 1, session_log=start))

    def add_scalars(self, step: int, values: dict[str, float]) -> None:
        """Adds named numbers of a step."""
        from tensorboardX import summary

        self._add(step, [summary.scalar(name, value) for name, value in values.items()])

    def add_images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Adds named pictures (H, W, 3) in [0, 1] of a step."""
        from tensorboardX import summary

        self._add(step, [summary.image(name, image, dataformats="HWC") for name, image in images.items()])

    def _add(self, step: int, summaries: list) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._append(*(Event(step=step, summary=each) for each in summaries))

    def _append(self, *events) -> None:
        """Writes records as TensorBoard reads them: length and content, each followed by its checksum."""
        from tensorboardX.record_writer import masked_crc32c

        with naming(self._path), open(self._path, "ab") as file:
            for event in events:
                event.wall_time = time.time()
                content = event.SerializeToString()
                for block in (struct.pack("<Q", len(content)), content):
                    file.write(block + struct.pack("<I", masked_crc32c(block)))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels whose label differs from that of the pixel below or to the right."""
    outline = np.zeros(mask.shape, bool)
    outline[:-1] |= mask[:-1] != mask[1:]
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    return outline


def read_log(path: str | os.PathLike) -> list[dict]:
    """Returns the records of a ``log.jsonl``, in order of step; a line cut short by a kill is left out."""
    return read_json_lines(path)
