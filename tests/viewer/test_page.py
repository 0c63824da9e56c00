"""The page in headless Chromium, and what the server refuses."""

import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image

from liverjax.datasets.layouts import find_cases
from liverjax.scans import nifti
from liverjax.viewer import server, study
from liverjax.volume import Volume
from tests.viewer import chromium
from tests.viewer.test_study import ball

pytest.importorskip("ipyniivue", reason="liverjax[viewer] is not installed")


@pytest.fixture
def served(tmp_path):
    mask = ball((40, 36, 30), (14, 18, 15), 10).astype(np.uint8)
    for centre, radius in (((10, 18, 12), 3), ((18, 18, 18), 2)):
        mask[ball(mask.shape, centre, radius)] = 2
    body = ball(mask.shape, (20, 18, 15), 17)
    scan = Volume(np.where(mask, 120, np.where(body, 20, -900)).astype(np.int16), np.diag([4.0, 4, 4, 1]))
    reference = mask.copy()
    reference[:14, :, 20] = 0  # Half of slice 20 is missing: the worst.
    for name, voxels in (("scan", scan.voxels), ("mask", mask), ("reference", reference)):
        nifti.write(tmp_path / f"{name}.nii", scan.with_voxels(voxels))
    case = study.Study(
        "<b>first</b>", tmp_path / "scan.nii", {"prediction": tmp_path / "mask.nii"},
        lambda: nifti.read_mask(tmp_path / "reference.nii"), scan.with_voxels((mask > 0).astype(np.float32)),
    )  # fmt: skip
    gone = study.Study("second", tmp_path / "gone.nii", {"prediction": tmp_path / "mask.nii"})
    running = server.start([case, gone])
    yield running
    running.close()


def ask(running, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer


def test_only_its_own_address_with_its_secret_is_answered(served, tmp_path):
    secret = f"/{served.token}/"
    assert served.server_address[0] == "127.0.0.1" and len(served.token) >= 32
    status, page, answer = ask(served, secret)
    assert (
        status == 200
        and b"<title>liverjax" in page
        and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    )
    assert ask(served, secret + "case/0", f"localhost:{served.server_port}")[0] == 200
    for path, host in (
        ("/", None), ("/cases.json", None), (f"/{served.token[:-1]}/", None), (f"/{served.token}x/case/0", None),
        (secret, "evil.example"), (secret, f"evil.example:{served.server_port}"), (secret, "127.0.0.1"),
    ):  # fmt: skip
        assert ask(served, path, host)[0] == 403, (path, host)
    for path in (
        "scan.nii", "../../etc/passwd", "%2e%2e/scan.nii", "volume/0/../../../scan.nii", "volume/0/9.nii",
        "volume/7/0.nii", "volume/0/-1.nii", "case/x", "case/99999999999999", f"/{tmp_path}/scan.nii", "server.py",
        "volume/0/%D9%A1.nii",
    ):  # fmt: skip
        assert ask(served, secret + path)[0] == 404, path
    assert ask(served, secret, method="POST")[0] == 501
    assert json.loads(ask(served, secret + "cases.json")[1])[1]["name"] == "second"
    assert ask(served, secret + "case/1")[0] == 410 and b"no such file" in ask(served, secret + "case/1")[1]


def test_the_port_is_one_that_is_free(served):
    with pytest.raises(
        server.InputError, match="cannot be listened on .*, expected a free port; leave --port out"
    ):
        server.start([], served.server_port)
    server.start([], 0).close()


@pytest.fixture
def browser(tmp_path):
    if chromium.PATH is None:
        pytest.skip("no Chromium on this machine")
    with chromium.Chromium(tmp_path / "profile") as opened:
        yield opened


def voxel(browser):
    return [int(value) for value in browser.run("document.body.dataset.voxel").split(",")]


def colors(browser, tmp_path):
    """Pixels of the picture that are as blue, orange, green, yellow as an outline."""
    picture = np.asarray(Image.open(io.BytesIO(browser.shoot(tmp_path / "shot.png"))).convert("RGB")).astype(
        int
    )[:, :560]
    wanted = {
        "blue": (86, 180, 233),
        "orange": (230, 159, 0),
        "green": (0, 158, 115),
        "yellow": (240, 228, 66),
    }
    return {name: int((np.abs(picture - rgb).max(axis=2) < 30).sum()) for name, rgb in wanted.items()}


def test_the_page_shows_leads_and_stays_on_this_machine(browser, served, tmp_path):
    browser.open(served.address, 900, 420)
    assert browser.wait("document.body?.dataset.state") == "ready"
    assert browser.run("document.title") == "<b>first</b>, liverjax"
    assert voxel(browser)[2] == 20  # The worst slice is where it opens.
    assert (
        browser.run("document.querySelector('#measure').textContent")
        == "Dice with reference, the worst first"
    )

    browser.click("#lesions li:nth-child(2) button")
    assert voxel(browser) == [18, 18, 18]
    browser.press("l")
    assert voxel(browser) == [10, 18, 12]
    for key, change in (("ArrowUp", (0, 0, 1)), ("ArrowRight", (1, 0, 0)), ("PageDown", (0, 0, -10))):
        before = voxel(browser)
        browser.press(key)
        assert voxel(browser) == np.add(before, change).tolist(), key
    browser.press("n")
    browser.press("n")
    assert (
        browser.run("document.querySelectorAll('#slices button')[1].getAttribute('aria-current')") == "true"
    )

    browser.click("#lesions li:nth-child(1) button")
    browser.press("2")  # The axial plane alone.
    both = colors(browser, tmp_path)
    assert both["green"] > 50 and both["yellow"] > 20
    browser.click("#layer-1")
    without = colors(browser, tmp_path)
    assert without["green"] < both["green"] / 4 and without["blue"] > 50 and without["orange"] > 20
    browser.press("m")
    assert colors(browser, tmp_path)["blue"] < without["blue"] / 4
    browser.press("m")
    browser.click("#fill")
    assert colors(browser, tmp_path)["blue"] > 3 * without["blue"]
    browser.click("#fill")
    browser.change("#opacity", 0, "input")
    assert colors(browser, tmp_path)["blue"] < without["blue"] / 4

    assert all(address.startswith(served.address) for address in browser.requests()), browser.requests()
    assert not browser.problems()


def test_each_volume_is_prepared_once_and_the_rendering_comes_last(browser, served):
    """NiiVue would prepare all of them anew for each that comes: in software, a large scan then takes a minute."""
    count = """window.uploads = [];
        const upload = WebGL2RenderingContext.prototype.texSubImage3D;
        WebGL2RenderingContext.prototype.texSubImage3D = function (...words) {
          window.uploads.push(words.slice(5, 8).join(","));
          return upload.apply(this, words);
        };"""
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=count)["identifier"]
    try:
        browser.open(served.address)
        assert browser.wait("document.body?.dataset.state") == "ready"
        shown = browser.run("document.querySelectorAll('#layers input:checked').length")
        large = "window.uploads.filter((size) => size === '40,36,30').length"
        assert shown == 2 and browser.run(large) == 1 + shown  # The scan, and each layer that is seen.
        for times in (2, 3):  # All layers at once, off and on.
            browser.press("m")
            assert times + shown <= browser.run(large) <= times * (1 + shown)
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_a_file_that_is_gone_is_named_and_other_cases_go_on(browser, served):
    browser.open(f"{served.address}?case=1")
    assert browser.wait("document.body?.dataset.state") == "failed"
    assert "gone.nii: no such file" in browser.run("document.querySelector('[role=alert]').innerText")
    browser.change("#case", 0, "change")
    assert browser.wait("document.body?.dataset.state === 'ready'")


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_and_nothing_is_cut_on_narrow_screens(browser, served, dark):
    browser.open(served.address, 400, 800, dark)
    browser.wait("document.body?.dataset.state")
    assert browser.run("document.documentElement.scrollWidth") <= 400
    pairs = browser.run("""(() => {
        const parse = (color) => color.match(/[0-9.]+/g).map(Number);
        const page = parse(getComputedStyle(document.body).backgroundColor);
        const texts = document.querySelectorAll("aside :is(p, td, th, label, h2, button, small)");
        return [...texts].map((text) => [parse(getComputedStyle(text).color), page]);
    })()""")
    assert len(pairs) > 20

    def luminance(rgb):
        value = np.array(rgb[:3]) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for text, page in pairs:  # WCAG 2.1: 4.5 to 1.
        high, low = sorted((luminance(text), luminance(page)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, page)


def test_predictions_of_a_run_are_shown(browser, tiny_run, phantom_scans, tmp_path):
    from liverjax.commands.dispatch import main

    words = [
        "predict",
        f"--model={tiny_run}",
        "-i",
        str(phantom_scans),
        "-o",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert main([*words, "--subset=test", "--save_uncertainty"]) == 0
    references = {case.id: case.read_mask for case in find_cases(phantom_scans, labelled=True)}
    running = server.start(study.read_folder(tmp_path / "out", references))
    try:
        browser.open(running.address)
        assert browser.wait("document.body?.dataset.state") == "ready", browser.problems()
        assert browser.run("document.querySelectorAll('#layers .layer').length") == 3
        assert "expected Dice, the worst first" in browser.run(
            "document.querySelector('#measure').textContent"
        )
    finally:
        running.close()
