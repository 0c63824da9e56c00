"""How observers differ: masks whose differences are known, by hand and by simulation; and bad input."""

import csv
import json
import math
import shlex

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.scoring import statistics
from liverjax.studies.observers import study_observers, variability
from liverjax.volume import Volume

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
SHAPE = (20, 18, 10)


def write(path, *boxes, value=1, affine=AFFINE, shape=SHAPE):
    """Writes a mask of boxes, each ((low, high), (low, high), (low, high))."""
    voxels = np.zeros(shape, np.uint8)
    for box in boxes:
        voxels[tuple(slice(*side) for side in box)] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume(voxels, affine))


def box(first, length=10):
    return ((first, first + length), (4, 12), (2, 8))


@pytest.fixture
def folders(tmp_path):
    """Three readers of two cases: lengths 10, 11, 12 of one face, so volumes of 10 : 11 : 12; all alike in case b."""
    for reader, length in zip("xyz", (10, 11, 12), strict=True):
        write(tmp_path / reader / "a.nii.gz", box(3, length))
        write(tmp_path / reader / "b.nii.gz", box(4))
    return [tmp_path / reader for reader in "xyz"]


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_figures_by_hand(folders):
    found = study_observers(folders, quiet=True)
    a, b = found.cases
    # A slab of length 1 is 8 x 6 voxels of 20 mm3: 0.96 ml. Majority: length 11, as two of three have it.
    assert a["reader_x_ml"] == pytest.approx(9.6) and a["majority_ml"] == pytest.approx(11 * 0.96)
    assert a["consensus_ml"] == a["base_ml"] == pytest.approx(11 * 0.96)
    assert a["disagreement_ml"] == pytest.approx(2 * 0.96)
    # Differences of 1, 2 and 1 of 11.
    assert a["variability_percent"] == pytest.approx(100 * 4 / 3 / 11)
    dice = {(row["a"], row["b"]): row["dice"] for row in found.pairs if row["case"] == "a"}
    assert dice == pytest.approx({("x", "y"): 20 / 21, ("x", "z"): 20 / 22, ("y", "z"): 22 / 23})
    assert {row["rve_percent"] for row in found.each if row["case"] == "b"} == {0}
    assert math.isnan(b["kappa"]) and math.isnan(b["alpha"]) and b["variability_percent"] == 0
    assert 0 < a["kappa"] < 1
    assert any("all readers are identical in b" in note for note in found.notes)


def test_volumes_relate_to_a_reference_if_there_is_one(folders, tmp_path):
    write(tmp_path / "truth" / "a.nii.gz", box(3, 20 - 4))
    write(tmp_path / "truth" / "b.nii.gz", box(4))
    found = study_observers(folders, reference=tmp_path / "truth", quiet=True)
    assert found.cases[0]["variability_percent"] == pytest.approx(100 * 4 / 3 / 16)
    x = found.each[0]
    assert x["rve_percent"] == pytest.approx(-100 * 6 / 16) and x["dice_reference"] == pytest.approx(20 / 26)


def test_two_readers_meet_midway(tmp_path):
    write(tmp_path / "x" / "a.nii.gz", box(3, 8))
    write(tmp_path / "y" / "a.nii.gz", box(3, 12))
    found = study_observers([tmp_path / "x", tmp_path / "y"], tmp_path / "out", quiet=True)
    # On the line through the middle, two of the four voxels in doubt; at the edges of the faces fewer.
    consensus = nifti.read_mask(tmp_path / "out" / "consensus" / "a.nii.gz").voxels
    assert np.flatnonzero(consensus[:, 8, 5]).tolist() == list(range(3, 13))
    assert 8 * 0.96 < found.cases[0]["consensus_ml"] < 10 * 0.96
    assert math.isnan(found.each[0]["sensitivity"])


def test_a_reader_may_be_called_as_a_column_is(folders):
    words = [
        f"{name}={folder}" for name, folder in zip(("base", "consensus", "majority"), folders, strict=True)
    ]
    found, other = study_observers(words, quiet=True), study_observers(folders, quiet=True)
    assert [row["value"] for row in found.summary] == pytest.approx(
        [row["value"] for row in other.summary], nan_ok=True
    )


def test_modes_are_compared_in_pairs(tmp_path):
    """Manual readers differ by 2 of 10 in each of eight cases, corrected ones by 0: p is 2 / 2^8."""
    words = []
    for mode, name, length in (
        ("manual", "A", 10),
        ("manual", "B", 12),
        ("corrected", "A", 11),
        ("corrected", "B", 11),
    ):
        for case in range(8):
            write(tmp_path / mode / name / f"{case}.nii.gz", box(3, length))
        words.append(f"{mode}/{mode[0]}{name}={tmp_path / mode / name}")
    found = study_observers(words, quiet=True)
    tests = {test["measure"]: test for test in found.tests}
    assert set(tests) == {"variability [%]", "Dice between readers"}
    assert tests["variability [%]"]["mean_difference"] == pytest.approx(100 * 2 / 11)
    assert tests["variability [%]"]["p_permutation"] == pytest.approx(2 / 2**8)
    assert tests["variability [%]"]["p_holm"] == pytest.approx(4 / 2**8)
    assert tests["Dice between readers"]["mean_difference"] == pytest.approx(20 / 22 - 1)


def test_the_command_writes_tables_maps_and_a_report(folders, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["study", "observers", f"--readers={','.join(map(str, folders))}", f"-o={out}"]
    assert main(words) == 0
    assert "inter-observer variability" in capsys.readouterr().out
    assert len(rows(out / "pairs.csv")) == 6 and len(rows(out / "readers.csv")) == 6
    summary = {row["figure"]: row for row in rows(out / "summary.csv")}
    assert float(summary["Dice, x - y"]["value"]) == pytest.approx((20 / 21 + 1) / 2)
    votes = nifti.read_mask(out / "votes" / "a.nii.gz", labels=range(4))
    assert np.bincount(votes.voxels.ravel())[1:].tolist() == [48, 48, 480]
    consensus = nifti.read_mask(out / "consensus" / "a.nii.gz")
    nifti.require_same_geometry(consensus, nifti.read_mask(folders[0] / "a.nii.gz"))
    assert consensus.voxels.sum() == 11 * 48
    assert json.loads((out / "observers.json").read_text())["use"] == "research use only"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image") == 11  # Three planes of two cases, and five charts.
    assert main(words) == 0  # The same study again replaces its files.
    capsys.readouterr()
    assert main([*words, "--cases=a"]) == 1
    assert "holds a study of other readers, cases or another region" in capsys.readouterr().err
    assert main([*words[:-1], "--cases=a", f"-o={tmp_path / 'other'}"]) == 0


def test_lesions_each_reader_found(tmp_path):
    """Of two tumours that x and y outline, z has one, and another where nobody else sees any."""
    first, second, third = ((2, 5), (2, 5), (2, 4)), ((10, 13), (2, 5), (2, 4)), ((10, 13), (12, 15), (2, 4))
    for reader, boxes in (("x", (first, second)), ("y", (first, second)), ("z", (first, third))):
        write(tmp_path / reader / "a.nii.gz", *boxes, value=2)
    found = study_observers([tmp_path / reader for reader in "xyz"], region="tumor", quiet=True)
    counts = [
        (row["lesions_others"], row["lesions_found"], row["lesions"], row["lesions_confirmed"])
        for row in found.each
    ]
    assert counts[2] == (2, 1, 2, 1)


def test_empty_masks_are_stated_values(tmp_path):
    write(tmp_path / "x" / "a.nii.gz", box(3))
    for reader in "yz":
        write(tmp_path / reader / "a.nii.gz")
    found = study_observers([tmp_path / reader for reader in "xyz"], quiet=True)
    dice = [row["dice"] for row in found.pairs]
    assert dice[:2] == [0, 0] and math.isnan(dice[2]) and found.pairs[0]["assd"] == math.inf
    assert math.isnan(found.cases[0]["variability_percent"])  # The consensus is empty: nothing to relate to.
    assert any("mask is empty in a" in note for note in found.notes)
    for reader in "x":
        write(tmp_path / reader / "a.nii.gz")
    found = study_observers([tmp_path / reader for reader in "xyz"], quiet=True)
    assert found.cases[0]["consensus_ml"] == 0 and all(math.isnan(row["dice"]) for row in found.pairs)


def test_bad_input_is_one_line_with_a_remedy(folders, tmp_path, capsys):
    x, y, z = folders

    def status(*words):
        code = main(["study", "observers", *words, f"-o={tmp_path / 'out'}", "--quiet"])
        return code, capsys.readouterr().err.strip()

    code, line = status(f"--readers={x}")
    assert code == 1 and "expected 2 to 16, as --readers=FOLDER1,FOLDER2" in line and "\n" not in line
    assert status(f"--readers={x},{x}")[1].endswith("is given twice, expected another folder for each reader")
    (y / "b.nii.gz").unlink()
    code, line = status(f"--readers={x},{y}")
    assert code == 1 and "no mask of b of y" in line
    remedy = next(word for word in shlex.split(line) if word.startswith("--cases="))
    assert status(f"--readers={x},{y}", remedy) == (0, "")
    write(tmp_path / "more" / "x" / "a.nii.gz", box(3))
    code, line = status(f"--readers={x},{tmp_path / 'more' / 'x'}", "--cases=a")
    assert code == 1 and "two readers called 'x'" in line
    remedy = next(word for word in shlex.split(line) if word.startswith("--readers="))
    code, line = main(["study", "observers", remedy, "--cases=a", f"-o={tmp_path / 'named'}", "--quiet"]), ""
    assert code == 0
    assert status(f"--readers={x},{z}", "--values=liver")[1].endswith(
        "expected whole numbers of 1 to 255, as 1,2"
    )
    assert "of every case" in status(f"--readers={x},{z}", f"--reference={y}")[1]


def test_masks_of_another_geometry_are_refused(folders):
    write(folders[1] / "a.nii.gz", box(3), affine=np.diag([2.0, 2.0, 4.0, 1.0]))
    with pytest.raises(InputError, match="mm apart"):
        study_observers(folders, quiet=True)
    write(folders[1] / "a.nii.gz", box(3), shape=(20, 18, 11))
    with pytest.raises(InputError, match="expected the same shape"):
        study_observers(folders, quiet=True)


def test_the_interval_covers_the_known_variability():
    """Readers of 20 livers, whose masks are scaled by known errors; the truth by the folded normal distribution.

    A mask is {r < s} of a gauge r, so that a scaling of s^3 is one of the volume; each reader also shifts the
    mask by up to two voxels, which changes no volume. 100 repetitions: of a true 95 %, below 90 in one of 35.
    """
    rng, readers, cases = np.random.default_rng(7), 3, 20
    bias, error = np.array([-2.0, 0.5, 2.5]), 2.0
    axes = np.meshgrid(*([np.linspace(-1.3, 1.3, 40)] * 3), indexing="ij")
    gauges = []
    for _ in range(cases):
        stretch = rng.uniform(0.8, 1.25, 3)
        angle = np.arctan2(axes[1], axes[0])
        wobble = 1 + 0.08 * np.sin(3 * angle + rng.uniform(0, 6))
        gauges.append(np.sqrt(sum((axis * s) ** 2 for axis, s in zip(axes, stretch, strict=True))) / wobble)
    ordered = [np.sort(gauge.ravel()) for gauge in gauges]
    pairs = [bias[a] - bias[b] for a, b in ((0, 1), (0, 2), (1, 2))]
    sd = error * math.sqrt(2)
    known = np.mean(
        [
            sd * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * sd**2))
            + m * math.erf(m / (sd * math.sqrt(2)))
            for m in pairs
        ]
    )
    covered = 0
    for repetition in range(100):
        factor = 1 + (bias + rng.normal(0, error, (cases, readers))) / 100
        volumes = np.empty((cases, readers))
        base = np.empty(cases)
        for case, (gauge, sorted_gauge) in enumerate(zip(gauges, ordered, strict=True)):
            radius = 0.8 * np.cbrt(factor[case])
            base[case] = np.searchsorted(sorted_gauge, 0.8)
            for reader in range(readers):
                mask = np.roll(gauge < radius[reader], rng.integers(-2, 3), axis=reader)
                volumes[case, reader] = np.count_nonzero(mask)
        low, high = statistics.confidence_interval(variability(volumes, base), seed=repetition)
        covered += low <= known <= high
    assert covered >= 90
