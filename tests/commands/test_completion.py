"""Completion as shells do it: a key at the end of what is typed, and what stands there then."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from liverjax.commands.dispatch import COMMANDS, main
from liverjax.pretrained import registry

_START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config"],
}
#: What is typed, and what completion makes of it, where one thing alone fits.
_ONE = {
    "liverjax trai": None,  # train and train-filter.
    "liverjax prep": "prepare",
    "liverjax train --wor": "--workdir=",
    "liverjax predict --skip": "--skip_existing",
    "liverjax train --config=ct_l": None,  # ct_liver and ct_liver:small.
    "liverjax train --config=dem": "demo",
    "liverjax train --config=ct_liver:s": "small",
    "liverjax train --config mr_tumor:s": "small",
    "liverjax predict --model=any": "any_liver",
    "liverjax predict --model an": "any_liver",
    "liverjax predict --format=dic": "dicom-seg",
    "liverjax models any": "any_liver",
    "liverjax plan si": "sirt",
    "liverjax completion fi": "fish",
    "liverjax predict -i scan": "scan.nii.gz",
    "liverjax predict --input=scan": "scan.nii.gz",
    "liverjax predict --model=folder/run": "folder/run_of_mine",
    "liverjax view scan": "scan.nii.gz",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    (folder / "scan.nii.gz").touch()
    (folder / "folder" / "run_of_mine").mkdir(parents=True)
    for shell in _START:
        command = [sys.executable, "-m", "liverjax", "completion", shell]
        script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (folder / f"completion.{shell}").write_text(script)
    return folder


def _need(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")


class _Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, shell, folder):
        child, self._terminal = pty.fork()
        if child == 0:
            os.chdir(folder)
            words = {
                "TERM": "xterm",
                "PS1": "> ",
                "HOME": str(folder),
                "COLUMNS": "200",
                "PATH": os.environ["PATH"],
            }
            os.execvpe(_START[shell][0], _START[shell], words)
        self._child = child

    def send(self, text, until, seconds=20):
        """Types a text, and returns what is printed up to the pattern ``until``."""
        os.write(self._terminal, text.encode())
        printed, end = "", time.monotonic() + seconds
        while not re.search(until, printed) and time.monotonic() < end:
            if select.select([self._terminal], [], [], 0.1)[0]:
                printed += os.read(self._terminal, 65536).decode(errors="replace")
        assert re.search(until, printed), printed
        return printed

    def close(self):
        os.close(self._terminal)
        os.kill(self._child, 9)
        os.waitpid(self._child, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_as_one_types(shell, place):
    _need(shell)
    typist = _Shell(shell, place)
    try:
        start = "autoload -U compinit; compinit -u -D; " if shell == "zsh" else ""
        # What a line becomes is printed, quoted, instead of run.
        typist.send(f"{start}source ./completion.{shell}; echo rea''dy\n", "ready\r\n")
        typist.send("liverjax() { printf '<%s>' \"$@\"; echo '!'\"end\"; }; echo rea''dy\n", "ready\r\n")
        for typed, expected in _ONE.items():
            if expected is None:
                continue
            printed = typist.send(f"{typed}\t\n", "!end\r\n")
            words = re.findall(r"<([^<>]*)>", printed)
            # zsh takes the "=" back where nothing follows it.
            assert words and words[-1].rstrip("/=").endswith(expected.rstrip("=")), (typed, words)
            before = typed.split()[1:-1]
            assert words[: len(before)] == before and len(words) == len(before) + 1
    finally:
        typist.close()


def test_fish_completes(place):
    _need("fish")
    for typed, expected in _ONE.items():
        code = f'source completion.fish; complete -C "{typed}"'
        done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, cwd=place)
        found = [line.split("\t")[0] for line in done.stdout.splitlines()]
        if expected is None:
            assert len(found) >= 2, (typed, found)
        else:
            # fish has files beside the words: it looks for what fits behind a colon, too.
            fits = [each.rstrip("/").endswith(expected.rstrip("=")) for each in found]
            assert any(fits), (typed, found, done.stderr)


def test_bash_knows_every_command_flag_config_and_model(place):
    _need("bash")
    code = """source ./completion.bash
    while read -r line; do
      COMP_LINE=$line COMP_POINT=${#line} COMP_WORDBREAKS=$' \\t\\n"'"'"'><=;|&(:'
      COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _liverjax; echo "${COMPREPLY[*]}"
    done"""
    lines = "\n".join(
        ["liverjax t", *(f"liverjax {name} --" for name in COMMANDS), "liverjax predict --model="]
    )
    done = subprocess.run(["bash", "-c", code], input=lines + "\n", capture_output=True, text=True, cwd=place)
    first, *of_commands, models = done.stdout.splitlines()
    assert first.split() == [name for name in COMMANDS if name.startswith("t")]
    assert sorted(models.split()) == sorted(registry.NAMES)
    for name, answer in zip(COMMANDS, of_commands, strict=True):
        flags = {word.strip("-=") for word in answer.split()}
        assert {"help", "verbose"} <= flags and "override" not in flags, name


def test_the_flags_that_are_completed_are_those_of_the_help(place, capsys):
    script = (place / "completion.bash").read_text()
    for name in COMMANDS:
        (line,) = re.findall(rf'"1 {name} flags"\) words="([^"]*)"', script)
        assert main([name, "--help"]) == 0
        helped = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.M)) | {"help"}
        assert {word.strip("-=") for word in line.split()} | {"config"} == helped | {"config"}


def test_completion_imports_no_jax():
    code = "import sys; from liverjax.commands.dispatch import main; main(['completion', 'bash']);"
    code += "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "flax", "numpy", "matplotlib"} & set(done.stderr.split())
