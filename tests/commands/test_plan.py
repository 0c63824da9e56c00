"""The command plan as it is typed: what it writes and says, and what it refuses without writing anything."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.scans import nifti
from liverjax.volume import Volume

SHAPE = (20, 16, 12)


def _write(path, voxels, step=10.0):
    nifti.write(path, Volume(voxels.astype(np.uint8), np.diag([step, 10, 10, 1]), name=str(path)))
    return str(path)


def _liver(tumor=4):
    """A liver of 10 x 8 x 6 ml, of which (tumor)^3 are tumour."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[5:15, 4:12, 3:9] = 1
    ids[6 : 6 + tumor, 5 : 5 + tumor, 4 : 4 + tumor] = 2
    return ids


@pytest.fixture
def files(tmp_path):
    """Paths by name: a mask, its scan, lobes, a territory and tables of volumes of 30 and of 19 scans."""
    ids = _liver()
    lobes = np.zeros(SHAPE)
    lobes[:10], lobes[10:] = 1, 2
    found = {
        "mask": _write(tmp_path / "p1.nii.gz", ids),
        "lobes": _write(tmp_path / "lobes.nii.gz", lobes),
        "territory": _write(tmp_path / "territory.nii.gz", lobes == 1),
        "outside": _write(tmp_path / "outside.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE) < 5),
        "other": _write(tmp_path / "other.nii.gz", lobes == 1, 12.0),
        "empty": _write(tmp_path / "empty.nii.gz", 0 * ids),
        "segments": _write(tmp_path / "segments.nii.gz", np.where(ids == 0, 0, ids + 4)),
        "tumors": _write(tmp_path / "tumors.nii.gz", ids == 2),
        "apart": _write(tmp_path / "apart.nii.gz", np.ones(SHAPE)),
    }
    scan = np.random.default_rng(0).normal(50, 20, SHAPE) - 100 * (ids == 0)
    found["scan"] = str(tmp_path / "scan.nii.gz")
    nifti.write(found["scan"], Volume(scan.astype(np.float32), np.diag([10.0, 10, 10, 1]), name="scan"))
    for count in (30, 19):
        found[f"scores{count}"] = str(tmp_path / f"scores{count}.csv")
        with open(found[f"scores{count}"], "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("case", "region", "state", "prediction_ml", "reference_ml"))
            for i in range(count):
                writer.writerow((f"c{i}", "liver", "", 1000 + 5 * i, 1070))
                writer.writerow((f"c{i}", "tumor", "", 50 + i, 60))
    return found


def _plan(task, files, out, *words, mask="mask"):
    return main(["plan", task, "-i", files[mask], "-o", str(out), *(word.format(**files) for word in words)])


SIRT = ("--microspheres=glass", "--lung_shunt=0.05")


def test_volumetry_writes_tables_and_a_report(files, tmp_path, capsys):
    names = "--region_names=1=right lobe,2=left lobe"
    words = ("--regions={lobes}", names, "--scans={scan}", "--calibration={scores30}")
    assert _plan("volumetry", files, tmp_path / "out", *words) == 0
    text = capsys.readouterr().out
    assert "p1: liver" in text and "480.0 ml" in text and "Research use only, not for treatment" in text
    with open(tmp_path / "out" / "volumetry.csv", newline="") as file:
        rows = {(row["region"], row["quantity"]): row for row in csv.DictReader(file)}
    assert rows["whole liver", "liver"]["voxels"] == "480" and rows["whole liver", "tumor"]["voxels"] == "64"
    for name in ("liver", "tumor", "liver_without_tumor"):
        lobes = sum(int(rows[region, name]["voxels"]) for region in ("right lobe", "left lobe"))
        assert lobes == int(rows["whole liver", name]["voxels"])
    assert rows["whole liver", "tumor_load"]["interval"] == "90 %"
    assert {row["use"] for row in rows.values()} == {"Research use only, not for treatment"}
    document = json.loads((tmp_path / "out" / "volumetry.json").read_text())
    assert document["calibration"]["scans"][0].startswith("liver: 30 scans")
    page = (tmp_path / "out" / "volumetry.html").read_text()
    assert page.count("Research use only") == 2 and "right lobe" in page and "data:image/jpeg" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"volumetry.{e}" for e in ("csv", "html", "json")
    ]


def test_a_folder_of_masks_with_its_scans(files, tmp_path, capsys):
    for folder in ("masks", "scans"):
        (tmp_path / folder).mkdir()
    for id in ("a", "b"):
        _write(tmp_path / "masks" / f"{id}.nii.gz", _liver(3 if id == "a" else 0))
        (tmp_path / "scans" / f"{id}.nii.gz").write_bytes((tmp_path / "scan.nii.gz").read_bytes())
    masks = {"mask": str(tmp_path / "masks")}
    assert _plan("volumetry", masks, tmp_path / "out", f"--scans={tmp_path}/scans") == 0
    assert "b: tumor" in capsys.readouterr().out
    page = (tmp_path / "out" / "volumetry.html").read_text()
    assert page.count("data:image/jpeg") == 6 and "none: no tumour was found" in page.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert _plan("sirt", masks, tmp_path / "sirt", *SIRT, "--dose_gy=100") == 1
    assert "expected the mask of one patient" in capsys.readouterr().err


def test_sirt_writes_a_worksheet(files, tmp_path, capsys):
    words = (
        "--microspheres=resin",
        "--lung_shunt=0.05",
        "--ratio=3",
        "--tumor_dose_gy=120",
        "--height_m=1.7",
    )
    more = ("--weight_kg=60", "--territory={territory}", "--calibration={scores30}", "--scans={scan}")
    assert _plan("sirt", files, tmp_path / "out", *words, *more) == 0
    text = capsys.readouterr().out
    assert "Research use only, not for treatment" in text and "Warning: " in text and "(90 %)" in text
    page = (tmp_path / "out" / "sirt.html").read_text()
    for part in (
        "territory.nii.gz",
        "lung shunt fraction",
        "120 Gy",
        "49.67",
        "Research use only, not for treatment",
    ):
        assert part in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<code>liverjax plan sirt " in page and "--weight_kg=60" in page  # As it was typed.
    # The mass in the page: 240 ml of the territory.
    assert "m = rho \N{MULTIPLICATION SIGN} V / 1000 = 1.03 \N{MULTIPLICATION SIGN} 240 / 1000" in page
    assert not re.search(r"https?://", page)
    document = json.loads((tmp_path / "out" / "sirt.json").read_text())
    steps = {(step["section"], step["symbol"]): step for step in document["steps"]}
    assert steps["Doses of the activity for tumours", "D_T"]["value"] == pytest.approx(120)
    assert document["nuclide"] == "Y-90"


def test_a_lobe_is_perfused(files, tmp_path):
    lobe = ("--territory={lobes}", "--territory_labels=1")
    for name, words in (("lobe", lobe), ("mask", ("--territory={territory}",))):
        assert _plan("sirt", files, tmp_path / name, *SIRT, "--dose_gy=100", *words) == 0
    lobe, mask = (
        json.loads((tmp_path / name / "sirt.json").read_text())["steps"] for name in ("lobe", "mask")
    )
    assert lobe == mask and lobe[1]["value"] == pytest.approx(0.24 * 1.03)


def test_below_twenty_scans_the_worksheet_says_so(files, tmp_path, capsys):
    assert _plan("sirt", files, tmp_path / "out", *SIRT, "--dose_gy=100", "--calibration={scores19}") == 0
    assert "not calibrated" in capsys.readouterr().out
    page = (tmp_path / "out" / "sirt.html").read_text()
    assert "liver: 19 scans" in page and page.count("not\N{NO-BREAK SPACE}calibrated") > 3


#: Words, mask: what is said.
REFUSED = [
    ("sirt", "mask", (), "--microspheres is missing, expected glass, resin or holmium"),
    (
        "sirt",
        "mask",
        ("--microspheres=glass", "--dose_gy=1"),
        "--lung_shunt is missing, expected a share, as --lung_shunt=0.05",
    ),
    ("sirt", "mask", SIRT, "nothing is asked for, expected one or more of --activity_gbq"),
    ("sirt", "mask", (*SIRT, "--activity_gbq=0"), "activity_gbq is 0.0, expected a number above 0"),
    ("sirt", "mask", (*SIRT, "--activity_gbq=nan"), "activity_gbq is nan"),
    (
        "sirt",
        "mask",
        ("--microspheres=glass", "--lung_shunt=1", "--dose_gy=100"),
        "lung_shunt is 1, expected",
    ),
    ("sirt", "mask", ("--microspheres=glass", "--lung_shunt=5", "--dose_gy=100"), "5 % are 0.05"),
    ("sirt", "mask", ("--microspheres=glass", "--lung_shunt=-0.1", "--dose_gy=100"), "lung_shunt is -0.1"),
    ("sirt", "mask", (*SIRT, "--height_m=1.7"), "weight_kg is missing"),
    ("sirt", "mask", (*SIRT, "--height_m=1.7", "--weight_kg=-60"), "weight is -60 kg, expected 2 to 500 kg"),
    ("sirt", "mask", (*SIRT, "--height_m=1.7", "--weight_kg=60"), "--microspheres=resin"),
    (
        "sirt",
        "mask",
        (*SIRT, "--dose_gy=100", "--territory={outside}"),
        "the territory lies outside the liver",
    ),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--territory={other}"), "mm apart"),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--perfused_share=2"), "perfused_share is 2"),
    (
        "sirt",
        "mask",
        (*SIRT, "--dose_gy=100", "--territory={lobes}", "--territory_labels=3"),
        "expected some of 1, 2",
    ),
    (
        "sirt",
        "mask",
        (*SIRT, "--dose_gy=100", "--territory_labels=1"),
        "of no mask, expected --territory too",
    ),
    (
        "sirt",
        "mask",
        (*SIRT, "--dose_gy=100", "--calibration=none.csv"),
        "none.csv: cannot be read (No such file",
    ),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--scans=none.nii.gz"), "none.nii.gz: no such file"),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--regions={lobes}"), "--regions has no effect on sirt"),
    ("sirt", "empty", (*SIRT, "--dose_gy=100"), "holds no liver: the mask is empty"),
    ("volumetry", "mask", ("--tumor_masks={apart}",), "more than the liver of"),
    ("volumetry", "mask", ("--tumor_masks={other}",), "mm apart"),
    ("volumetry", "mask", ("--regions={other}",), "mm apart"),
    ("volumetry", "mask", ("--scans={other}",), "mm apart"),
    ("volumetry", "mask", ("--regions={outside}",), "no voxel of its regions lies in the liver"),
    ("volumetry", "mask", ("--lung_shunt=0.1",), "--lung_shunt has no effect on volumetry"),
    ("volumetry", "mask", ("--calibration={mask}",), "is no CSV file"),
    ("volumetry", "mask", ("--liver_labels=x",), "--liver_labels is 'x'"),
    ("volumetry", "segments", (), "holds the values 5, 6, which nothing names"),
    ("volumetry", "empty", (), "holds no liver"),
]


@pytest.mark.parametrize(("task", "mask", "words", "message"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_what_cannot_be_used_is_one_line_and_writes_nothing(
    files, tmp_path, capsys, task, mask, words, message
):
    assert _plan(task, files, tmp_path / "out", *words, mask=mask) == 1
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "out").exists()


#: Words that were refused, and what the message says to add or to write instead.
REMEDIES = [
    ("sirt", "mask", ("--dose_gy=100", "--microspheres=glass"), ("--lung_shunt=0.05",)),
    ("sirt", "mask", (*SIRT,), ("--height_m=1.7", "--weight_kg=60", "--microspheres=resin")),
    ("sirt", "mask", (*SIRT,), ("--activity_gbq=2",)),
    ("sirt", "mask", (*SIRT, "--tumor_dose_gy=200"), ("--ratio=3",)),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--perfused_share=0.1"), ("--perfused_tumor_share=0.5",)),
    ("volumetry", "segments", (), ("--liver_labels=5", "--tumor_labels=6")),
    ("volumetry", "segments", ("--liver_labels=4",), ("--liver_labels=5",)),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--territory_labels=1"), ("--territory={lobes}",)),
    (
        "sirt",
        "mask",
        (*SIRT, "--dose_gy=100", "--territory={lobes}", "--territory_labels=3"),
        ("--territory_labels=1,2",),
    ),
    ("volumetry", "mask", ("--region_names=3=x", "--regions={lobes}"), ("--region_names=1=left,2=right",)),
]


@pytest.mark.parametrize(("task", "mask", "words", "remedy"), REMEDIES)
def test_remedies_that_messages_name_work(files, tmp_path, capsys, task, mask, words, remedy):
    assert _plan(task, files, tmp_path / "out", *words, mask=mask) == 1
    assert not (tmp_path / "out").exists()
    assert _plan(task, files, tmp_path / "out", *words, *remedy, mask=mask) == 0, capsys.readouterr().err


ONE = ("--dose_gy=100", "--lung_shunt=0.05")
#: Words that are refused, what the message says, and the words that follow it.
REPLACED = [
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--territory={territory}", "--perfused_share=0.5"),
     "expected a mask or a share", (*SIRT, "--dose_gy=100", "--perfused_share=0.5")),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--perfused_tumor_share=0.5"),
     "without perfused_share, expected both",
     (*SIRT, "--dose_gy=100", "--perfused_share=0.5", "--perfused_tumor_share=0.5")),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--perfused_share=0.05"),
     "expected a larger perfused_share", (*SIRT, "--dose_gy=100", "--perfused_share=0.5")),
    ("sirt", "territory", (*SIRT, "--tumor_dose_gy=200", "--ratio=3"),
     "expected --dose_gy, the dose of the perfused liver", (*SIRT, "--dose_gy=200", "--ratio=3")),
    ("sirt", "mask", ("--microspheres=glass", "--dose_gy=100", "--lung_shunt=5"),
     "(a fraction: 5 % are 0.05)", ("--microspheres=glass", "--dose_gy=100", "--lung_shunt=0.05")),
    ("sirt", "mask", ("--microspheres=glass", "--height_m=1.7", "--weight_kg=60", "--lung_shunt=0.05"),
     "expected resin", ("--microspheres=resin", "--height_m=1.7", "--weight_kg=60", "--lung_shunt=0.05")),
    ("sirt", "mask", ONE, "expected glass, resin or holmium", (*ONE, "--microspheres=holmium")),
    ("sirt", "mask", (*SIRT, "--dose_gy=100", "--regions={lobes}"),
     "expected it with `liverjax plan volumetry`", None),
    ("volumetry", "mask", ("--liver_labels=1,2", "--tumor_labels=2"),
     "2 is a value of liver and of tumour, expected one of them", ("--liver_labels=1", "--tumor_labels=2")),
    ("volumetry", "mask", ("--liver_labels=a",), "expected whole numbers of 1 to 255, as 1,3", ("--liver_labels=1,3",)),
    ("volumetry", "mask", ("--regions={lobes}", "--region_names=left"),
     "a name, each once, as 1=left,2=right", ("--regions={lobes}", "--region_names=1=left,2=right")),
    ("volumetry", "mask", ("--calibration={scores30},{scores30}",),
     "expected each once: of several models, choose the table of one", ("--calibration={scores30}",)),
    ("volumetry", "mask", ("--tumor_masks={apart}",), "expected tumours of this liver", ("--tumor_masks={tumors}",)),
    ("volumetry", "mask", ("--scans={other}",), "mm apart", ("--scans={scan}",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "mask", "wrong", "message", "right"), REPLACED, ids=[row[3] for row in REPLACED]
)
def test_words_that_follow_the_message_are_taken(files, tmp_path, capsys, task, mask, wrong, message, right):
    assert _plan(task, files, tmp_path / "out", *wrong, mask=mask) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    if right is None:  # The same flag, with the task that the message names.
        task, right = "volumetry", wrong[-1:]
    assert _plan(task, files, tmp_path / "out", *right, mask=mask) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("tumor_masks", "no mask of b, expected files named as the masks"),
        ("regions", "no mask of b, expected a folder of files named as the masks"),
        ("scans", "no scan of b, expected scans named as the masks"),
    ],
)
def test_folders_beside_the_masks_have_their_names(files, tmp_path, capsys, flag, message):
    source = {"tumor_masks": "tumors", "regions": "lobes", "scans": "scan"}[flag]
    for folder in ("masks", "beside"):
        (tmp_path / folder).mkdir()
    for id in "ab":
        _write(tmp_path / "masks" / f"{id}.nii.gz", _liver(3))
        (tmp_path / "beside" / f"{id}{id == 'b' or ''}.nii.gz").write_bytes(Path(files[source]).read_bytes())
    words = {"mask": str(tmp_path / "masks")}
    assert _plan("volumetry", words, tmp_path / "out", f"--{flag}={tmp_path / 'beside'}") == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "beside" / "bTrue.nii.gz").rename(tmp_path / "beside" / "b.nii.gz")
    assert _plan("volumetry", words, tmp_path / "out", f"--{flag}={tmp_path / 'beside'}") == 0


def test_one_patient_of_a_folder_is_planned_by_its_mask(files, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for id in "ab":
        _write(tmp_path / "masks" / f"{id}.nii.gz", _liver(3))
    words = (*SIRT, "--dose_gy=100")
    assert _plan("sirt", {"mask": str(tmp_path / "masks")}, tmp_path / "out", *words) == 1
    assert "holds masks of a and b, expected the mask of one patient" in capsys.readouterr().err
    assert _plan("sirt", {"mask": str(tmp_path / "masks" / "a.nii.gz")}, tmp_path / "out", *words) == 0


def test_usage(capsys):
    assert main(["plan", "dose", "-i", "x", "-o", "y"]) == 2
    assert "volumetry|sirt" in capsys.readouterr().err
    assert main(["plan", "--help"]) == 0
    assert "liverjax plan TASK --flags" in capsys.readouterr().out
