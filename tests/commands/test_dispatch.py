"""The command line as a stranger meets it."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest

from liverjax.commands import dispatch, flag_help
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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_required_flags_first_and_examples_that_the_command_takes(name, capsys):
    program = importlib.import_module(f"liverjax.commands.{name.replace('-', '_')}")
    values = dispatch.defined_flags(program)
    required = [flag.name for flag in flag_help.listed(values) if flag_help.is_required(flag)]
    assert main([name, "--help"]) == 0
    shown = re.findall(r"^  --(\w+)", capsys.readouterr().out, re.M)
    assert shown[: len(required)] == required
    examples = re.findall(rf"^  liverjax ({name} .*)$", program.__doc__ or "", re.M)
    assert examples
    for example in examples:
        words = shlex.split(re.sub(r"\[|\]|  .*| \.\.\. .*| > .*", "", example), comments=True)[1:]
        if " ... " in example:
            continue
        known = {flag.name: flag for flag in flag_help.listed(values)} | {
            flag.short_name: flag for flag in flag_help.listed(values) if flag.short_name
        }
        given = {known[re.sub(r"=.*", "", word).lstrip("-")].name for word in words if word.startswith("-")
                 and not word.startswith("--config.")}  # fmt: skip
        if positional := getattr(program, "POSITIONAL", None):
            given |= {positional} if words and not words[0].startswith("-") else set()
        assert set(required) <= given, example


def test_a_mistyped_flag_is_the_one_that_is_meant(capsys):
    assert main(["config", "--confg=demo"]) == 2
    assert capsys.readouterr().err == (
        "liverjax: no flag is called --confg; did you mean --config?; see 'liverjax config --help'\n"
    )
    assert main(["config", "--config=demo"]) == 0
    assert main(["train", "-x", "3"]) == 2
    assert capsys.readouterr().err == "liverjax: no flag is called -x; see 'liverjax train --help'\n"


def test_verbose_shows_where_an_error_comes_from(tmp_path):
    words = ["prepare", "-i", str(tmp_path / "gone"), "-o", str(tmp_path / "store"), "--config=demo"]
    for more in ([], ["--verbose"]):
        done = subprocess.run([*_PROGRAM, *words, *more], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"liverjax: error: {tmp_path / 'gone'}: ")
        assert ("Traceback" in done.stderr) == ("InputError" in done.stderr) == bool(more)


def test_a_log_file_gets_a_line_of_progress_when_it_is_time(phantom_scans, tmp_path):
    """Without a terminal, of a command with many cases: plain lines, and no line that is rewritten."""
    words = [*_PROGRAM, "check", "-i", str(phantom_scans)]
    done = subprocess.run([*words, "--log_every_seconds=0"], capture_output=True, env=os.environ)
    lines = done.stderr.decode().splitlines()
    assert re.fullmatch(r"check: case 1 of (\d+), .*left", lines[0]) and " in all" in lines[-1]
    assert b"\r" not in done.stderr and b"\x1b" not in done.stderr
    done = subprocess.run(words, capture_output=True, env=os.environ)
    assert done.stderr == b""
