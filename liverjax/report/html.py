"""A report as one self-contained HTML file: pictures, charts, tables; no other files, no network.

The order of every report: pictures first, then one figure a question in a grid, then the table of all cases, then what
the measures mean, then where the page comes from. A section that has nothing to show is not there.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import numbers
import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax import __version__, files
from liverjax.report.pictures import Picture, Strip, within_budget
from liverjax.report.provenance import COMMAND
from liverjax.report.style import SCRIPT, STYLE

#: Pictures that are broader, in pixels, take the whole width of the page.
_BROAD = 760
_DASHES = ' stroke-dasharray="5 3"'


class Page:
    """Sections, text, tables and pictures in order; every text is escaped. Each method returns the page.

    Charts that follow one another stand side by side as far as the page has room.

    Example:
      Page("Evaluation").section("Scores").table(rows).figure(png, "Case 7").write("report.html")
    """

    def __init__(self, title: str):
        self._title = html.escape(title)
        # Of each part the class of the grid in which it stands, if in any, and its HTML, or a picture with the HTML
        # around it.
        self._parts: list[tuple[str, str | tuple[str, Picture, str]]] = [("", f"<h1>{self._title}</h1>")]
        self._facts: dict[str, object] = {}

    def _add(self, text: str, grid: str = "") -> Page:
        self._parts.append((grid, text))
        return self

    def section(self, heading: str) -> Page:
        """Starts a section."""
        return self._add(f"<h2>{html.escape(heading)}</h2>")

    def text(self, text: str) -> Page:
        """Adds a paragraph."""
        return self._add(f"<p>{html.escape(text)}</p>")

    def warning(self, text: str) -> Page:
        """Adds a paragraph that stands out."""
        return self._add(f'<p class="warning">{html.escape(text)}</p>')

    def table(
        self,
        rows: Sequence[Mapping],
        columns: Sequence[str] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        sortable: bool = False,
        heading: str = "",
    ) -> Page:
        """Adds a table.

        Args:
          rows: a mapping from column to value each. Floats are shown with three decimals below 100, else with
            one; truth as yes or no; NaN, None and absent values as n/a.
          columns: the columns in order; by default those of the first row. Columns of numbers are aligned to the
            right.
          names: headings of columns, where they differ.
          sortable: a click on a heading sorts the rows by it; a long table then scrolls below its headings.
          heading: above it; such tables stand side by side, as charts do.
        """
        columns = list(columns if columns is not None else rows[0] if rows else [])
        kinds = [_kind([row.get(column) for row in rows]) for column in columns]
        named = {column: html.escape((names or {}).get(column, str(column))) for column in columns}
        head = "".join(
            f'<th scope="col"{kind} aria-sort="none"><button type="button">{named[c]}</button></th>'
            if sortable
            else f'<th scope="col"{kind}>{named[c]}</th>'
            for c, kind in zip(columns, kinds, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(f"<td{kind}>{_cell(row.get(c))}</td>" for c, kind in zip(columns, kinds, strict=True))
            + "</tr>\n"
            for row in rows
        )
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
        # What scrolls can be reached by keys.
        kind = (
            'class="wide long" tabindex="0" role="region" aria-label="table"' if sortable else 'class="wide"'
        )
        if heading:
            text = f'<section class="card">{_heading(heading)}<div {kind}>{table}</div></section>'
            return self._add(text, "grid tables")
        return self._add(f"<div {kind}>{table}</div>")

    def figure(self, png: bytes, caption: str = "") -> Page:
        """Adds a picture of a scan, as PNG bytes, which the file embeds."""
        return self._image("card", png, "", caption, "")

    def chart(self, png: bytes, caption: str = "", question: str = "") -> Page:
        """Adds a chart, as PNG bytes with a white background, which is dark where the page is.

        Args:
          png: the chart.
          caption: stands below it.
          question: that it answers; stands above it.
        """
        return self._image("card chart", png, question, caption, "grid")

    def _image(self, kind: str, png: bytes, question: str, caption: str, grid: str) -> Page:
        picture, caption = Picture(png), html.escape(caption)
        size = picture.size
        broad = " broad" if size and size[0] > _BROAD else ""
        place = f' width="{size[0]}" height="{size[1]}"' if size else ""
        alt = caption or html.escape(question)
        before = f'<figure class="{kind}{broad}">{_heading(question)}<div class="frame"><img src="'
        after = f'" alt="{alt}"{place}></div><figcaption>{caption}</figcaption></figure>'
        self._parts.append((grid, (before, picture, after)))
        return self

    def drawing(self, svg: str, caption: str = "", question: str = "", legend: Sequence[str] = ()) -> Page:
        """Adds a chart that is drawn as SVG in the colours of the page (`liverjax.report.lines`).

        Args:
          svg: its markup.
          caption: stands below it.
          question: that it answers; stands above it.
          legend: names of its series, in the order of their colours.
        """
        names = "".join(
            f'<span><span class="swatch plain s{i % 4}"><i></i></span> {html.escape(name)}</span>'
            for i, name in enumerate(legend)
        )
        names = f'<div class="legend">{names}</div>' if names else ""
        text = f'<figure class="card">{_heading(question)}{names}{svg}<figcaption>{html.escape(caption)}</figcaption>'
        return self._add(f"{text}</figure>", "grid")

    def slices(self, strips: Sequence[Strip], heading: str, caption: str = "", badge: str = "") -> Page:
        """Adds planes of a scan with outlines, each to be scrolled through by its slider, by keys or by the wheel.

        Args:
          strips: of each plane, as `figures.slice_strips` cuts them.
          heading: what is shown.
          caption: stands below.
          badge: a word before the heading, as "worst".
        """
        outlines = {outline.name: outline for strip in strips for outline in strip.outlines}
        legend = "".join(
            f'<label><input type="checkbox" checked data-outline="{place}"><span class="swatch"><i style="'
            f'border-color:{one.color};border-top-style:{"dashed" if one.dashed else "solid"}"></i></span>'
            f"{html.escape(name)}</label>"
            for place, (name, one) in enumerate(outlines.items())
        )
        legend = f'<div class="legend">{legend}</div>' if legend else ""
        planes = "".join(_plane(strip, list(outlines), heading) for strip in strips)
        mark = f'<span class="badge">{html.escape(badge)}</span>' if badge else ""
        return self._add(
            f'<figure class="card"><h3>{mark}{html.escape(heading)}</h3>{legend}<div class="planes">{planes}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def definitions(self, meanings: Mapping[str, str], heading: str = "What the measures mean") -> Page:
        """Adds terms and what they mean; nothing if there are none."""
        return self.section(heading)._list(meanings) if meanings else self

    def _list(self, meanings: Mapping[str, object], code: Sequence[str] = ()) -> Page:
        items = "".join(
            f"<dt>{html.escape(term)}</dt><dd>{_code(text) if term in code else html.escape(str(text))}</dd>"
            for term, text in meanings.items()
        )
        return self._add(f"<dl>{items}</dl>")

    def provenance(self, facts: Mapping[str, object]) -> Page:
        """Notes where the results come from, such as the model and the data; `write` puts it at the page's end."""
        self._facts |= {name: fact for name, fact in facts.items() if fact not in (None, "")}
        return self

    def write(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the page atomically, and returns its path.

        The command that is running and the version are named at its end. No date is: the same results give the same
        page.
        """
        path = pathlib.Path(path)
        facts = {**self._facts, "liverjax": f"version {__version__}", "Command": COMMAND.get()}
        page = Page("")
        page._parts = list(self._parts)
        page.section("Where this page comes from")._list({k: v for k, v in facts.items() if v}, ("Command",))
        body = page._body()
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
        )
        text = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
            "<footer>liverjax. Research use only: not for diagnosis or treatment.</footer>\n"
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
        )
        with files.replacing(path) as temporary:
            # A name of a file can hold bytes that are no text.
            temporary.write_text(text, encoding="utf-8", errors="replace")
        return path

    def _body(self) -> str:
        """Returns the parts as HTML, charts that follow one another in a grid."""
        pictures = iter(within_budget([part[1] for _, part in self._parts if not isinstance(part, str)]))
        lines, open_grid = [], ""
        for grid, part in self._parts:
            if grid != open_grid:
                lines += ["</div>"] * bool(open_grid) + [f'<div class="{grid}">'] * bool(grid)
                open_grid = grid
            lines.append(part if isinstance(part, str) else f"{part[0]}{next(pictures).address()}{part[2]}")
        return "\n".join(lines + ["</div>"] * bool(open_grid))


def _heading(question: str) -> str:
    return f"<h3>{html.escape(question)}</h3>" if question else ""


def _code(text: object) -> str:
    return f"<code>{html.escape(str(text))}</code>"


def _plane(strip: Strip, names: list[str], heading: str) -> str:
    """Returns a plane: the picture of all its slices as one image, of which a window shows one."""
    width, height = strip.size
    first = strip.start * strip.pitch
    paths = "".join(
        f'<path data-outline="{names.index(one.name)}" d="{one.path}" stroke="{one.color}"'
        f"{_DASHES if one.dashed else ''}/>"
        for one in strip.outlines
        if one.path
    )
    label = html.escape(f"{heading}: {strip.captions[strip.start]}")
    count = len(strip.captions)
    slider = (
        f'<input type="range" min="0" max="{count - 1}" value="{strip.start}" step="1" autocomplete="off" '
        f'data-pitch="{strip.pitch}" data-names="{html.escape(json.dumps(list(strip.captions)))}" '
        f'aria-label="{html.escape(strip.name)} slice">'
        if count > 1
        else ""
    )
    letters = "".join(
        f'<span class="{kind}">{html.escape(letter)}</span>'
        for kind, letter in zip(("left", "top"), strip.letters, strict=True)
        if letter
    )
    bar = f'<span class="bar" style="width:{100 * strip.bar:.1f}%">5 cm</span>' if 0 < strip.bar < 0.8 else ""
    return (
        f'<div class="plane" style="flex:{width} 1 0"><div class="picture"><svg viewBox="0 {first} {width} {height}" '
        f'role="img" aria-label="{label}"><image width="{width}" height="{strip.pitch * count}" '
        f'preserveAspectRatio="none" href="{strip.picture.address()}"/>{paths}</svg>{letters}{bar}</div>{slider}'
        f"<output>{html.escape(strip.captions[strip.start])}</output></div>"
    )


def _kind(values: Sequence) -> str:
    present = [value for value in values if value is not None]
    numeric = (isinstance(value, numbers.Real) and not isinstance(value, bool) for value in present)
    return ' class="number"' if present and all(numeric) else ""


def _cell(value: object) -> str:
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return html.escape(str(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isinf(number):
            return "∞" if number > 0 else "-∞"
        return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}"
    return html.escape(str(value))
