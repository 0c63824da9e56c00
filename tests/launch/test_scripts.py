"""The scripts that start runs on machines, with stand-ins for the machines' own tools on the PATH."""

import os
import pathlib
import subprocess
import sys

import pytest

from liverjax.config import to_dict

LAUNCH = pathlib.Path(__file__).parent.parent.parent / "launch"

#: Runs the command behind its options, as SLURM's srun does on one task.
_SRUN = 'echo "srun $*" >> "$CALLS"; while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"'
_LIVERJAX = 'printf "liverjax %s\\n" "$@" >> "$CALLS"; exit "$STATUS"'
_NOTE = 'echo "$(basename "$0") $*" >> "$CALLS"'


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs a script among stand-ins (name -> bash), and returns its status and their calls."""

    def run(script, tools, *arguments, **variables):
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, text in tools.items():
            path = tmp_path / "bin" / name
            path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            path.chmod(0o755)
        calls = tmp_path / "calls.txt"
        calls.write_text("", encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)} | variables
        command = ["bash", LAUNCH / script, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
        # Not by Python's text mode, which would turn carriage returns into ends of lines.
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        return done, calls.read_text(encoding="utf-8").splitlines()

    return run


@pytest.mark.parametrize("script", ["slurm.sh", "slurm_predict.sh", "tpu_pod.sh"])
def test_the_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", LAUNCH / script], capture_output=True).stderr == b""
    assert os.access(LAUNCH / script, os.X_OK)


@pytest.mark.parametrize(
    ("status", "requeued"), [(75, True), (0, False), (1, False), (2, False), (137, False)]
)
def test_slurm_requeues_what_was_interrupted_and_saved_and_nothing_else(machine, status, requeued):
    tools = {"srun": _SRUN, "liverjax": _LIVERJAX, "scontrol": _NOTE}
    variables = {"STATUS": str(status), "SLURM_JOB_ID": "7"}
    done, calls = machine("slurm.sh", tools, "--config=ct_liver", "--workdir=a run", **variables)
    assert done.returncode == status
    assert [call for call in calls if call.startswith("scontrol")] == ["scontrol requeue 7"] * requeued
    words = [call.removeprefix("liverjax ") for call in calls if call.startswith("liverjax ")]
    assert words == ["train", "--config=ct_liver", "--workdir=a run"]
    assert "--kill-on-bad-exit=0" in calls[0]


def test_the_log_of_a_job_is_plain_lines(machine, tiny_config, tmp_path):
    """What a batch system keeps in a file: the steps, without the returns and colours of a terminal."""
    (tmp_path / "tiny.py").write_text(
        "from liverjax.config import default_config\n\n\ndef get_config(arg):\n    c = default_config()\n"
        + "".join(f"    c.{name} = {value!r}\n" for name, value in _fields(to_dict(tiny_config)))
        + "    return c\n"
    )
    tools = {"srun": _SRUN, "scontrol": _NOTE, "liverjax": f'exec {sys.executable} -m liverjax "$@"'}
    words = (
        f"--config={tmp_path / 'tiny.py'}",
        f"--store={tiny_config.store}",
        f"--workdir={tmp_path / 'run'}",
    )
    words = (*words, "--views=axial", "--log_every_seconds=0")
    done, _ = machine("slurm.sh", tools, *words, SLURM_JOB_ID="7")
    assert done.returncode == 0, done.stderr
    log = (done.stdout + done.stderr).removesuffix("\n").split("\n")
    assert [line for line in log if line.startswith("train axial: step 4 of 4, ")]
    assert all(line.isprintable() for line in log), log


def _fields(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_a_task_of_a_slurm_array_has_its_own_run_and_is_requeued_alone(machine):
    tools = {"srun": _SRUN, "liverjax": _LIVERJAX, "scontrol": _NOTE}
    # The last task of an array has the number of the whole array.
    array = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    words = ("--workdir=RUNS/fold%a", "--config.split.fold=%a")
    _, calls = machine("slurm.sh", tools, *words, STATUS="75", **array)
    assert "liverjax --workdir=RUNS/fold3" in calls and "liverjax --config.split.fold=3" in calls
    assert calls[-1] == "scontrol requeue 7_3"


def test_slurm_gives_the_signal_before_the_limit_and_the_script_outlives_it(machine):
    lines = (LAUNCH / "slurm.sh").read_text(encoding="utf-8").splitlines()
    assert {"#SBATCH --signal=TERM@120", "#SBATCH --requeue"} <= set(lines)
    # The task signals its script, and then itself, as its own handling of the signal is not the script's.
    tools = {"srun": _SRUN, "scontrol": _NOTE, "liverjax": 'kill -TERM "$PPID"; sleep 0.2; exit 75'}
    done, calls = machine("slurm.sh", tools, SLURM_JOB_ID="7")
    assert done.returncode == 75 and calls[-1] == "scontrol requeue 7"
    tools["liverjax"] = "kill -TERM $$; sleep 5; exit 75"
    done, calls = machine("slurm.sh", tools, SLURM_JOB_ID="7")
    assert done.returncode == 143, (
        "the tasks were to die of the signal: the script must not make them ignore it"
    )


@pytest.mark.parametrize(("status", "requeued"), [(143, True), (0, False), (1, False), (137, False)])
def test_a_task_that_predicts_begins_with_its_shard_and_goes_on_when_it_was_ended(machine, status, requeued):
    tools = {"srun": _SRUN, "liverjax": _LIVERJAX, "scontrol": _NOTE}
    task = {
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "4",
        "SLURM_ARRAY_TASK_COUNT": "4",
    }
    done, calls = machine(
        "slurm_predict.sh", tools, "-i", "a folder", "-o", "out", STATUS=str(status), **task
    )
    assert done.returncode == status
    words = [call.removeprefix("liverjax ") for call in calls if call.startswith("liverjax ")]
    assert words == ["predict", "--share", "--shard=1/4", "-i", "a folder", "-o", "out"]
    assert [call for call in calls if call.startswith("scontrol")] == ["scontrol requeue 7_4"] * requeued
    shards = set()
    for number in ("1", "2", "3"):
        _, calls = machine("slurm_predict.sh", tools, STATUS="0", **{**task, "SLURM_ARRAY_TASK_ID": number})
        shards |= {call for call in calls if "--shard" in call and call.startswith("liverjax ")}
    assert shards == {f"liverjax --shard={index}/4" for index in (2, 3, 4)}
    _, calls = machine("slurm_predict.sh", tools, STATUS="143", SLURM_JOB_ID="9")
    assert "liverjax --shard=1/1" in calls and calls[-1] == "scontrol requeue 9"


_GCLOUD = """
echo "gcloud $*" >> "$CALLS"
place=$(dirname "$CALLS")
case "$*" in
  *" create "*) echo ACTIVE > "$place/state" ;;
  *" describe "*) cat "$place/state" ;;
  *" delete "*) rm "$place/state" ;;
  *"--command=setup"*) ;;
  *" ssh "*)
    echo x >> "$place/starts"
    [ "$(wc -l < "$place/starts")" -eq 1 ] && { eval "$FIRST"; exit 0; }
    eval "$THEN" ;;
esac
"""
_ENDS = "echo liverjax ended with {0}; echo liverjax ended with {0}"
_TAKEN = 'echo SUSPENDED > "$place/state"'


@pytest.mark.parametrize(
    ("first", "then", "status", "starts"),
    [
        (_ENDS.format(0), "", 0, 1),
        (_ENDS.format(75), _ENDS.format(0), 0, 2),
        (_TAKEN, _ENDS.format(0), 0, 2),
        (_ENDS.format(134) + ";" + _TAKEN, _ENDS.format(0), 0, 2),
        (_ENDS.format(1), "", 1, 1),
        ("", "", 1, 1),
    ],
    ids=["done", "saved", "taken", "taken in a step", "failed", "ssh failed"],
)
def test_a_tpu_run_goes_on_with_a_new_slice_only_where_one_was_taken(machine, first, then, status, starts):
    variables = {"NAME": "n", "ZONE": "z", "TYPE": "t", "VERSION": "v", "SETUP": "setup", "POLL": "0"}
    done, calls = machine(
        "tpu_pod.sh", {"gcloud": _GCLOUD}, "--workdir=a run", FIRST=first, THEN=then, **variables
    )
    assert done.returncode == status, done.stderr
    trains = [call for call in calls if "liverjax train" in call]
    assert len(trains) == starts and all(r"--workdir=a\ run;" in call for call in trains)
    made, deleted = (sum(f"resources {word} " in call for call in calls) for word in ("create", "delete"))
    assert made == deleted == starts, "no slice may be left behind"
    assert all("--worker=all" in call for call in trains)


def test_a_jobset_takes_an_interruption_for_no_failure():
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((LAUNCH / "gke-jobset.yaml").read_text(encoding="utf-8"))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"] == ["liverjax", "train"], "quiet, it would log nothing"
    by_code = [
        (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"])
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    ]
    assert by_code == [("Ignore", "In", [75]), ("FailJob", "In", [2])]
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]} in spec[
        "podFailurePolicy"
    ]["rules"]
    # Kubernetes refuses the policy with another restart policy, and a rule that names no container of the pod.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    names = {
        rule["onExitCodes"]["containerName"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert names == {container["name"]}
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    name = jobset["metadata"]["name"]
    assert variables["JAX_COORDINATOR_ADDRESS"].split(":")[0] == f"{name}-{job['name']}-0-0.{name}"
    assert int(variables["JAX_NUM_PROCESSES"]) == spec["parallelism"] == spec["completions"]
    assert spec["completionMode"] == "Indexed"
