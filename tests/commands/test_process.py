"""The process of a command: signals, standard streams, the environment, and errors that nobody foresaw."""

import os
import signal
import subprocess
import sys
import time

import pytest

from liverjax.commands import process
from liverjax.commands.dispatch import main

_PROGRAM = [sys.executable, "-m", "liverjax"]
#: A config is a program: what it does, the command does.
_CONFIG = """
import pathlib, threading, time
from liverjax.files import replacing

def get_config(arg=""):
    here = pathlib.Path(__file__).parent
    {body}
"""
_WORK = {
    "alone": '(here / "started").touch(); time.sleep(60)',
    "while a file is written": """
    with replacing(here / "out" / "mask.nii.gz") as temporary:
        temporary.write_text("half of a mask")
        (here / "started").touch()
        time.sleep(60)""",
    "while a thread computes": """
    threading.Thread(target=time.sleep, args=(60,)).start()
    (here / "started").touch()
    time.sleep(60)""",
    "in a library that swallows it": """
    try:
        (here / "started").touch()
        time.sleep(60)
    except BaseException:
        time.sleep(60)""",
    "in a library that calls it an error of its own": """
    try:
        (here / "started").touch()
        time.sleep(60)
    except BaseException:
        raise RuntimeError("INTERNAL: callback failed")""",
}


@pytest.mark.parametrize("work", _WORK)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_one_line(tmp_path, work, number, status):
    (tmp_path / "my.py").write_text(_CONFIG.format(body=_WORK[work].strip()))
    running = subprocess.Popen(
        [*_PROGRAM, "config", str(tmp_path / "my.py")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "started").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    _, errors = running.communicate(timeout=process.GRACE + 20)
    assert running.returncode == status
    assert errors.count("\n") == 1 and errors.startswith("liverjax: ") and "half-written" in errors
    assert ("interrupted" in errors) == (number == signal.SIGINT)
    assert not list(tmp_path.rglob(".partial*"))


def test_a_signal_while_packages_are_imported(tmp_path):
    code = "import sys; from liverjax.commands.dispatch import main; print(flush=True); sys.exit(main())"
    statuses = []
    for moment in range(8):
        command = [sys.executable, "-c", code, "check", "-i", str(tmp_path), "--quiet"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None and running.stdout.readline() == "\n"
        time.sleep(0.02 + moment * 0.05)
        running.send_signal(signal.SIGINT)
        printed, errors = running.communicate(timeout=process.GRACE + 20)
        statuses.append(running.returncode)
        # A signal that comes while Python ends finds the work done.
        over = running.returncode in (1, -signal.SIGINT) and "1 errors" in printed
        assert over or (running.returncode, errors.count("\n")) == (130, 1), errors
    assert 130 in statuses


def test_an_interrupt_of_a_caller_is_a_status_too(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("liverjax.commands.config.run", interrupted)
    assert main(["config", "demo"]) == 130
    assert capsys.readouterr().err == "liverjax: interrupted; nothing is left half-written\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_nobody(tmp_path, closed):
    """What is written to a closed stream must not land in a file that got its number, either."""
    masks = tmp_path / "masks"
    code = (
        "import numpy as np; from liverjax.scans import nifti; from liverjax.volume import Volume;"
        f"nifti.write({str(masks / 'a.nii.gz')!r}, Volume(np.ones((3, 3, 3), np.uint8), np.diag([2, 2, 2, 1])))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    words = f"evaluate --predictions={masks} --references={masks} -o {tmp_path / 'out'} --metrics=dice"
    done = subprocess.run(f"{sys.executable} -m liverjax {words} {closed}", shell=True)
    assert done.returncode == 0
    assert (tmp_path / "out" / "cases.csv").read_text().splitlines()[1].startswith("a,liver,,1.0,27,27,27,27")


def test_a_script_without_standard_error_stops_nobody(tmp_path):
    """Bash reads the script under the number that is free, and hands it on as a stream that cannot be written."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.nii").write_text("no scan")
    script = tmp_path / "check.sh"
    script.write_text(f'exec {sys.executable} -m liverjax check -i "$1"')
    command = f"bash {script} {tmp_path / 'masks'} 2>&-"
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "1 cases" in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii"])
def test_names_that_the_terminal_cannot_show(tmp_path, encoding):
    name = os.fsdecode(b"M\xfcller \xe8\x82\x9d.nii.gz")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(b"")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [*_PROGRAM, "check", "-i", str(tmp_path), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, encoding="utf-8")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ller" in done.stdout + done.stderr


def test_names_do_not_steer_the_terminal(tmp_path, capsys):
    place = tmp_path / "red\x1b[31m\nline\x07"
    assert (
        main(["evaluate", f"--predictions={place}", f"--references={place}", f"-o={tmp_path / 'out'}"]) == 1
    )
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "red\\x1b[31m\\nline\\x07" in printed
    assert main(["train\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_output_that_cannot_be_written(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m liverjax config demo >/dev/full", shell=True, stderr=subprocess.PIPE
    )
    assert done.returncode == 1
    assert done.stderr == b"liverjax: error: system: No space left on device\n"
    done = subprocess.run(
        f"{sys.executable} -m liverjax config demo | head -1", shell=True, capture_output=True, text=True
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "JAX_PLATFORMS",
            "cuda",
            "JAX_PLATFORMS is 'cuda', but jax finds no such device; this machine has cpu",
        ),
        (
            "JAX_PLATFORMS",
            "cpux",
            "JAX_PLATFORMS is 'cpux', but jax finds no such device; this machine has cpu",
        ),
        ("JAX_TRANSFER_GUARD", "disallow", "JAX_TRANSFER_GUARD is 'disallow', under which"),
    ],
)
def test_an_environment_that_jax_cannot_use(user_environment, variable, value, message):
    words = ["bench", "--config=demo", "--steps=2", "--config.model.features=4,8", "--config.batch.size=2"]
    environment = {**user_environment, variable: value}
    done = subprocess.run([*_PROGRAM, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"liverjax: error: {message}") and "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["nonsense", "pdf"])
def test_pictures_need_no_backend_of_matplotlib(backend):
    code = (
        "from liverjax.report.figures import reliability; reliability({'a': ([0.1, 0.5], [0.2, 0.4])});"
        "import os, matplotlib; print(os.environ['MPLBACKEND'], matplotlib.rcParams['backend'])"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [backend, {"nonsense": "agg"}.get(backend, backend)], done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError("Unable to allocate 9 GiB"),
            "out of memory (Unable to allocate 9 GiB), expected a machine",
        ),
        (MemoryError(), "out of memory (this process is given no more), expected"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
            "out of memory (RESOURCE_EXHAUSTED: Out of memory)",
        ),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError(28, "No space left on device"), "system: No space left on device"),
        (SystemExit(0), "the program was to end at once (sys.exit(0)), expected a result"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero (--verbose shows where)"),
    ],
)
def test_any_error_is_one_line(monkeypatch, capsys, error, message):
    def fails(args):
        raise error

    monkeypatch.setattr("liverjax.commands.config.run", fails)
    assert main(["config", "demo"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"liverjax: error: {message}") and printed.count("\n") == 1


def test_memory_that_is_short_names_the_scan(tmp_path):
    """Under a limit of the address space which the scan's voxels exceed."""
    (tmp_path / "images").mkdir()
    code = (
        "import nibabel, numpy as np; header = nibabel.Nifti1Header(); header.set_data_shape((1000, 1000, 1000));"
        "header.set_data_dtype(np.uint8); header.set_sform(np.eye(4), 1);"
        f"file = open({str(tmp_path / 'images' / 'a.nii')!r}, 'wb'); file.write(header.binaryblock + bytes(4));"
        "file.truncate(352 + 10**9)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    command = f"ulimit -v 1200000; {sys.executable} -m liverjax check -i {tmp_path} --quiet"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, executable="/bin/bash")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    printed = done.stdout + done.stderr
    assert "a.nii" in printed and "memory" in printed.lower(), printed


#: A config that leaves a read behind, which fails when it is given up, in a module at the path {place}.
_LEFT_BEHIND = """
SOURCE = '''
async def read(pending):
    try:
        await pending
    except BaseException as error:
        raise Exception("Encountered error while reading array index") from error
'''

class Pending:
    def __await__(self):
        yield

def get_config(arg=""):
    names = {{}}
    exec(compile(SOURCE, {place!r}, "exec"), names)
    read = names["read"](Pending())
    read.send(None)
    del read, names
    raise ValueError("a shape that does not fit")
"""


@pytest.mark.parametrize(
    ("place", "ignored"),
    [("/site-packages/orbax/checkpoint/serialization.py", False), ("/home/somebody/orbax_study.py", True)],
)
def test_reads_that_orbax_gives_up_say_nothing(tmp_path, place, ignored):
    path = tmp_path / "my.py"
    path.write_text(_LEFT_BEHIND.format(place=place))
    done = subprocess.run([*_PROGRAM, "config", str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and "ValueError: a shape that does not fit" in done.stderr
    assert ("Exception ignored in" in done.stderr) == ignored
    assert ignored or done.stderr.count("\n") == 1


@pytest.mark.parametrize("given", [None, "default"])
def test_memory_that_workers_shared_is_cleared_away_without_a_word(tmp_path, given):
    path = tmp_path / "my.py"
    body = "from multiprocessing import shared_memory; print(shared_memory.SharedMemory(create=True, size=8).name)"
    path.write_text(_CONFIG.format(body=f"{body}; raise ValueError('a killed worker')"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"PYTHONWARNINGS": given} if given else {}
    command = [*_PROGRAM, "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "a killed worker" in done.stderr
    assert not os.path.exists(f"/dev/shm/{done.stdout.strip()}")


def test_verbose_shows_where_an_error_comes_from(tmp_path):
    missing = str(tmp_path / "nowhere")
    command = [*_PROGRAM, "evaluate", f"--predictions={missing}", f"--references={missing}", "-o", missing]
    quiet = subprocess.run(command, capture_output=True, text=True)
    assert quiet.returncode == 1 and quiet.stderr.count("\n") == 1
    verbose = subprocess.run([*command, "--verbose"], capture_output=True, text=True)
    assert verbose.returncode == 1 and verbose.stderr.endswith(quiet.stderr)
    assert "Traceback" in verbose.stderr and "InputError" in verbose.stderr


def test_the_package_is_the_command(tmp_path):
    done = subprocess.run([*_PROGRAM, "-V"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("liverjax ")


@pytest.mark.parametrize(
    "words", [["--help"], ["evaluate", "--help"], ["train", "--help"], ["config", "demo"]]
)
def test_help_and_configs_without_docstrings(words):
    environment = {**os.environ, "PYTHONOPTIMIZE": "2"}
    done = subprocess.run([*_PROGRAM, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") > 10
