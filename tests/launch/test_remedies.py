"""What the scripts that start runs ask for is given, and they run."""

import pytest

from tests.launch.test_scripts import _ENDS, _GCLOUD, machine

__all__ = ["machine"]

VARIABLES = {
    "NAME": "the name of the slice",
    "ZONE": "its zone",
    "TYPE": "its accelerator type",
    "VERSION": "its runtime version",
    "SETUP": "what installs liverjax on a host and mounts the folder that all hosts share",
}
_VALUES = {"NAME": "n", "ZONE": "z", "TYPE": "t", "VERSION": "v", "SETUP": "setup"}


@pytest.mark.parametrize("missing", VARIABLES)
def test_a_variable_that_is_missing_is_asked_for_and_suffices(machine, missing):
    given = {"FIRST": _ENDS.format(0), "THEN": "", "POLL": "0", **_VALUES, missing: ""}
    done, calls = machine("tpu_pod.sh", {"gcloud": _GCLOUD}, "--workdir=run", **given)
    assert done.returncode != 0 and not calls
    assert done.stderr.endswith(f"{missing}: {VARIABLES[missing]}\n") and done.stderr.count("\n") == 1
    done, calls = machine("tpu_pod.sh", {"gcloud": _GCLOUD}, "--workdir=run", **given | _VALUES)
    assert done.returncode == 0 and any("liverjax train" in call for call in calls)


def test_a_request_that_is_refused_is_told_with_what_gcloud_says(machine):
    refusing = 'echo "ERROR: quota exceeded" >&2; exit 1'
    variables = {"FIRST": _ENDS.format(0), "THEN": "", "POLL": "0", **_VALUES}
    done, _ = machine("tpu_pod.sh", {"gcloud": refusing}, **variables)
    assert done.returncode == 1
    assert done.stderr == "ERROR: quota exceeded\ntpu_pod.sh: no request for n could be made\n"
    done, _ = machine("tpu_pod.sh", {"gcloud": _GCLOUD}, **variables)
    assert done.returncode == 0, done.stderr
