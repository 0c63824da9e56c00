"""A report as one self-contained HTML file: no scripts, no other files, no network."""

from __future__ import annotations

import base64
import html
import math
import numbers
import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax import files

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --faint: #6a7078; --line: #dfe2e6; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e9; --faint: #9aa1aa; --line: #3a3f46; --page: #17191c; }
}
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem; color: var(--text); background: var(--page);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; overflow-wrap: anywhere; }
p { max-width: 44rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide + .wide { margin-top: 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 1.25rem 0.3rem 0; text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; border-bottom: 2px solid var(--line); }
td { border-bottom: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
td:first-child { white-space: nowrap; }
figure { margin: 1.25rem 0; }
img { max-width: 100%; height: auto; border-radius: 4px; }
@media screen and (prefers-color-scheme: dark) {
  /* Charts are drawn on white: their lightness is turned over, their hues stay. White becomes --page. */
  .chart img { filter: invert(0.91) hue-rotate(180deg); }
}
figcaption, footer { color: var(--faint); font-size: 0.85rem; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; }
  th, td { padding-right: 0.6rem; }
}
@media print {
  :root { color-scheme: light; --text: #000; --faint: #444; --line: #bbb; --page: #fff; }
  @page { margin: 10mm; }
  body { max-width: none; padding: 0; font-size: 9pt; line-height: 1.3; }
  h1 { font-size: 14pt; margin: 0 0 0.4rem; }
  h2 { font-size: 10.5pt; margin: 0.6rem 0 0.2rem; break-after: avoid; }
  p { max-width: none; margin: 0.25rem 0; }
  table { font-size: 8pt; }
  th, td { padding: 0.06rem 0.75rem 0.06rem 0; }
  .wide { overflow-x: visible; }
  tr, figure { break-inside: avoid; }
  figure { margin: 0.5rem 0; }
  img { max-width: 60%; }
  figcaption, footer { font-size: 8pt; }
  footer { margin-top: 0.5rem; padding-top: 0.25rem; }
}
"""


class Page:
    """Sections, text, tables and pictures in order; every text is escaped. Each method returns the page.

    Example:
      Page("Evaluation").section("Scores").table(rows).figure(png, "Case 7").write("report.html")
    """

    def __init__(self, title: str):
        self._title = html.escape(title)
        self._parts = [f"<h1>{self._title}</h1>"]

    def section(self, heading: str) -> Page:
        """Starts a section."""
        self._parts.append(f"<h2>{html.escape(heading)}</h2>")
        return self

    def text(self, text: str) -> Page:
        """Adds a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")
        return self

    def table(self, rows: Sequence[Mapping], columns: Sequence[str] | None = None) -> Page:
        """Adds a table.

        Args:
          rows: a mapping from column to value each. Floats are shown with three decimals below 100, else with
            one; NaN, None and absent values as n/a.
          columns: the columns in order; by default those of the first row. Columns of numbers are aligned to the
            right.
        """
        columns = list(columns if columns is not None else rows[0] if rows else [])
        kinds = [_kind([row.get(column) for row in rows]) for column in columns]
        head = "".join(
            f"<th{kind}>{html.escape(str(c))}</th>" for c, kind in zip(columns, kinds, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(f"<td{kind}>{_cell(row.get(c))}</td>" for c, kind in zip(columns, kinds, strict=True))
            + "</tr>\n"
            for row in rows
        )
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
        self._parts.append(f'<div class="wide">{table}</div>')
        return self

    def figure(self, png: bytes, caption: str = "") -> Page:
        """Adds a picture of a scan, as PNG bytes, which the file embeds."""
        return self._image("<figure>", png, caption)

    def chart(self, png: bytes, caption: str = "") -> Page:
        """Adds a chart, as PNG bytes with a white background, which is dark where the page is."""
        return self._image('<figure class="chart">', png, caption)

    def _image(self, opening: str, png: bytes, caption: str) -> Page:
        caption = html.escape(caption)
        source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
        image = f'<img src="{source}" alt="{caption}">'
        self._parts.append(f"{opening}{image}<figcaption>{caption}</figcaption></figure>")
        return self

    def write(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the page atomically, and returns its path."""
        path = pathlib.Path(path)
        body = "\n".join(self._parts)
        text = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
            "<footer>liverjax. Research use only: not for diagnosis or treatment.</footer>\n"
            "</body>\n</html>\n"
        )
        with files.replacing(path) as temporary:
            # A file name that is not valid UTF-8 reaches Python as lone surrogates; they are shown as "?".
            temporary.write_text(text, encoding="utf-8", errors="replace")
        return path


def _kind(values: Sequence) -> str:
    present = [value for value in values if value is not None]
    return ' class="number"' if present and all(isinstance(value, numbers.Real) for value in present) else ""


def _cell(value: object) -> str:
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return "n/a"
    if isinstance(value, numbers.Integral):
        return html.escape(str(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isinf(number):
            return "∞" if number > 0 else "-∞"
        return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}"
    return html.escape(str(value))
