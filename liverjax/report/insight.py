"""The report of what a model sees: pictures first, then the numbers, then how they were made."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax.report.html import Page


def insight_report(
    path: str | os.PathLike,
    title: str,
    pictures: Sequence[tuple[str, bytes]],
    tables: Mapping[str, Sequence[Mapping]],
    method: Sequence[str],
) -> pathlib.Path:
    """Writes one HTML file.

    Args:
      path: the file.
      title: its heading.
      pictures: captions, which say scan, slice, view, class, method and scale, and PNG.
      tables: rows by heading.
      method: paragraphs that say what was done, and what it rests on.
    """
    page = Page(title)
    for caption, png in pictures:
        page.figure(png, caption)
    for heading, rows in tables.items():
        page.section(heading).table(rows, sortable=True)
    page.section("What was done, and what it rests on")
    for text in method:
        page.text(text)
    return page.write(path)
