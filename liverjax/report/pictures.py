"""What pages embed: PNG and JPEG pictures, and strips of slices with outlines; and how they keep to a size."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence

#: Bytes that the single pictures of a page may take in all before they are made smaller; base64 adds a third.
_BUDGET = 5 << 20
#: Widths in pixels that are tried one after the other.
_WIDTHS = (1000, 700, 450, 300, 200, 120)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG or JPEG."""

    data: bytes

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of a PNG in pixels, which its first bytes state; None of anything else."""
        if self.data[:8] != b"\x89PNG\r\n\x1a\n":
            return None
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")

    def address(self) -> str:
        """Returns the picture as the address of an image."""
        kind = "jpeg" if self.data[:2] == b"\xff\xd8" else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclasses.dataclass(frozen=True)
class Outline:
    """Outlines of one mask in all slices of a strip.

    Attributes:
      name: of the mask, in the legend.
      color: of the line.
      dashed: whether it is.
      path: as the ``d`` of an SVG path.
    """

    name: str
    color: str
    dashed: bool
    path: str


@dataclasses.dataclass(frozen=True)
class Strip:
    """Slices of a plane, one above the other in one picture, of which a page shows one at a time.

    Attributes:
      name: of the plane.
      letters: at the left edge and at the top edge.
      picture: of all slices.
      size: width and height of a slice, in units of the outlines.
      pitch: from the top of a slice to that of the next, in the same units.
      captions: of each slice.
      start: the slice that is shown first.
      outlines: of each mask.
      bar: 5 cm as a share of the width; 0 draws no bar.
    """

    name: str
    letters: tuple[str, str]
    picture: Picture
    size: tuple[int, int]
    pitch: int
    captions: tuple[str, ...]
    start: int = 0
    outlines: tuple[Outline, ...] = ()
    bar: float = 0.0


def jpeg(pixels) -> Picture:
    """Returns an array of bytes, (H, W) grey or (H, W, 3), as a JPEG."""
    from PIL import Image  # Comes with matplotlib.

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80, optimize=True)
    return Picture(buffer.getvalue())


def within_budget(pictures: Sequence[Picture], budget: int = _BUDGET) -> Sequence[Picture]:
    """Returns the pictures as they are, or all as smaller JPEGs if they take more than ``budget`` bytes together."""
    found, widths = pictures, iter(_WIDTHS)
    while sum(len(picture.data) for picture in found) > budget and (width := next(widths, None)):
        found = [_shrunk(picture, width) for picture in pictures]
    return found


def _shrunk(picture: Picture, width: int) -> Picture:
    from PIL import Image

    image = Image.open(io.BytesIO(picture.data)).convert("RGB")
    image.thumbnail((width, 4 * width))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return Picture(buffer.getvalue())
