"""A report in headless Chromium: what its elements do, contrast in light and dark, narrow pages, print."""

import io

import numpy as np
import pytest
from PIL import Image

from liverjax.report import figures
from liverjax.report.html import Page
from liverjax.report.lines import Line, line_chart
from liverjax.volume import Volume
from tests.viewer import chromium

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="no Chromium")

_TEXTS = "h1, h2, h3, p, th, td, figcaption, output, dt, dd, code, .badge, .legend, footer, svg.lines text, .warning"
#: Tag, colour of each text, and the first opaque colour behind it.
_COLORS = f"""[...document.querySelectorAll("{_TEXTS}")].map((e) => {{
  const back = (x) => getComputedStyle(x).backgroundColor;
  let behind = e;
  while (back(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const style = getComputedStyle(e);
  return [e.tagName, e.closest("svg.lines") ? style.fill : style.color, back(behind)];
}})"""
_LINES = """[...document.querySelectorAll("svg.lines path")].map((e) => [
  getComputedStyle(e).stroke, getComputedStyle(e.closest(".card")).backgroundColor])"""
_CHART = """(() => {
  const chart = document.querySelector(".chart img");
  chart.scrollIntoView({ block: "center" });
  const box = chart.getBoundingClientRect();
  return [box.x, box.y, box.width, box.height].map(Math.round);
})()"""


def _luminance(color):
    """Of an sRGB colour in 0-255 (WCAG 2)."""
    share = np.asarray(color) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def _contrast(a, b):
    low, high = np.sort([_luminance(a), _luminance(b)])
    return (high + 0.05) / (low + 0.05)


def _rgb(text):
    return [float(part) for part in text.strip("rgb()").split(",")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    mask = np.zeros((40, 36, 30), np.uint8)
    mask[8:30, 8:28, 6:24] = 1
    scan = Volume(np.where(mask, 120, -900).astype(np.int16), np.diag([4.0, 4, 4, 1]))
    strips = figures.slice_strips(scan, {"prediction": mask > 0, "reference": mask > 0})
    rows = [
        {"case": "c10", "dice": 0.9, "mm": 2.0, "note": "x"},
        {"case": "c9", "dice": float("nan"), "mm": float("inf"), "note": None},
        {"case": "c1", "dice": 0.25, "mm": 10.5, "note": "a" * 60},
    ]
    built = Page("A report").text("Words.").warning("Not complete.").slices(strips, "c1", "below", "worst")
    built.section("Figures").chart(figures.bland_altman([1, 5, 9], [2, 4, 7], "ml"), "Bland-Altman", "Right?")
    lines = [Line([1, 2, 3], [k, k + 1, k]) for k in range(4)]
    built.drawing(line_chart(lines, "step", "loss"), "Loss", "Falls?", ["a", "b", "c", "d"])
    names = ("mean", "ci_low", "ci_high", "difference", "difference_low", "difference_high", "p_holm")
    wide = figures.variants({"base": {"a": 0.5, "b": 0.6}}, [dict.fromkeys(names, 0.5)], "Dice")
    built.chart(wide, "wide", "Which?")
    built.section("All cases").table(rows * 30, sortable=True).definitions({"Dice": "overlap"})
    return built.write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def _open(browser, page, **settings):
    browser.open(page.as_uri(), **settings)
    browser.wait("document.readyState === 'complete' && document.querySelector('output') !== null")


def _press(browser, key, code, text=None):
    down = {"text": text} if text else {}
    for kind, more in (("keyDown" if text else "rawKeyDown", down), ("keyUp", {})):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more
        )


def _column(browser, index):
    rows = "[...document.querySelectorAll('tbody tr')]"
    return browser.run(f"[...new Set({rows}.map((row) => row.cells[{index}].textContent))]")


def test_a_heading_sorts_by_click_and_by_key_and_what_is_missing_comes_last(browser, page):
    _open(browser, page)
    browser.click("th:nth-child(2) button")
    assert _column(browser, 1) == ["0.250", "0.900", "n/a"]
    sorts = "[...document.querySelectorAll('th')].map((head) => head.getAttribute('aria-sort'))"
    assert browser.run(sorts) == ["none", "ascending", "none", "none"]
    _press(browser, "Enter", 13, "\r")  # The heading has the focus.
    assert _column(browser, 1) == ["0.900", "0.250", "n/a"] and browser.run(sorts)[1] == "descending"
    browser.click("th:nth-child(3) button")
    assert _column(browser, 2) == ["2.000", "10.500", "∞"]
    assert browser.run(sorts)[1:3] == ["none", "ascending"]
    browser.click("th:nth-child(1) button")
    assert _column(browser, 0) == ["c1", "c9", "c10"]  # As people count.
    assert browser.run("document.querySelectorAll('tbody tr').length") == 90
    assert browser.problems() == []
    assert [address for address in browser.requests() if not address.startswith("file:")] == []


def test_slices_follow_slider_and_keys_and_outlines_can_be_hidden(browser, page):
    _open(browser, page)
    said = "document.querySelector('output').textContent"
    window = "document.querySelector('.plane svg').viewBox.baseVal.y"
    assert (
        browser.run(said) == "axial slice 7 of 30"
    )  # The first of equal slices; masks begin at the seventh.
    before = browser.run(window)
    browser.click(".plane svg")
    _press(browser, "ArrowRight", 39)
    assert browser.run(said) == "axial slice 8 of 30" and browser.run(window) > before
    _press(browser, "ArrowLeft", 37)
    assert browser.run(said) == "axial slice 7 of 30" and browser.run(window) == before
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == "axial slice 7 of 30"
    browser.click(".legend input")
    shown = "[...document.querySelectorAll('.plane path')].map((path) => getComputedStyle(path).display)"
    assert browser.run(shown) == ["none", "inline"] * 3


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_text_can_be_read_in_light_and_dark_and_nothing_is_cut_off(browser, page, width, dark, tmp_path):
    _open(browser, page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") == width
    found = browser.run(_COLORS)
    assert {"H1", "P", "TH", "TD", "FIGCAPTION", "OUTPUT", "DT", "SPAN", "text"} <= {tag for tag, *_ in found}
    for tag, text, back in found:
        assert _contrast(_rgb(text), _rgb(back)) >= 4.5, (tag, text, back)
    for line, back in browser.run(_LINES):
        assert _contrast(_rgb(line), _rgb(back)) >= 3, (line, back)
    # A chart is a picture, of which the dark page turns the lightness over.
    x, y, w, h = browser.run(_CHART)
    shot = np.asarray(Image.open(io.BytesIO(browser.shoot(tmp_path / "page.png"))).convert("RGB"))
    chart = shot[y + 2 : y + h - 2, x + 2 : x + w - 2].reshape(-1, 3)
    ground = np.median(chart, 0)
    assert (_luminance(ground) < 0.05) == dark
    assert max(_contrast(color, ground) for color in np.unique(chart, axis=0)) >= 7
    colored = np.unique(chart[np.ptp(chart.astype(int), 1) > 100], axis=0)  # Its dots and lines.
    assert max(_contrast(color, ground) for color in colored) >= 3


def test_on_paper_there_are_no_controls_and_all_rows(browser, page):
    _open(browser, page, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        for selector, property, value in (
            (".plane input", "display", "none"),
            (".legend input", "display", "none"),
            (".long", "maxHeight", "none"),
            ("body", "color", "rgb(0, 0, 0)"),
            ("body", "backgroundColor", "rgb(255, 255, 255)"),
        ):
            style = f"getComputedStyle(document.querySelector('{selector}')).{property}"
            assert browser.run(style) == value, (selector, property)
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
