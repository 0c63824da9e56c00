"""Validation slices over time, out of a network's TensorBoard events: written once, read here for a page."""

from __future__ import annotations

import io
import pathlib
import struct
from collections.abc import Iterator

import numpy as np

from liverjax.report.figures.canvas import BLUE, YELLOW
from liverjax.report.pictures import Strip, jpeg

#: Validations that are shown of a network, at most; pixels of a side of their four slices together; bytes of a record.
_FRAMES, _SIDE, _LARGEST = 16, 320, 64 << 20
_TAG = "validation/"


def validation_strip(folder: pathlib.Path, name: str, chosen: int | None) -> Strip | None:
    """Returns the validation slices of a network, one validation after the other; None if the events hold none.

    The outlines, which TensorBoard shows in green (reference) and red (prediction), become yellow and blue, and the
    slices are turned as a viewer sees a patient.

    Args:
      folder: of the event files.
      name: of the network.
      chosen: the step of the chosen checkpoint, which is shown first.
    """
    found = _places(folder)
    steps = sorted(found)
    if not steps:
        return None
    spread = np.unique(np.round(np.linspace(0, len(steps) - 1, min(_FRAMES, len(steps)))).astype(int))
    shown = sorted({steps[place] for place in spread} | {step for step in steps if step == chosen})
    frames = [_frame(found[step]) for step in shown]
    height, width = frames[0].shape[:2]
    frames = [frame for frame in frames if frame.shape == (height, width, 3)]
    pitch = -(-height // 8) * 8
    padded = np.zeros((len(frames) * pitch, width, 3), np.uint8)
    for place, frame in enumerate(frames):
        padded[place * pitch : place * pitch + height] = frame
    captions = [
        f"{name}, step {step}{' (chosen)' if step == chosen else ''}" for step in shown[: len(frames)]
    ]
    start = shown.index(chosen) if chosen in shown else len(frames) - 1
    return Strip(name, ("", ""), jpeg(padded), (width, height), pitch, tuple(captions), start)


def _places(folder: pathlib.Path) -> dict[int, list[tuple[pathlib.Path, int, int]]]:
    """Returns for each step where its pictures lie: file, first byte and length of their records, in order.

    A file of a resumed run begins with the step from which it counts; what earlier files hold from there on was done
    again.
    """
    from tensorboardX.proto.event_pb2 import Event

    found: dict[int, dict[str, tuple[pathlib.Path, int, int]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for start, content in _records(path):
            event = Event()
            event.ParseFromString(content)
            if event.HasField("session_log"):
                found = {step: pictures for step, pictures in found.items() if step < event.step}
            for value in event.summary.value:
                if value.tag.startswith(_TAG) and value.HasField("image"):
                    found.setdefault(event.step, {})[value.tag] = (path, start, len(content))
    return {step: [pictures[tag] for tag in sorted(pictures)] for step, pictures in found.items()}


def _records(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Yields each record of an events file with the place of its first byte, up to one that a kill cut short."""
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            start = file.tell()
            content = file.read(length) if length <= _LARGEST else b""
            if len(content) < length or len(file.read(4)) < 4:
                return
            yield start, content


def _frame(places: list[tuple[pathlib.Path, int, int]]) -> np.ndarray:
    """Returns the slices of a validation as one picture, two in a row."""
    from PIL import Image
    from tensorboardX.proto.event_pb2 import Event

    tiles = []
    for path, start, length in places[:4]:
        with open(path, "rb") as file:
            file.seek(start)
            event = Event()
            event.ParseFromString(file.read(length))
        (value,) = event.summary.value
        pixels = np.array(Image.open(io.BytesIO(value.image.encoded_image_string)).convert("RGB"))
        for drawn, color in (((0, 255, 0), YELLOW), ((255, 0, 0), BLUE)):
            pixels[(pixels == drawn).all(-1)] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        tiles.append(pixels[::-1, ::-1])
    tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
    rows = [np.concatenate(tiles[place : place + 2], 1) for place in range(0, len(tiles), 2)]
    picture = Image.fromarray(np.concatenate(rows))
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture)
