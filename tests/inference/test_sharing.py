"""Processes that share cases: each case once, those of a process that was killed too, and one manifest of all."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from liverjax.errors import LiverjaxError
from liverjax.inference import predict, sharing
from liverjax.inference.sharing import DONE, TAKEN, Sharing, fingerprint
from liverjax.pretrained import load_model


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(sharing, "POLL_S", 0.05)


@pytest.fixture
def three(phantom_scans, tmp_path):
    """Folder of three scans, and the words of a command that shares them."""
    (tmp_path / "scans").mkdir()
    for name, case in zip("abc", find_cases(phantom_scans), strict=False):
        shutil.copy(case.image, tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def share(tiny_run, three, tmp_path, capsys):
    """Function from flags to the exit status of `predict --share` of three scans, and what it printed as errors."""

    def call(*flags, output="out"):
        words = [f"--model={tiny_run}", "-i", str(three), "-o", str(tmp_path / output), "--share", "--quiet"]
        return main(["predict", *words, *flags]), capsys.readouterr().err

    return call


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_forty_cases_by_two_processes_one_of_which_is_killed(tiny_run, phantom_scans, tmp_path):
    """Each mask once and as of one process alone; the manifest lists what the dead process did, too."""
    (tmp_path / "scans").mkdir()
    cases = find_cases(phantom_scans)
    for number in range(40):
        os.link(cases[number % 8].image, tmp_path / "scans" / f"case_{number:02}.nii.gz")
    words = ["predict", f"--model={tiny_run}", "-i", str(tmp_path / "scans"), "--quiet", "-o"]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "liverjax", *words, str(out), "--share"]
    started = [
        subprocess.Popen([*command, f"--shard={i}/2"], stderr=subprocess.PIPE, text=True) for i in (1, 2)
    ]
    victim, other = started

    def lines():
        journals = list((out / ".sharing").glob(f"*-{victim.pid}-*.jsonl"))
        return journals[0].read_text(encoding="utf-8").count("\n") if journals else 0

    while lines() < 4:
        assert victim.poll() is None and other.poll() is None
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    _, errors = other.communicate(timeout=240)
    assert other.returncode == 0 and "error" not in errors, errors
    assert main([*words, str(tmp_path / "alone")]) == 0

    masks, alone = (sorted(folder.glob("*.nii.gz")) for folder in (out, tmp_path / "alone"))
    assert [path.name for path in masks] == [f"case_{number:02}.nii.gz" for number in range(40)]
    assert [path.read_bytes() for path in masks] == [path.read_bytes() for path in alone]
    names = ("manifest.json", "labels.json", "volumes.csv")
    # What a process was writing when it was killed stays for a day, hidden, as of any process that is killed.
    left = {path.name for path in out.iterdir() if not path.name.startswith(".partial-")}
    assert left == {*names, *(path.name for path in masks)}
    assert (out / "volumes.csv").read_bytes() == (tmp_path / "alone" / "volumes.csv").read_bytes()
    facts = _manifest(out)
    assert [case["id"] for case in facts["cases"]] == [f"case_{number:02}" for number in range(40)]
    assert {case["status"] for case in facts["cases"]} == {"done"} and facts["earlier"] == []
    by_worker = [case["worker"].split()[1] for case in facts["cases"]]
    assert set(by_worker) == {str(victim.pid), str(other.pid)} and by_worker.count(str(victim.pid)) >= 4


def test_a_case_is_of_one_process_at_a_time(three, tmp_path):
    cases = find_cases(three)
    mask, out = tmp_path / "out" / "a.nii.gz", tmp_path / "out"
    with Sharing(out, cases, "same") as one, Sharing(out, cases, "same") as two:
        with one.claim(mask, three) as mine:
            assert mine == ""
            with two.claim(mask, three) as theirs:
                assert theirs == TAKEN
        with two.claim(mask, three) as theirs:
            assert theirs == ""
            mask.write_bytes(b"mask")
        with one.claim(mask, three) as mine:
            assert mine == DONE
        assert list((out / ".sharing" / "claims").iterdir()) == []
    assert [path.name for path in out.iterdir()] == ["a.nii.gz"]


def test_a_claim_whose_file_its_holder_removed_meanwhile_is_made_anew(three, tmp_path, monkeypatch):
    """Two would else hold locks of one case: one of the removed file, one of the new file."""
    mask = tmp_path / "out" / "a.nii.gz"
    with Sharing(tmp_path / "out", find_cases(three), "same") as one:
        place = tmp_path / "out" / ".sharing" / "claims" / mask.name
        lock, calls = sharing._lock, []

        def removing(descriptor, how):
            calls.append(how)
            if len(calls) == 1:
                place.unlink()
            return lock(descriptor, how)

        monkeypatch.setattr(sharing, "_lock", removing)
        with one.claim(mask, three) as mine:
            assert mine == "" and len(calls) == 2
            with open(place) as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_mask_whose_process_died_before_it_noted_it_is_predicted_again(share, tmp_path):
    assert share()[0] == 0
    mask = tmp_path / "out" / "b.nii.gz"
    before = mask.stat().st_mtime_ns
    (tmp_path / "out" / ".sharing" / "claims").mkdir(parents=True)
    (tmp_path / "out" / ".sharing" / "claims" / "b.nii.gz").write_text("process 1 on elsewhere\n")
    assert share()[0] == 0
    assert mask.stat().st_mtime_ns > before and not (tmp_path / "out" / ".sharing").exists()
    assert [case["status"] for case in _manifest(tmp_path / "out")["cases"]] == ["skipped", "done", "skipped"]


def test_a_case_that_ends_its_processes_is_given_up_and_tried_by_the_next_command(share, tmp_path):
    claims = tmp_path / "out" / ".sharing" / "claims"
    claims.mkdir(parents=True)
    for starts, expected in ((sharing.MOST_STARTS, 1), (sharing.MOST_STARTS - 1, 0)):
        claims.mkdir(parents=True, exist_ok=True)
        (claims / "b.nii.gz").write_text("process 1 on elsewhere\n" * starts)
        status, error = share(output="out")
        assert status == expected
        assert ("b.nii.gz: 3 processes ended while they predicted it" in error) == bool(expected)
        if expected:
            assert error.splitlines()[0].endswith("run the command again with more of them")
            assert _manifest(tmp_path / "out")["cases"][1]["status"] == "failed"
            # The message's remedy.
            assert share(output="out")[0] == 0 and (tmp_path / "out" / "b.nii.gz").exists()
            (tmp_path / "out" / "b.nii.gz").unlink()


def test_what_ends_in_order_does_not_count_as_a_start(three, tmp_path):
    mask = tmp_path / "out" / "a.nii.gz"
    place = tmp_path / "out" / ".sharing" / "claims" / mask.name
    with Sharing(tmp_path / "out", find_cases(three), "same") as stays:
        with Sharing(tmp_path / "out", find_cases(three), "same") as one:
            held = one.claim(mask, three)
            held.__enter__()  # A thread that an interrupt leaves behind.
            assert place.read_text().startswith(f"process {os.getpid()} on ")
        assert not place.exists()
        held.__exit__(None, None, None)
        with pytest.raises(LiverjaxError), stays.claim(mask, three):
            raise LiverjaxError("a case that failed")
        assert not place.exists()


def test_processes_with_other_settings_do_not_share(share, three, tmp_path, tiny_run):
    model = load_model(tiny_run)
    options = (False, False, 0, False, "nifti", "jax", repr(find_cases(three)[0].reading))
    settings = fingerprint(model, *options)
    assert settings != fingerprint(model.with_options(None, ["predict.fill_holes=false"]), *options)
    assert settings != fingerprint(model, True, *options[1:])
    assert share()[0] == 0
    mask = tmp_path / "out" / "a.nii.gz"
    record = {**_manifest(tmp_path / "out")["cases"][0], "status": "done"}
    with Sharing(tmp_path / "out", find_cases(three), settings) as one:
        one.note(record, mask)
        status, error = share("--config.predict.fill_holes=false")
        assert (
            status == 1
            and "masks here are of another model or other options, such as that of case a" in error
        )
        # Its remedies.
        assert share("--config.predict.fill_holes=false", output="another")[0] == 0
        assert share()[0] == 0
    with Sharing(tmp_path / "out", find_cases(three), "other") as one:
        one.note(record, mask)
        assert share()[0] == 1
        shutil.rmtree(tmp_path / "out" / ".sharing")
        assert share()[0] == 0


def test_where_another_host_has_removed_the_folder_the_work_goes_on(three, tmp_path):
    """As on file systems whose locks do not reach other hosts."""
    mask = tmp_path / "out" / "a.nii.gz"
    with Sharing(tmp_path / "out", find_cases(three), "same") as one:
        shutil.rmtree(tmp_path / "out" / ".sharing")
        with one.claim(mask, three) as mine:
            assert mine == ""
            mask.write_bytes(b"mask")
            shutil.rmtree(tmp_path / "out" / ".sharing")
            one.note({"id": "a", "mask": str(mask), "status": "done"}, mask)
        with one.ending([]) as records:
            assert [record["id"] for record in records] == ["a"]


def test_processes_agree_on_their_settings_with_every_option(tiny_run, three, tmp_path, share):
    """What differs between processes, as the place of a function in memory, would keep them from sharing."""
    words = [f"--model={tiny_run}", "-i", str(three), "-o", str(tmp_path / "out"), "--share", "--quiet"]
    options = ["--preview", "--save_uncertainty"]
    found = []
    with Sharing(tmp_path / "out", find_cases(three), "another, which only keeps the journals") as stays:
        for name in "ab":
            command = [sys.executable, "-m", "liverjax", "predict", *words, *options]
            assert subprocess.run(command, capture_output=True).returncode == 0
            journals = {path.name.partition("-")[0] for path in stays._folder.glob("*.jsonl")}
            found.append(journals)
            (tmp_path / "out" / f"{name}.nii.gz").unlink()
    assert len(found[0]) == 1 and found[0] == found[1]


def test_masks_of_other_settings_that_came_meanwhile_are_told(three, tmp_path, caplog):
    mask = tmp_path / "out" / "a.nii.gz"
    cases = find_cases(three)
    with Sharing(tmp_path / "out", cases, "one") as one, Sharing(tmp_path / "out", cases, "two") as two:
        mask.write_bytes(b"")
        two.note({"id": "a", "mask": str(mask), "status": "done"}, mask)
        with one.ending([{"id": "a", "status": "skipped"}]) as records:
            assert records == [{"id": "a", "status": "skipped"}]
        assert "1 masks were written meanwhile with another model" in caplog.text


def test_a_mask_that_changed_since_is_nobodys(three, tmp_path):
    mask = tmp_path / "out" / "a.nii.gz"
    with Sharing(tmp_path / "out", find_cases(three), "same") as one:
        mask.write_bytes(b"as written")
        one.note({"id": "a", "mask": str(mask), "status": "done"}, mask)
        with open(one._journal, "a") as file:
            file.write('{"record": {"id": "b"')  # Cut short by a kill.
        own = [{"id": "a", "mask": str(mask), "status": "skipped"}]
        with one.ending(own) as records:
            assert [record["status"] for record in records] == ["done"] and "worker" in records[0]
        os.utime(mask, ns=(1, 1))
        with one.ending(own) as records:
            assert records == own


def test_one_mask_file_is_not_shared(share, three, tmp_path):
    (three / "b.nii.gz").unlink()
    (three / "c.nii.gz").unlink()
    status, error = share(output="mask.nii.gz")
    assert status == 1 and error.endswith("expected a folder that several processes fill\n")
    assert share(output="folder") == (0, "")


def test_without_locks_every_case_is_predicted_all_the_same(share, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as context:
        context.setattr(fcntl, "flock", refuse)
        assert share("--shard=2/3")[0] == 0
    assert "has no locks: processes may predict the same cases; give each a --shard" in caplog.text
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3


def test_a_damaged_scan_fails_in_each_process_and_holds_up_none(share, three, tmp_path):
    (three / "b.nii.gz").write_bytes(b"nonsense")
    status, error = share()
    assert status == 1 and "b.nii.gz" in error and "1 of 3 cases failed" in error
    assert [case["status"] for case in _manifest(tmp_path / "out")["cases"]] == ["done", "failed", "done"]


def test_jobs_that_share_begin_with_their_shard_and_have_all(phantom_scans):
    cases = find_cases(phantom_scans)
    for index in (1, 2, 3):
        own, everything = (predict.shard(cases, f"{index}/3", share=share) for share in (False, True))
        assert everything[: len(own)] == own
        assert sorted(case.id for case in everything) == [case.id for case in cases]


def test_the_record_of_an_outcome_is_made_once(phantom_scans, tmp_path):
    outcome = predict.Outcome(find_cases(phantom_scans)[0], tmp_path / "mask.nii.gz")
    assert outcome.record() is outcome.record()
    assert dataclasses.replace(outcome, taken=True).status == TAKEN
