"""Does slice quality find poor slices: slices and rankings by hand, and the way through a run."""

import shutil

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.prediction import Prediction
from liverjax.scans.grid import working_grid
from liverjax.studies import quality
from liverjax.studies.quality import Slices
from liverjax.volume import Volume


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("direction", [1, -1])
def test_slices_of_a_case_by_hand(order, direction):
    # Rows of 10 voxels of 2 x 3 mm: predicted, referenced, and the liver's probability in all of the slice.
    predicted, referenced = np.array([0, 10, 5, 0, 0]), np.array([0, 10, 10, 4, 0])
    p = np.array([0.0, 1.0, 0.75, 0.25, 0.25])
    x = np.arange(10)[:, None, None]
    masks = [(x < counts).astype(np.uint8) for counts in (predicted, referenced)]
    masks[1] *= 2  # tumour is liver
    liver = np.broadcast_to(p, (10, 1, 5))
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    grid = working_grid(Volume(masks[0], affine), (2.0, 3.0, 5.0))
    # The same patient with its axes stored in another order, and its slices from the head down.
    if direction < 0:
        masks = [mask[:, :, ::-1] for mask in masks]
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
    stored = affine[:, [*order, 3]]
    mask, reference = (mask.transpose(order) for mask in masks)
    labels = Volume(mask, stored)
    probabilities = np.stack([1 - liver, liver], -1).astype(np.float32)
    found = quality.scored_slices("a", Prediction(labels, labels, probabilities, grid), reference)
    # With no liver on either side the first and the last are left out; in which direction the rest goes is the scan's.
    assert found.case.tolist() == ["a"] * 3
    np.testing.assert_allclose(found.dice[::direction], [1, 2 * 5 / 15, 0])
    np.testing.assert_allclose(found.area[::direction], [60, 30, 0])
    # s = 100 mm2; 60 mm2 of slice, of which the mask has 60, 30 and 0 and the probabilities 60, 45 and 15:
    # (120 + 100) / (60 + 60 + 100), (45 + 100) / (30 + 45 + 100) and 100 / (15 + 100).
    np.testing.assert_allclose(found.quality[::direction], [1, 145 / 175, 100 / 115], atol=1e-6)


def test_ranking_by_hand():
    case = np.array(["a", "a", "b", "b", "c", "c"])
    dice = np.array([0.5, 0.95, 0.8, 0.9, 0.2, 1.0])  # 0.9 is good enough
    slices = Slices(case, dice, quality=dice, area=np.array([1.0, 2, 4, 5, 3, 2]))
    assert slices.poor.tolist() == [True, False, True, False, True, False]
    found = quality.ranking(slices)
    assert found["slice quality"] == (1, 1, 1)
    # Poor areas 1, 4, 3 against 2, 5, 2, small first: 1 before all, 4 and 3 before 5 alone: 5 of 9.
    value, low, high = found["predicted area"]
    assert value == 5 / 9 and 0 <= low < value < high <= 1
    assert found["difference"] == pytest.approx((1 - value, 1 - high, 1 - low))
    text = quality.table(slices)
    assert [line.split()[0] for line in text.splitlines()] == ["case", "a", "b", "c", "all", *["AUROC,"] * 3]
    assert "AUROC, predicted area   0.56" in text and "AUROC, slice quality    1.00" in text


def test_slices_of_one_case_alone_have_no_interval():
    slices = Slices(np.array(["a", "a"]), np.array([0.5, 1]), np.array([0, 1.0]), np.array([1.0, 2]))
    assert quality.ranking(slices)["slice quality"] == pytest.approx((1, np.nan, np.nan), nan_ok=True)


def test_the_test_cases_of_runs_are_judged(tiny_run, phantom_scans, tmp_path, capsys):
    words = ["quality", f"--models={tiny_run},{tiny_run}/", "-i", str(phantom_scans), "--quiet"]
    assert main(words) == 1
    assert (
        "is given twice, so that its slices would count twice; give each run once" in capsys.readouterr().err
    )
    again = shutil.copytree(tiny_run, tmp_path / "again")
    words[1] = f"--models={tiny_run},{again}"
    assert main(words) == 0
    once = quality.held_out_slices([tiny_run], phantom_scans, quiet=True)
    lines = capsys.readouterr().out.splitlines()
    # Two runs of one split: the same cases, each with twice the slices.
    assert lines[len(set(once.case)) + 1].split()[:2] == ["all", str(2 * len(once.case))]
    words[1] = f"--models={tiny_run}"
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[len(set(once.case)) + 1].split()[:2] == ["all", str(len(once.case))]
    assert [line.split()[0] for line in lines[1 : len(set(once.case)) + 1]] == list(dict.fromkeys(once.case))
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    with pytest.raises(InputError, match="holds no test case"):
        quality.held_out_slices([tiny_run], scan)
