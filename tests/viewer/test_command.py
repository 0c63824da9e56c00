"""`liverjax view`, as it is typed, and `Prediction.show`."""

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

import liverjax
from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from liverjax.scans import nifti
from liverjax.volume import Volume
from tests.viewer.test_study import ball

pytest.importorskip("ipyniivue", reason="liverjax[viewer] is not installed")


@pytest.fixture
def files(tmp_path):
    mask = ball().astype(np.uint8)
    scan = Volume(np.where(mask, 100, -900).astype(np.int16), np.diag([5.0, 5, 5, 1]))
    for name, volume in (("scan", scan), ("one", scan.with_voxels(mask)), ("two", scan.with_voxels(mask))):
        nifti.write(tmp_path / f"{name}.nii.gz", volume)
    return [str(tmp_path / f"{name}.nii.gz") for name in ("scan", "one", "two")]


def test_a_scan_and_masks_are_served_until_the_command_is_interrupted(files, user_environment):
    words = [sys.executable, "-m", "liverjax.commands.dispatch", "view", *files, "--nobrowser"]
    running = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=user_environment,
        # Shells let what they start in the background ignore it, and so this test with all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        address = re.match(
            r"1 case at (http://127\.0\.0\.1:\d+/\S+/) \(Ctrl-C ends it\)", running.stdout.readline()
        )[1]
        facts = urllib.request.urlopen(f"{address}case/0", timeout=20).read()
        assert b'"one.nii.gz"' in facts and b'"two.nii.gz"' in facts
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.rsplit("/", 2)[0] + "/", timeout=20)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        error = running.stderr.read()
        assert "Traceback" not in error and address not in error
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SCAN", "gone.nii.gz"], "gone.nii.gz: no such file"),
        (["gone.nii.gz"], "gone.nii.gz: no such file"),
        (["FOLDER"], "name the files instead: liverjax view SCAN MASK"),
        (["SCAN", "MASK", "--references=FOLDER"], "name the reference after the mask instead"),
        (["SCAN", "SCAN"], "label values"),
    ],
)
def test_what_cannot_be_shown_is_one_line(files, words, message, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"SCAN": files[0], "MASK": files[1], "FOLDER": str(tmp_path / "empty")}
    typed = [word.replace("FOLDER", places["FOLDER"]) for word in (places.get(word, word) for word in words)]
    assert main(["view", *typed, "--nobrowser"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and message in text


def test_without_words_the_usage_is_named(capsys):
    assert main(["view"]) == 2
    assert "--show is required" in capsys.readouterr().err


def test_a_prediction_shows_itself(tiny_run, phantom_scans):
    case = find_cases(phantom_scans)[0]
    prediction = liverjax.load_model(tiny_run).predict(case.image, uncertainty=True)
    shown = prediction.show(reference=case.read_mask())
    assert [volume.name for volume in shown.volumes] == [
        "scan.nii",
        "prediction.nii",
        "reference.nii",
        "doubt.nii",
    ]
