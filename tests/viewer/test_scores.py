"""Evaluations and runs to look at: the cases that were scored, as they were read, the worst first."""

import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

from liverjax.commands import viewing
from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import AS_STORED, nifti
from liverjax.scoring.pairing import Pair
from liverjax.volume import Volume
from tests.viewer.test_study import ball


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """A data set whose liver is called 7, predictions in our labels, and the folder of their scores."""
    monkeypatch.chdir(tmp_path)  # The paths are given as relative ones.
    for folder in ("data/imagesTr", "data/labelsTr", "masks"):
        pathlib.Path(folder).mkdir(parents=True)
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 7}, "file_ending": ".nii.gz"}
    pathlib.Path("data/dataset.json").write_text(json.dumps({**facts, "numTraining": 2}))
    truth = ball().astype(np.uint8)
    affine = np.diag([5.0, 5, 5, 1])
    for name, radius in (("good", 4), ("poor", 2)):
        scan = Volume(np.where(truth, 100, -900).astype(np.int16), affine)
        nifti.write(f"data/imagesTr/{name}_0000.nii.gz", scan)
        nifti.write(f"data/labelsTr/{name}.nii.gz", scan.with_voxels(7 * truth))
        nifti.write(f"masks/{name}.nii.gz", scan.with_voxels(ball(radius=radius).astype(np.uint8)))
    assert main(["evaluate", "--predictions=masks", "--references=data", "-o", "scores", "--quiet"]) == 0
    monkeypatch.chdir("/")
    return tmp_path / "scores"


def test_the_worst_case_of_an_evaluation_comes_first_with_scan_reference_and_prediction(scored):
    poor, good = viewing.studies(scored, None, AS_STORED)
    assert [poor.name, good.name] == ["poor", "good"]
    small, large = ball(radius=2).sum(), ball().sum()
    assert poor.scores == {"liver": pytest.approx(2 * small / (small + large))} and good.scores == {
        "liver": 1
    }
    scan = poor.read_scan()
    assert scan.voxels.min() == -900 and poor.layers() == ["prediction", "reference"]
    # The reference's 7 is the liver, 1.
    assert poor.read_layer("reference", scan).voxels.sum() == large
    facts = poor.describe(scan)
    assert facts["measure"] == "Dice with reference" and facts["scores"] == poor.scores
    # Of the smaller ball's slices, those at its ends differ most.
    assert facts["slices"][0]["quality"] == min(row["quality"] for row in facts["slices"]) < 0.6


def test_a_scored_file_that_has_moved_is_named_where_it_is_looked_at(scored):
    (scored.parent / "masks" / "poor.nii.gz").unlink()
    (scored.parent / "data" / "imagesTr" / "good_0000.nii.gz").rename(scored.parent / "elsewhere.nii.gz")
    poor, good = viewing.studies(scored, None, AS_STORED)
    with pytest.raises(InputError, match="poor.nii.gz: no such file"):
        poor.describe(poor.read_scan())
    with pytest.raises(InputError, match="good_0000.nii.gz: no such file"):
        good.read_scan()


def test_a_missing_prediction_is_the_worst_and_shows_its_reference(scored):
    folder = scored.parent
    (folder / "masks" / "good.nii.gz").unlink()
    words = [f"--predictions={folder / 'masks'}", f"--references={folder / 'data'}", "-o", str(scored)]
    assert main(["evaluate", *words, "--allow_missing", "--quiet"]) == 0
    first, _ = viewing.studies(scored, None, AS_STORED)
    assert (first.name, first.scores, first.layers()) == ("good", {"liver": 0}, ["reference"])


def test_masks_without_scans_are_shown_on_themselves(scored, tmp_path):
    words = [
        f"--predictions={tmp_path / 'masks'}",
        f"--references={tmp_path / 'masks'}",
        "-o",
        f"{tmp_path}/s",
    ]
    assert main(["evaluate", *words, "--quiet"]) == 0
    study = viewing.studies(tmp_path / "s", None, AS_STORED)[0]
    assert study.read_scan().voxels.max() == 1 and study.describe(study.read_scan())["slices"]


def test_an_evaluation_without_its_files_is_made_again_as_the_message_says(scored, capsys):
    path, folder = scored / "summary.json", scored.parent
    facts = json.loads(path.read_text())
    del facts["pairs"]
    path.write_text(json.dumps(facts))
    assert main(["view", str(scored), "--nobrowser"]) == 1
    assert "run the same `liverjax evaluate` again" in capsys.readouterr().err
    words = [f"--predictions={folder / 'masks'}", f"--references={folder / 'data'}", "-o", str(scored)]
    assert main(["evaluate", *words, "--quiet"]) == 0
    assert len(viewing.studies(scored, None, AS_STORED)) == 2
    assert main(["view", str(scored), f"--references={folder / 'data'}", "--nobrowser"]) == 1
    assert "leave it out" in capsys.readouterr().err
    for damaged in ('{"liverjax_version": "0", "pairs": [{}], "metric_per_case": [{}]}', "[]", '{"mean": 1}'):
        path.write_text(damaged)
        with pytest.raises(InputError, match="summary.json: "):
            viewing.studies(scored, None, AS_STORED)


def test_a_pair_is_recorded_with_all_that_reading_it_needs(scored):
    facts = json.loads((scored / "summary.json").read_text())["pairs"]
    assert [Pair.recorded(one).record()["scan"] for one in facts] == [one["scan"] for one in facts]
    assert all(
        pathlib.Path(one[name]).is_file() for one in facts for name in ("scan", "reference", "prediction")
    )
    assert facts[0]["reference_labels"] == [[0, 0], [7, 1]]


def test_a_run_shows_its_predictions_once_it_has_some(tiny_run, phantom_scans, tmp_path):
    run = tmp_path / "a run"
    shutil.copytree(tiny_run, run)
    with pytest.raises(InputError, match="has no predictions to look at") as caught:
        viewing.studies(run, None, AS_STORED)
    command = re.search(r"liverjax (predict .*)$", str(caught.value))[1].replace(
        "DATASET", str(phantom_scans)
    )
    assert main([*shlex.split(command), "--quiet"]) == 0
    studies = viewing.studies(run, str(phantom_scans), AS_STORED)
    assert studies and studies[0].layers() == ["prediction", "reference", "doubt"]
    words = [f"--predictions={run / 'predictions'}", f"--references={phantom_scans}", f"--model={run}"]
    assert main(["evaluate", *words, "-o", str(run / "scores"), "--subset=test", "--quiet"]) == 0
    assert viewing.studies(run, None, AS_STORED)[0].scores
