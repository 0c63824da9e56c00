"""Training for tumours in boxes around the liver: what counts, what chooses the checkpoint, resumption, refusals."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.config import override
from liverjax.data.sampling import Sampler
from liverjax.data.splits import require_tumors, split_cases
from liverjax.data.store import open_store, prepare
from liverjax.errors import ConfigError, InputError
from liverjax.options import Augment
from liverjax.training.distributed import data_mesh, replicated, to_devices
from liverjax.training.loop import train
from liverjax.training.mining import mine
from liverjax.training.step import init_state, step_spec, train_step
from liverjax.training.validation import Validation, _detection

CHANGES = (
    *(
        "target.region=reference",
        "target.labels=background,tumor",
        "target.margin_mm=24",
        "target.dilation_mm=8",
    ),
    *("batch.stratified=true", "batch.tumor_share=0.5", "batch.liver_share=0.5", "batch.patch=32,32"),
    *("loss.lesion_power=0.5", "views=axial"),
)


@pytest.fixture(scope="module")
def boxed(tiny_config, phantom_scans, made_once):
    config = override(tiny_config, CHANGES)
    store = made_once("tumor_training", lambda folder: prepare(phantom_scans, folder, config, quiet=True))
    return dataclasses.replace(config, store=str(store))


class _Answer:
    """Stands in for a network of two classes: its logits are those of a probability map given by the image."""

    def apply(self, _variables, image):
        return jnp.concatenate([jnp.zeros_like(image), image], axis=-1)


def test_dice_is_the_mean_of_cases_and_detection_that_of_lesions_and_slices():
    # Rows of 1 x 4 pixels; an image of 1 predicts tumour, -1 none.
    image = [[1, 1, -1, -1], [-1, -1, 1, -1], [1, -1, -1, 1], [1, 1, 1, 1]]
    label = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    lesion = [[1, 1, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]]
    counts = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    batch = {
        "image": np.int16(image)[:, None],
        "window": np.float32([[-1, 1, 1]] * 4),
        "label": np.uint8(label)[:, None],
        "lesion": np.int32(lesion)[:, None],
        "case": np.int32([0, 0, 1, 0]),
        "pixel_weight": np.float32(counts)[:, None],
        "weight": np.float32([1, 1, 1, 0]),
    }
    validation = Validation([batch], ("tumor",), _Answer(), data_mesh(4))
    scores = validation({})
    # Case 0: overlap 2, predicted 3, reference 4 (the last row is padding); case 1 holds no tumour and has no Dice.
    # Lesion 1 is found, 2 is not, 3 is not seen: R = 1/2. All three slices have predictions, 2 hold tumour: P = 2/3.
    assert scores["tumor"] == pytest.approx(4 / 7)
    assert scores["detection"] == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    # What lies outside the dilated liver is shown as background.
    assert validation.examples[2][2].tolist() == [[1, 0, 0, 0]]


def test_detection_at_its_extremes():
    two = np.array([[4.0, 8.0], [3.0, 8.0]])
    assert _detection(two, np.array([0.0, 0.0])) == 0
    assert _detection(two, np.array([5.0, 5.0])) == pytest.approx(
        2 * 0.5 / 1.5
    )  # 4 of 8 is found, 3 of 8 is not.
    assert _detection(np.zeros((2, 2)), np.array([5.0, 0.0])) == 0


def test_a_step_learns_nothing_from_pixels_that_do_not_count(boxed):
    config = dataclasses.replace(boxed, augment=Augment(**dict.fromkeys(vars(Augment()), 0.0)))
    config = override(config, ("model.norm=none", "model.dropout=0", "batch.patch=16,16"))
    spec, mesh = step_spec(config), data_mesh(4)
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(-100, 100, (4, 16, 16)).astype(np.int16),
        "window": np.float32([[-100, 100, 1]] * 4),
        "label": random.integers(0, 2, (4, 16, 16)).astype(np.uint8),
        "pixel_weight": np.zeros((4, 16, 16), np.float32),
    }
    batch["pixel_weight"][:, :8] = 1

    def gradient_norm(**changes):
        state = init_state(spec, (16, 16), 0, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        _, metrics = train_step(state, {**batch, **changes}, np.float32(0), jax.random.key(0), spec)
        return float(metrics["loss"]), float(metrics["gradient_norm"])

    label = batch["label"].copy()
    label[:, 8:] = 1 - label[:, 8:]
    assert gradient_norm() == gradient_norm(label=label)
    label[:, :8] = 1 - label[:, :8]
    assert gradient_norm() != gradient_norm(label=label)
    assert to_devices(batch, mesh)["pixel_weight"].shape == (4, 16, 16)


@pytest.mark.parametrize("mined", [0.0, 0.25])
def test_training_in_boxes_resumes_to_the_bit_and_logs_detection(
    boxed, tmp_path, final_state, assert_same_bits, mined
):
    config = override(boxed, (f"batch.mined_share={mined}", "batch.liver_share=0.25", "train.steps=6"))
    whole, halfway = tmp_path / "whole", tmp_path / "halfway"
    progress = train(config, whole, quiet=True)["axial"]
    lines = (whole / "axial" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    scores = [record for record in map(json.loads, lines) if "validation_detection" in record]
    assert [record["step"] for record in scores] == [2, 4, 6]
    means = [(record["validation_dice"] + record["validation_detection"]) / 2 for record in scores]
    assert progress.best_dice == pytest.approx(max(means)) and not math.isnan(means[0])
    # A network that has just begun sees tumours in healthy livers, and the checkpoint knows where.
    assert bool(progress.mined) == bool(mined)
    shutil.copytree(whole, halfway)
    shutil.rmtree(halfway / "axial" / "last" / "6")
    again = train(config, halfway, quiet=True)["axial"]
    assert_same_bits(final_state(config, halfway), final_state(config, whole))
    assert [tuple(entry) for entry in again.mined] == [tuple(entry) for entry in progress.mined]


def test_mined_slices_hold_no_tumour_and_are_drawn_by_their_pixels(boxed):
    cases = open_store(boxed.store, boxed.preprocess, boxed.target).cases
    spec, mesh = step_spec(boxed), data_mesh(boxed.batch.size)
    state = init_state(spec, boxed.batch.patch, 0, replicated(mesh))
    found = mine(state.variables, cases, "axial", boxed, mesh, 2)
    assert found == mine(state.variables, cases, "axial", boxed, mesh, 2)
    by_id = {case.id: case for case in cases}
    for name, view, index, pixels in found:
        liver, tumor = by_id[name].counts[view][index]
        within = np.count_nonzero(by_id[name].distance(view)[index] <= 8)
        assert liver > 0 and tumor == 0 and 0 < pixels <= within
    options = dataclasses.replace(boxed.batch, tumor_share=0.5, liver_share=0.0, mined_share=0.5)
    table = [(cases[0].id, "axial", 3, 1.0), (cases[2].id, "axial", 5, 3.0), (cases[1].id, "coronal", 1, 9.0)]
    sampler = Sampler(cases, ["axial"], options, 0, table)
    drawn = [sampler.draw(step, 3) for step in range(2000)]
    assert {(draw.case, draw.slice) for draw in drawn} == {(0, 3), (2, 5)}
    # 3 of 4, with a standard deviation of 0.0097.
    assert np.mean([draw.case == 2 for draw in drawn]) == pytest.approx(0.75, abs=0.04)


def test_without_tumours_in_training_or_validation_it_is_refused_and_the_remedies_work(boxed, tmp_path):
    cases = open_store(boxed.store, boxed.preprocess, boxed.target).cases
    ids = [case.id for case in cases if case.counts["axial"][:, 1].any()]
    assert "phantom_003" not in ids and len(ids) == 7

    def split(*kept):
        held_out = ",".join(case.id for case in cases if case.id not in kept)
        return override(boxed, (f"split.test_cases={held_out}", "split.validation=1"))

    # Of two cases the second chooses the checkpoint.
    with pytest.raises(
        InputError, match="no tumour in any of 1 training cases.*target.labels=background,liver"
    ):
        train(split("phantom_003", "phantom_004"), tmp_path / "run", quiet=True)
    healthy = split("phantom_002", "phantom_003")
    with pytest.raises(
        ConfigError, match=r"no tumour in the 1 cases that .* \(phantom_003\); expected another split"
    ):
        train(healthy, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "run.json").exists()
    liver = (
        "target.labels=background,liver",
        "loss.lesion_power=0",
        "batch.tumor_share=0",
        "batch.liver_share=1",
    )
    assert train(override(split("phantom_003", "phantom_004"), liver), tmp_path / "run", quiet=True)[
        "axial"
    ].finished
    for remedy in ("split.fold=1", "split.validation=3"):
        better = override(boxed, (remedy,))
        require_tumors(split_cases(cases, better.split), better)


def test_labels_and_regions_that_do_not_fit_are_refused_and_the_remedies_work(tiny_config):
    both = "target.labels=background,tumor"
    with pytest.raises(ConfigError, match="target.region is 'scan', expected reference or predicted with"):
        override(tiny_config, (both,))
    assert override(tiny_config, (both, "target.region=reference")).labels == ("background", "tumor")
    for mm in ("30", "4.5"):  # Distances are kept in whole mm: 4.5 would act as 4.
        with pytest.raises(
            ConfigError, match=rf"dilation_mm is {float(mm)}, expected a whole number of mm, 0 to 254"
        ):
            override(tiny_config, (both, "target.region=reference", f"target.dilation_mm={mm}"))
    override(tiny_config, (both, "target.region=reference", "target.dilation_mm=30", "target.margin_mm=30"))
    with pytest.raises(
        ConfigError, match="loss.lesion_power is 0.5, expected 0 without a class for tumours in a box"
    ):
        override(tiny_config, ("loss.lesion_power=0.5",))
    override(tiny_config, ("loss.lesion_power=0.5", both, "target.region=predicted"))
