"""Batches: their content against the store, and that they depend on nothing but seed and step."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from liverjax.config import to_dict
from liverjax.data.augment import AIR, normalise
from liverjax.data.pipeline import blank_batch, place_slice, train_batches, validation_batches
from liverjax.data.sampling import Sampler
from liverjax.data.store import OUTSIDE, open_store
from liverjax.errors import InputError
from liverjax.options import Target
from liverjax.scans import intensity


@pytest.fixture(scope="module")
def cases(tiny_config):
    return open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target).cases


def _read(config, cases, **kwargs):
    settings = {"first_step": 0, "last_step": 3, "process": 0, "processes": 1, **kwargs}
    return list(train_batches(cases, "coronal", config, **settings))


def test_batches_normalised_are_the_drawn_slices(tiny_config, cases):
    batch = _read(tiny_config, cases)[1]
    images = np.asarray(normalise(batch["image"], batch["window"]))
    assert batch["image"].dtype == np.int16 and images.shape == (*batch["image"].shape, 1)
    sampler = Sampler(cases, ["coronal"], tiny_config.batch, tiny_config.seed)
    for row in range(tiny_config.batch.size):
        draw = sampler.draw(1, row)
        case = cases[draw.case]
        low, high, _ = case.window
        stored = case.image("coronal")[draw.slice].astype(np.float64)
        expected = np.clip((stored - low) / (high - low), 0, 1) * 2 - 1
        rows, columns = expected.shape  # 36 x 48 in a patch of 48 x 48: centred, air above and below.
        assert (rows, columns) == (36, 48)
        np.testing.assert_allclose(images[row, 6:42, :, 0], expected, atol=1e-5)
        assert (images[row, :6] == AIR).all() and (images[row, 42:] == AIR).all()
        np.testing.assert_array_equal(batch["label"][row, 6:42], case.labels("coronal")[draw.slice])


def test_batches_do_not_depend_on_threads_start_or_processes(tiny_config, cases):
    whole = _read(tiny_config, cases)
    one_thread = dataclasses.replace(tiny_config, batch=dataclasses.replace(tiny_config.batch, threads=1))
    for again in (_read(one_thread, cases), whole[:2] + _read(tiny_config, cases, first_step=2)):
        for a, b in zip(whole, again, strict=True):
            np.testing.assert_array_equal(a["image"], b["image"])
    halves = [_read(tiny_config, cases, process=p, processes=2) for p in range(2)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([half[step]["image"] for half in halves])
        np.testing.assert_array_equal(batch["image"], joined)


def test_a_slice_that_is_larger_than_the_patch_is_cropped_where_the_draw_says(tiny_config, cases):
    batch = dataclasses.replace(tiny_config.batch, patch=(16, 24), size=8)
    config = dataclasses.replace(tiny_config, batch=batch)
    sampler = Sampler(cases, ["coronal"], batch, config.seed)
    for step, found in enumerate(_read(config, cases)):
        for row in range(8):
            draw = sampler.draw(step, row)
            case = cases[draw.case]
            assert case.shapes["coronal"][1:] == (36, 48)
            # 21 places for 16 of 36 rows, 25 for 24 of 48 columns.
            first, left = int(draw.row * 21), int(draw.column * 25)
            for name, stack in (("image", case.image("coronal")), ("label", case.labels("coronal"))):
                expected = stack[draw.slice][first : first + 16, left : left + 24]
                np.testing.assert_array_equal(found[name][row], expected)


def test_worker_processes_give_the_same_batches(tiny_config, cases):
    workers = dataclasses.replace(tiny_config, batch=dataclasses.replace(tiny_config.batch, workers=2))
    for a, b in zip(_read(tiny_config, cases), _read(workers, cases), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_without_a_tumor_class_tumor_is_liver(tiny_config, cases):
    liver_only = dataclasses.replace(tiny_config, target=Target(labels=("background", "liver")))
    for three, two in zip(_read(tiny_config, cases), _read(liver_only, cases), strict=True):
        assert three["label"].max() == 2 and two["label"].max() == 1
        np.testing.assert_array_equal(three["label"] > 0, two["label"] > 0)


def test_crops_reach_both_ends_of_a_slice_that_is_larger_than_the_patch(cases):
    case = cases[0]
    slice_ = case.image("axial")[20]
    for place, rows in ((0.0, slice(0, 16)), (0.999, slice(24, 40))):
        batch = blank_batch(2, (16, 48))
        place_slice(batch, 1, case, "axial", 20, (place, 0.5))
        np.testing.assert_array_equal(batch["image"][1], slice_[rows])
        assert (batch["image"][0] == OUTSIDE).all()


def test_each_row_has_the_window_of_its_case(cases):
    """MR scans: each has its own scale and window."""
    scaled = [
        dataclasses.replace(cases[0], scale=0.02, window=intensity.Window(-0.5, 8.0, 0.5)),
        dataclasses.replace(cases[1], scale=3.0, window=intensity.Window(-900.0, 600.0)),
    ]
    batch = blank_batch(2, scaled[0].shapes["axial"][1:])
    for row, case in enumerate(scaled):
        place_slice(batch, row, case, "axial", 20)
    images = normalise(batch["image"], batch["window"])[..., 0]
    for image, case in zip(images, scaled, strict=True):
        expected = intensity.normalise(case.image("axial")[20] * case.scale, *case.window)
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_a_damaged_case_is_named(tiny_config, cases, tmp_path):
    broken = dataclasses.replace(cases[0], folder=tmp_path)
    with pytest.raises(InputError, match=rf"case {cases[0].id}, coronal slice \d+: .*coronal.npy"):
        _read(tiny_config, [broken])


def test_validation_slices_are_whole_and_half_of_them_show_liver(tiny_config, cases):
    batches = validation_batches(cases[:2], "axial", tiny_config)
    labels = np.concatenate([batch["label"] for batch in batches])
    weights = np.concatenate([batch["weight"] for batch in batches])
    assert labels.shape == (8, 48, 48) and weights.sum() == 8
    assert (labels.any((1, 2))).sum() == 4


def test_the_last_validation_batch_is_filled_up_with_rows_of_no_weight(tiny_config, cases):
    train = dataclasses.replace(tiny_config.train, validation_slices=6)
    batches = validation_batches(cases[:2], "axial", dataclasses.replace(tiny_config, train=train))
    np.testing.assert_array_equal(batches[1]["weight"], [1, 1, 0, 0])
    images = normalise(batches[1]["image"], batches[1]["window"])
    assert (images[2:] == AIR).all() and not batches[1]["label"][2:].any()


#: A program of somebody who knows nothing of absl, whose flags Grain's workers ask.
_SCRIPT = """
import json, sys
from liverjax.config import resolve
from liverjax.data.pipeline import train_batches
from liverjax.data.store import open_store
config = resolve(json.loads(open(sys.argv[1]).read()))
cases = open_store(config.store, config.preprocess, config.target).cases
{guard}print(len(list(
    train_batches(cases, "axial", config, first_step=0, last_step=3, process=0, processes=1)
)), "batches")
"""


def test_worker_processes_start_from_a_script_and_without_a_main_guard_the_reason_is_named(
    tiny_config, tmp_path
):
    config = dataclasses.replace(tiny_config, batch=dataclasses.replace(tiny_config.batch, workers=1))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    runs = {}
    for name, guard in {"bare": "", "guarded": 'if __name__ == "__main__": '}.items():
        script = tmp_path / f"{name}.py"
        script.write_text(_SCRIPT.format(guard=guard), encoding="utf-8")
        command = [sys.executable, script, tmp_path / "config.json"]
        runs[name] = subprocess.run(command, capture_output=True, text=True)
    told = f"worker processes import {tmp_path / 'bare.py'}, which calls this again; put its calls below"
    assert runs["bare"].returncode == 1 and told in runs["bare"].stderr.splitlines()[-1]
    # As the message advises.
    assert runs["guarded"].stdout == "3 batches\n", runs["guarded"].stderr
