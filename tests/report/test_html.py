"""Pages: complete in one file, every text shown as it is, no text run as markup."""

import base64
import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from liverjax import __version__
from liverjax.report.html import Page
from liverjax.report.pictures import Outline, Picture, Strip
from liverjax.report.provenance import COMMAND

HOSTILE = '<script>alert("1")</script> & \'<img src=x onerror=y>'


class Parser(html.parser.HTMLParser):
    """What a browser would see: tags with attributes, and the text of each kind of tag."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.stack = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.text.append((self.stack[-1], data))

    def of(self, tag):
        return [text for kind, text in self.text if kind == tag]


def test_a_page_is_well_formed_and_needs_nothing_else(tmp_path):
    png = bytes(range(256))
    page = Page("Title").section("Scores").text("Words.").table([{"case": "a", "dice": 0.5}])
    parsed = Parser(page.figure(png, "a picture").write(tmp_path / "report.html"))
    assert parsed.stack == []
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"link", "iframe"})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    policy = next(a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        policy.startswith("default-src 'none'; img-src data:;") and f"script-src 'sha256-{digest}'" in policy
    )
    (image,) = [attributes for tag, attributes in parsed.tags if tag == "img"]
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png
    assert "://" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert parsed.of("h1") == parsed.of("title") == ["Title"]
    assert "Research use only" in parsed.of("footer")[0]


def test_hostile_text_is_shown_and_not_run(tmp_path):
    page = Page(HOSTILE).section(HOSTILE).text(HOSTILE).figure(b"", HOSTILE)
    page.table([{HOSTILE: HOSTILE}]).definitions({HOSTILE: HOSTILE}, HOSTILE)
    strip = Strip(
        HOSTILE,
        (HOSTILE, ""),
        Picture(b""),
        (9, 9),
        9,
        (HOSTILE, HOSTILE),
        0,
        (Outline(HOSTILE, "red", True, "M0 0"),),
    )
    page.slices([strip], HOSTILE, HOSTILE, HOSTILE).provenance({HOSTILE: HOSTILE})
    parsed = Parser(page.write(tmp_path / "report.html"))
    assert [tag for tag, _ in parsed.tags if tag in ("script", "b")] == ["script"]
    assert [a["alt"] for tag, a in parsed.tags if tag == "img"] == [HOSTILE]
    (names,) = (a["data-names"] for tag, a in parsed.tags if "data-names" in a)
    assert json.loads(names) == [HOSTILE, HOSTILE]
    for tag in ("title", "h1", "p", "th", "td", "output"):
        assert "".join(parsed.of(tag)) == HOSTILE, tag
    assert parsed.of("h2") == [HOSTILE, HOSTILE, "Where this page comes from"]
    assert parsed.of("dd")[:2] == [HOSTILE, HOSTILE] and "".join(parsed.of("figcaption")) == 2 * HOSTILE


def test_the_command_and_the_version_are_at_the_end_and_no_date_is(tmp_path):
    def write(name):
        return Page("t").provenance({"Model": "m", "Data": None}).write(tmp_path / name).read_bytes()

    assert b"<dt>Command</dt>" not in write("a.html")
    token = COMMAND.set("liverjax evaluate --cases='a b'")
    try:
        found = Parser(Page("t").provenance({"Model": "m", "Data": None}).write(tmp_path / "b.html"))
    finally:
        COMMAND.reset(token)
    assert found.of("dt") == ["Model", "liverjax", "Command"] and found.of("dd") == [
        "m",
        f"version {__version__}",
    ]
    assert found.of("code") == ["liverjax evaluate --cases='a b'"]
    assert write("c.html") == write("a.html")


def test_charts_stand_in_one_grid_and_pictures_shrink_to_a_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    small = io.BytesIO()
    Image.fromarray(noise[:9, :9]).save(small, "PNG")
    chart = small.getvalue()
    page = Page("t").chart(chart, question="One?").chart(chart, question="Two?").text("between").chart(chart)
    parsed = Parser(page.figure(buffer.getvalue()).figure(buffer.getvalue()).write(tmp_path / "r.html"))
    assert [a["class"] for tag, a in parsed.tags if tag == "div" and a["class"] == "grid"] == ["grid", "grid"]
    assert parsed.of("h3") == ["One?", "Two?"]
    large = [a["src"] for tag, a in parsed.tags if tag == "img"][-2:]
    assert all(source.startswith("data:image/jpeg") for source in large)
    assert sum(map(len, large)) < 7_000_000 < 2 * len(buffer.getvalue()) * 4 / 3


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1))
def test_any_text_comes_back(tmp_path_factory, text):
    path = Page("t").table([{"case": text}]).write(tmp_path_factory.mktemp("page") / "report.html")
    assert "".join(Parser(path).of("td")) == text


def test_numbers_to_the_right_and_undefined_ones_named(tmp_path):
    rows = [
        {"case": "a", "dice": 0.91234, "ml": 1523.26, "voxels": 123456, "mm": float("inf"), "note": "x"},
        {"case": "b", "dice": float("nan"), "ml": -3.0, "voxels": 0, "mm": 1.0, "note": 5},
        {"case": "c", "dice": None, "ml": 2.0, "voxels": 1, "mm": 1.0},
    ]
    parsed = Parser(Page("t").table(rows).write(tmp_path / "report.html"))
    assert parsed.of("td") == [
        *("a", "0.912", "1523.3", "123456", "∞", "x"),
        *("b", "n/a", "-3.000", "0", "1.000", "5"),
        *("c", "n/a", "2.000", "1", "1.000", "n/a"),
    ]
    right = [a.get("class") == "number" for tag, a in parsed.tags if tag == "th"]
    assert right == [False, True, True, True, True, False]


def test_columns_are_chosen_in_order_and_an_empty_table_is_a_table(tmp_path):
    parsed = Parser(Page("t").table([{"a": 1, "b": 2}], ["b", "a"]).table([]).write(tmp_path / "r.html"))
    assert parsed.of("th") == ["b", "a"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = Page("old").write(tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        Page("new").figure("not bytes").write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_no_text_does_not_stop_a_page(tmp_path):
    path = Page("t").text(b"caf\xe9".decode("utf-8", "surrogateescape")).write(tmp_path / "report.html")
    assert Parser(path).of("p") == ["caf?"]
