"""The report of a training run: from its folder, whatever is in it, and never in the way of training."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from liverjax.errors import InputError
from liverjax.report.events import validation_strip
from liverjax.report.lines import Line, line_chart, smoothed, ticks
from liverjax.report.training import best_record, training_report
from liverjax.training.logs import RunLog
from liverjax.training.run_report import RunReport


def _log(folder, dice, first_step=0):
    """A log of one validation every 10 steps, with four slices whose prediction grows with each."""
    folder.mkdir(parents=True, exist_ok=True)
    with RunLog(folder, folder.name, first_step=first_step, steps=10, quiet=True) as log:
        for place, value in enumerate(dice, 1):
            step = first_step + 10 * place
            log.write(step, loss=1 / step, learning_rate=1e-3)
            log.write(step, validation_dice=value)
            masks = np.zeros((2, 4, 40, 40), np.uint8)
            masks[0, :, 2:8, 4:12] = 1  # The reference: low in the array, and to its left.
            masks[1, :, 20 : 24 + place, 30:38] = 1
            log.add_images(step, np.zeros((4, 40, 40)), *masks)


@pytest.fixture
def run(tmp_path):
    _log(tmp_path / "run" / "axial", [0.5, 0.9, 0.8])
    _log(tmp_path / "run" / "sagittal", [0.4, 0.4])
    return tmp_path / "run"


def _steps(strip):
    return [caption.partition("step ")[2] for caption in strip.captions]


def test_the_first_of_the_highest_scores_is_the_chosen_one():
    records = [{"step": 1, "loss": 2.0}]
    assert best_record(records) is None
    records += [{"step": s, "validation_dice": d} for s, d in ((2, 0.5), (3, 0.7), (4, 0.7))]
    assert best_record(records)["step"] == 3
    # With detection the mean decides: 0.45 against 0.4.
    records = [{"step": 1, "validation_dice": 0.5, "validation_detection": 0.4}]
    records += [{"step": 2, "validation_dice": 0.7, "validation_detection": 0.1}]
    assert best_record(records)["step"] == 1


def test_curves_pictures_and_the_chosen_checkpoints_of_a_run(run):
    page = training_report(run)
    assert page == run / "report.html" and list(run.glob(".partial*")) == []
    text = page.read_text(encoding="utf-8")
    assert "<title>axial: 0.900 at step 20</title>" in text
    assert "<title>sagittal: 0.400 at step 10</title>" in text
    assert re.findall("<h3>([^<]*)</h3>", text) == [
        "Four slices of each network, validation by validation", "Does the loss fall?",
        "Does the validation Dice rise?", "How large are the steps?",
    ]  # fmt: skip
    names = [json.loads(n.replace("&quot;", '"')) for n in re.findall('data-names="(.*?)"', text)]
    assert names[0] == ["axial, step 10", "axial, step 20 (chosen)", "axial, step 30"] and len(names) == 2
    assert "<dt>Data</dt>" not in text  # There is no run.json.
    before = page.read_bytes()
    assert training_report(run).read_bytes() == before
    facts = {"config": {"name": "mine", "seed": 7, "store": "s"}, "versions": {"jax": "1", "liverjax": "2"}}
    facts |= {"machine": {"devices": ["cpu"]}, "data": {"train": ["a", "b"], "validation": ["c"], "test": []}}
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    text = training_report(run, run / "other.html").read_text(encoding="utf-8")
    assert "config mine, seed 7" in text and "cases 2 train, 1 validation, 0 test" in text


def test_slices_are_turned_as_a_patient_is_seen_and_outlined_in_the_colours_of_all_pages(run):
    strip = validation_strip(run / "axial" / "tensorboard", "axial", 20)
    assert strip.start == 1 and strip.size == (80, 80) and len(strip.captions) == 3
    pixels = np.asarray(Image.open(io.BytesIO(strip.picture.data)).convert("RGB")).astype(int)
    first = pixels[:40, :40]
    yellow = (first[..., 0] > 170) & (first[..., 2] < 140)
    blue = (first[..., 2] > 170) & (first[..., 0] < 140)
    (rows, columns), (blue_rows, blue_columns) = np.nonzero(yellow), np.nonzero(blue)
    # Rows 2 to 8 of 40 are low in the picture, columns 4 to 12 on its right.
    assert rows.min() >= 30 and columns.min() >= 26 and blue_rows.max() < 22 and blue_columns.max() < 13


def test_what_a_resumed_run_did_again_is_shown_once_and_a_cut_record_is_passed_over(run):
    (events,) = (run / "axial" / "tensorboard").iterdir()
    with open(events, "ab") as file:
        file.write(b"\x40\0\0\0\0\0\0\0....half a record")
    strip = validation_strip(run / "axial" / "tensorboard", "axial", 20)
    assert _steps(strip) == ["10", "20 (chosen)", "30"]
    _log(run / "axial", [0.95], first_step=12)
    assert _steps(validation_strip(run / "axial" / "tensorboard", "axial", 22)) == ["10", "22 (chosen)"]
    assert "axial: 0.950 at step 22" in training_report(run).read_text(encoding="utf-8")


def test_of_many_validations_some_are_shown_and_the_chosen_one_among_them(tmp_path):
    _log(tmp_path / "axial", [0.1] * 40)
    steps = _steps(validation_strip(tmp_path / "axial" / "tensorboard", "axial", 90))
    assert len(steps) in (16, 17) and steps[0] == "10" and steps[-1] == "400" and "90 (chosen)" in steps


def test_of_restarts_the_one_that_is_kept_is_shown(tmp_path):
    for k, dice in enumerate(([0.3, 0.8], [0.6, 0.7])):
        _log(tmp_path / "axial" / f"restart_{k}", dice)
    assert "axial, restart 0 of 2" in training_report(tmp_path).read_text(encoding="utf-8")
    record = {"selections": [{"step": 20, "validation_dice": {"0": 0.8, "1": 0.7}, "kept": [1]}]}
    (tmp_path / "axial" / "restarts.json").write_text(json.dumps(record), encoding="utf-8")
    assert "axial, restart 1 of 2" in training_report(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_a_log_is_named(tmp_path):
    (tmp_path / "axial").mkdir()
    (tmp_path / "axial" / "log.jsonl").write_text('{"step": 1, "lo', encoding="utf-8")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=r"holds no NETWORK/log\.jsonl with a record"):
            training_report(folder)


def test_a_report_that_cannot_be_written_is_said_once_and_stops_nothing(run, caplog):
    (run / "report.html").mkdir()
    report = RunReport(run)
    for _ in range(3):
        report._next = 0.0
        report.refresh()
    said = [record.getMessage().partition(" could")[0] for record in caplog.records]
    assert said == [f"{run / 'report.html'}:"]
    (run / "report.html").rmdir()
    report.finish()
    assert (run / "report.html").is_file() and list(run.glob(".partial*")) == []


def test_a_report_waits_until_it_is_cheap_but_the_last_one_is_written(run):
    report, page = RunReport(run), run / "report.html"
    report.refresh()
    assert not page.exists()  # A run of a few seconds gets one at its end.
    report._next = 0.0
    report.refresh()
    first = page.stat().st_mtime_ns
    _log(run / "coronal", [0.7])
    report.refresh()
    assert page.stat().st_mtime_ns == first
    report.finish()
    assert "coronal" in page.read_text(encoding="utf-8")
    written = page.stat().st_mtime_ns
    report.finish()
    assert page.stat().st_mtime_ns == written


def test_round_ticks_and_smooth_curves():
    assert ticks(0, 1500, 5) == [0, 500, 1000, 1500]
    assert ticks(0.13, 0.93, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 3, 5)[0] < 3 < ticks(3, 3, 5)[-1]
    np.testing.assert_allclose(smoothed([2.0] * 50), 2.0)  # A constant stays, also at the ends.
    # Weights exp(-k^2 / 2) up to k = 3, of which the left end leaves k = -2 to 3.
    weights = [np.exp(-0.5 * k * k) for k in (-2, -1, 0, 1, 2, 3)]
    np.testing.assert_allclose(smoothed([0, 0, 0, 1, 0, 0, 0])[2], np.exp(-0.5) / sum(weights))
    gap = smoothed([1.0, np.nan, 3.0])
    assert np.isnan(gap[1]) and 1 < gap[0] < 2 < gap[2] < 3
    chart = line_chart([Line([0, 1, 2], [0.0, np.nan, 1.0]), Line([], [])], "step <", "loss")
    assert "step &lt;" in chart and "nan" not in chart.lower()
