"""The image and the jobs of Kubernetes: what they hold, and that they are what Kubernetes takes."""

import os
import pathlib
import re
import subprocess

import pytest

yaml = pytest.importorskip("yaml")
ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"


def _job(name):
    return yaml.safe_load((LAUNCH / name).read_text(encoding="utf-8"))


def _instructions():
    text = (LAUNCH / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def test_all_that_the_image_copies_is_in_the_context_and_little_else():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = [words.split() for name, words in _instructions() if name == "COPY" and "--from" not in words]
    sources = {source for words in copied for source in words[:-1]}
    assert sources == let_in and all((ROOT / source).exists() for source in sources)


def test_the_image_runs_as_no_root_and_the_command_is_its_first_process():
    steps = _instructions()
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    final = dict(steps[last:])
    assert final["USER"] == "10001:10001" and final["HEALTHCHECK"] == "NONE"
    assert final["ENTRYPOINT"] == '["liverjax"]'
    assert steps[0] == ("ARG", "BASE=python:3.12-slim-bookworm")
    runs = " ".join(words for name, words in steps if name == "RUN")
    for pins in ("requirements/build.txt", "requirements/run.txt"):
        assert f"--require-hashes -r {pins}" in runs and (ROOT / pins).is_file()


@pytest.mark.parametrize(
    ("device", "packages", "installs"),
    [
        ("cpu", "", []),
        ("cuda13", "", ["jax[cuda13]"]),
        ("tpu", "gcsfs s3fs", ["jax[tpu]", "gcsfs s3fs"]),
        ("gpu", "", None),
    ],
)
def test_the_step_of_the_device_installs_its_plugin_at_the_pinned_versions(
    tmp_path, device, packages, installs
):
    (step,) = (words for name, words in _instructions() if name == "RUN" and "$DEVICE" in words)
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\n[ "$1" = freeze ] && echo jax==1 || echo "$*" >> calls\n')
    pip.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", step.replace("/opt/liverjax/bin/pip", str(pip))],
        env={**os.environ, "DEVICE": device, "PACKAGES": packages},
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if installs is None:
        assert (done.returncode, done.stderr) == (1, "DEVICE is gpu, expected cpu, cuda13 or tpu\n")
        return
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines() if installs else []
    assert calls == [f"install --constraint pinned.txt {words}" for words in installs]
    assert (tmp_path / "pinned.txt").read_text() == "jax==1\n"


def test_a_prediction_on_kubernetes_is_one_command_for_all_pods():
    job = _job("gke-predict.yaml")
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (words,) = container["args"]
    count = int(re.search(r"--shard=\$\(\(JOB_COMPLETION_INDEX \+ 1\)\)/(\d+) ", words)[1])
    assert count == spec["parallelism"] == spec["completions"] == spec["maxFailedIndexes"]
    assert spec["completionMode"] == "Indexed"
    # The shell gives its place to the command, which so gets SIGTERM.
    assert words.startswith("exec liverjax predict --share ") and container["command"] == ["sh", "-c"]
    names = {
        r["onExitCodes"]["containerName"] for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r
    }
    assert names == {container["name"]} and spec["template"]["spec"]["restartPolicy"] == "Never"


def test_kubernetes_takes_the_jobs():
    """By the schemas of Kubernetes; that of a JobSet is none of them, but what it holds is the spec of a Job."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="package kubernetes-validate is not installed"
    )
    version = validate.latest_version()
    validate.validate(_job("gke-predict.yaml"), version, strict=True)
    (inner,) = _job("gke-jobset.yaml")["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": inner["name"]}, **inner["template"]}
    validate.validate(job, version, strict=True)
    job["spec"]["paralellism"] = 2
    with pytest.raises(validate.ValidationError):
        validate.validate(job, version, strict=True)
