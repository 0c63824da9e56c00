"""Pages: complete in one file, every text shown as it is, no text run as markup."""

import base64
import html.parser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverjax.report.html import Page

HOSTILE = '<script>alert("1")</script> & \'<img src=x onerror=y>'


class Parser(html.parser.HTMLParser):
    """What a browser would see: tags with attributes, and the text of each kind of tag."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.stack = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.stack.append(tag)

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
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe"})
    (image,) = [attributes for tag, attributes in parsed.tags if tag == "img"]
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png
    assert "://" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert parsed.of("h1") == parsed.of("title") == ["Title"]
    assert "Research use only" in parsed.of("footer")[0]


def test_hostile_text_is_shown_and_not_run(tmp_path):
    page = Page(HOSTILE).section(HOSTILE).text(HOSTILE).figure(b"", HOSTILE)
    page.table([{HOSTILE: HOSTILE}])
    parsed = Parser(page.write(tmp_path / "report.html"))
    assert [tag for tag, _ in parsed.tags if tag in ("script", "b")] == []
    assert [a["alt"] for tag, a in parsed.tags if tag == "img"] == [HOSTILE]
    for tag in ("title", "h1", "h2", "p", "th", "td", "figcaption"):
        assert "".join(parsed.of(tag)) == HOSTILE, tag


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
