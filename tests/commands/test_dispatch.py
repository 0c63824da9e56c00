"""The command line as a stranger meets it."""

import os
import subprocess
import sys

import pytest

from liverjax.commands.dispatch import COMMANDS, main

_PROGRAM = [sys.executable, "-m", "liverjax.commands.dispatch"]


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_large_and_exits_0(words):
    code = "import sys; from liverjax.commands.dispatch import main; status = main(sys.argv[1:]);"
    code += "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    large = {"jax", "flax", "orbax", "grain", "matplotlib", "numpy", "scipy", "nibabel", "ml_collections"}
    assert not large & set(done.stderr.split())
    if len(words) == 1:
        assert all(name in done.stdout for name in COMMANDS)


def test_help_of_a_command_lists_its_flags_and_short_names(capsys):
    assert main(["predict", "--help"]) == 0
    printed = capsys.readouterr().out
    for flag in ("--model:", "--input, -i:", "--output, -o:", "--phase:", "--preview"):
        assert flag in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], ""),
        (["predct"], "no command is called 'predct'; did you mean 'predict'?"),
        (["train"], "--config"),
        (["train", "--nonsense=1"], "nonsense"),
        (["config"], "--config"),
        (["config", "demo", "surplus"], "'surplus' is not a flag"),
        (["check", "demo"], "--input"),
        (["train", "--config=demo", "--store=s", "--workdir=w", "surplus"], "'surplus' is not a flag"),
        (["train", "--config=demo", "--store=s", "--workdir=w", "--max_minutes=soon"], "max_minutes"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(words, message, capsys):
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") <= 1


def test_a_failure_exits_1_with_one_line_and_no_traceback(tmp_path):
    command = [*_PROGRAM, "prepare", "-i", str(tmp_path), "-o", str(tmp_path / "store"), "--config=demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert done.stderr.startswith("liverjax: error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_version(capsys):
    import liverjax

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"liverjax {liverjax.__version__}"
