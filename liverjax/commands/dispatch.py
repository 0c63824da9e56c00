"""The command ``liverjax``: finds the command that the first word names, parses its flags, runs it.

Each module of this package that `COMMANDS` names is a command. Its docstring is its help, ``define(values)`` defines
its flags, and ``run(args)`` does the work and returns the exit status (None is 0). The flag that ``POSITIONAL`` names,
if the module has it, is set by the first word if that is no flag, and by those after it if ``SEVERAL`` is true. No flag
may be given without a value, as by an unset variable of a script, except those that ``MAY_BE_EMPTY`` names.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import pathlib
import re
import shlex
import sys
import traceback
import types
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liverjax import __version__
from liverjax.commands import flag_help, process
from liverjax.errors import Interrupted, LiverjaxError, did_you_mean, printable
from liverjax.report.provenance import COMMAND

if TYPE_CHECKING:
    from absl import flags

_LOG = logging.getLogger("liverjax")

#: Command -> what it does, in the order of a first use.
COMMANDS = {
    "demo": "phantom scans, three networks, predictions and scores in a few minutes",
    "config": "print a config field by field, with what each means",
    "check": "list what is wrong with a data set",
    "prepare": "turn a folder of scans and masks into a store for training",
    "train": "train the networks of the three views, or resume",
    "predict": "segment a scan or a folder of scans",
    "convert": "write a finished mask as a DICOM segmentation or structure set of its series",
    "view": "look at scans, masks and uncertainty in a browser",
    "models": "list the models that come with the library, or print the card of one",
    "evaluate": "score predicted masks against references",
    "recist": "measure lesions and their response over time by RECIST 1.1, and how raters agree",
    "plan": "volumes of the liver and its tumours, and activity and dose of SIRT, from masks",
    "calibrate": "make a run's probabilities true on its validation cases",
    "train-filter": "train a filter that removes false tumours from predictions",
    "quality": "judge on held-out cases whether slice quality finds the poor slices",
    "study": "how much observers differ, what correcting takes, how many cases are enough",
    "explain": "what a model sees: how far, what at, how firmly, and in what features",
    "sweep": "run an ablation, on this machine or on SLURM, and compare its variants",
    "bundle": "put a trained model into one file",
    "export": "write a model's networks for other programs, as StableHLO or ONNX",
    "bench": "measure how fast this machine trains",
    "completion": "let a shell complete commands, flags, configs and models",
}

#: Commands that show how far their work is (`liverjax.progress`).
_LONG = (
    *("demo", "check", "prepare", "train", "predict", "evaluate", "calibrate", "train-filter", "quality"),
    *("study", "sweep"),
)
#: How absl ends the line of a flag that is true or false.
_NO_BOOLEAN = re.compile(r"\('Non-boolean argument to boolean flag', .*\)$")
_STATUS = (
    "Exit status: 0 done, 1 failed, 2 wrong usage, 75 interrupted and saved (the same call goes on), 130 interrupted\n"
    "(143 by SIGTERM). Errors are one line on standard error; --verbose shows where they come from."
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
      argv: the words of the command line; None are those of this process, whose signals and standard streams are then
        taken care of.
    """
    if argv is not None:
        return _run(argv, lambda: None)
    process.open_streams()
    signals = process.StopOnSignals(_interrupted)
    try:
        status = _run(sys.argv[1:], lambda: signals.stopped)
        sys.stdout.flush()
    except process.Stopped as stopped:  # Came just now, or between an error and its line.
        status = stopped.status
        if not signals.ended:
            _interrupted(stopped.message)
    except OSError as error:
        status = 1
        if not isinstance(error, BrokenPipeError):
            _failed(f"standard output: {error.strerror or error}")
        _drop_output()
    signals.ended = True
    return status


def _run(argv: list[str], stopped: Any) -> int:
    """Runs one command; ``stopped()`` is the signal that has arrived, if any, whatever became of its exception."""
    if argv[:1] == ["help"] and argv[1:]:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"liverjax {__version__}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        return _wrong_usage(f"no command is called {name!r}{did_you_mean(name, COMMANDS)}")
    try:
        return run_program(
            importlib.import_module(f"liverjax.commands.{name.replace('-', '_')}"), f"liverjax {name}", rest
        )
    except Interrupted as interruption:
        _print_error(f"liverjax: {interruption}")
        return 75
    except BaseException as error:
        signal = stopped() or (error if isinstance(error, KeyboardInterrupt) else None)
        if signal is None:
            return _explain(error)
        known = signal if isinstance(signal, process.Stopped) else process.Stopped()
        _LOG.debug("interrupted", exc_info=error)
        _interrupted(known.message)
        return known.status


def defined_flags(program: types.ModuleType) -> flags.FlagValues:
    """Returns the flags of a command's module, those that all commands have included."""
    from absl import flags

    values = flags.FlagValues()
    program.define(values)
    if program.__name__.rpartition(".")[2].replace("_", "-") in _LONG:
        about = "where there is no terminal, seconds between two lines of progress"
        flags.DEFINE_float("log_every_seconds", 30.0, about, lower_bound=0, flag_values=values)
    flags.DEFINE_bool("verbose", False, "log more, and print where an error comes from", flag_values=values)
    return values


def run_program(program: types.ModuleType, name: str, words: list[str]) -> int:
    """Parses the flags of a command, runs it, and returns the exit status.

    Args:
      program: its module, as the docstring of this one says.
      name: what the user types to start it.
      words: what the user typed after that.
    """
    from absl import flags

    typed = shlex.join([*name.split(), *words])
    values = defined_flags(program)
    positional = getattr(program, "POSITIONAL", None)
    if any(word in ("-h", "--help") for word in words):
        usage = f"{name} {positional.upper()} --flags" if positional else f"{name} --flags"
        about = (program.__doc__ or COMMANDS.get(name.split()[-1], "")).strip()
        print(f"{usage}\n\n{about}\n\n{flag_help.text(values)}\n\n{_STATUS}")
        return 0
    if positional:
        count = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
        count = count if getattr(program, "SEVERAL", False) else min(count, 1)
        words = [*(f"--{positional}={word}" for word in words[:count]), *words[count:]]
    try:
        surplus = values([name, *_with_overrides(words)])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(values), n=1)
        meant = f"; did you mean --{near[0]}?" if near else ""
        dashes = "--" if len(error.flagname) > 1 else "-"
        return _wrong_usage(f"no flag is called {dashes}{error.flagname}{meant}", name)
    except flags.Error as error:
        missing = [flag for flag in values if values[flag].name == flag and _is_missing(values[flag])]
        _, absent, hint = str(error).partition("=None: ")
        if absent and missing:
            hint = "" if "must have a value other than None" in hint else f": {hint}"
            return _wrong_usage(" and ".join(f"--{flag}" for flag in missing) + _are(missing) + hint, name)
        return _wrong_usage(_NO_BOOLEAN.sub("expected true or false", str(error)), name)
    if surplus:
        return _wrong_usage(f"{surplus[0]!r} is not a flag", name)
    if empty := _empty_flags(values, getattr(program, "MAY_BE_EMPTY", ())):
        return _wrong_usage(f"--{empty[0]} is given without a value", name)
    # Grain's workers read the process-wide flags, which this command does not use.
    flags.FLAGS.mark_as_parsed()
    _keep_compiled_programs()
    if "log_every_seconds" in values:
        from liverjax.progress import print_every

        print_every(values.log_every_seconds)
    handler = _AboveBar(sys.stderr)
    handler.setFormatter(_OneLine("liverjax: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _LOG.setLevel(logging.DEBUG if values["verbose"].value else logging.NOTSET)
    _silence_shutdown_noise()
    token = COMMAND.set(typed)
    try:
        return program.run(values) or 0
    finally:
        COMMAND.reset(token)


# --- errors ---------------------------------------------------------------------------------------------------


def _explain(error: BaseException) -> int:
    """Prints the line of an error, and returns the exit status."""
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return 1
    _LOG.debug("the error comes from here:", exc_info=error)
    if isinstance(error, LiverjaxError):
        return _failed(str(error))
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else "system"
        name = os.fsdecode(name) if isinstance(name, bytes) else name
        return _failed(f"{printable(name)}: {error.strerror or error}")
    if isinstance(error, SystemExit):
        return _failed(f"the program was to end at once (sys.exit({error.code!r})), expected a result")
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        reason = str(error) or "this process is given no more"
        return _failed(
            f"{_place(error)}out of memory ({reason}), expected a machine or container with more, or a smaller scan"
        )
    return _failed(_of_environment(error) or f"{type(error).__name__}: {error} (--verbose shows where)")


def _place(error: BaseException) -> str:
    """Returns the file that was worked on, "FILE: ", the innermost one that a function was given; "" if none."""
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("liverjax.") or module.startswith("liverjax.commands."):
            continue
        for value in map(frame.f_locals.get, ("path", "case", "scan")):
            file = getattr(value, "image", value)  # Of a case, its scan.
            if isinstance(file, str | os.PathLike):
                return f"{printable(os.fspath(file))}: "
    return ""


def _of_environment(error: BaseException) -> str | None:
    """Returns what an environment variable has to do with an error of jax; None if nothing."""
    guards = [name for name in os.environ if name.startswith("JAX_TRANSFER_GUARD")]
    if guards and "Disallowed" in str(error):
        return f"{guards[0]} is {os.environ[guards[0]]!r}, under which liverjax cannot run, expected it to be unset"
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or "jax" not in sys.modules or not isinstance(error, AssertionError | RuntimeError):
        return None
    import jax

    try:
        jax.devices()
    except Exception:
        jax.config.update("jax_platforms", None)
        there = sorted({device.platform for device in jax.devices()})
        return (
            f"JAX_PLATFORMS is {platforms!r}, but jax finds no such device; this machine has {', '.join(there)}; "
            f"expected JAX_PLATFORMS={there[0]}, or none"
        )
    return None


class _AboveBar(logging.StreamHandler):
    """Writes above a progress bar, where there is one, and not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
        with bars.external_write_mode(file=self.stream) if bars else contextlib.nullcontext():
            super().emit(record)


class _OneLine(logging.Formatter):
    """Messages as one line of printable text; tracebacks as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _printable(record.message)
        return super().formatMessage(record)


def _printable(text: str) -> str:
    """Returns a text as one line; what would move the cursor of a terminal, or worse, is spelled out."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def _print_error(line: str) -> None:
    print(_printable(line), file=sys.stderr)


def _interrupted(message: str) -> None:
    _print_error(f"liverjax: {message}; nothing is left half-written")


def _wrong_usage(message: str, program: str = "liverjax") -> int:
    _print_error(f"liverjax: {message}; see '{program} --help'")
    return 2


def _failed(message: str) -> int:
    _print_error(f"liverjax: error: {message}")
    return 1


def _drop_output() -> None:
    """Sends what is still to be printed nowhere: nobody reads it, and Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- surroundings of the library ------------------------------------------------------------------------------


def _keep_compiled_programs() -> None:
    """Keeps what jax compiles for later processes, in the user's cache or where JAX_COMPILATION_CACHE_DIR says."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "liverjax", "jax"))


def _silence_shutdown_noise() -> None:
    """Silences what Orbax, TensorStore and Python print beside the error that they raise, sometimes by the page."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    # Python clears away the memory that data workers shared, which a process of its own reports when all has ended.
    given = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{given},ignore:resource_tracker" if given else "ignore:resource_tracker"

    def report(unraisable: sys.UnraisableHookArgs) -> None:
        value = unraisable.exc_value
        if str(value) == "Event loop is closed" or isinstance(value, KeyboardInterrupt):
            return
        # What else Orbax was reading when the first of its reads failed.
        code = getattr(unraisable.object, "cr_code", None)
        if "orbax" not in pathlib.Path(getattr(code, "co_filename", "")).parts:
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = report


# --- flags and their help -------------------------------------------------------------------------------------


def _with_overrides(words: list[str]) -> list[str]:
    """Writes ``--config.model.dropout=0.2`` as the flag ``--override=model.dropout=0.2``."""
    prefix = "--config."
    return [f"--override={word[len(prefix) :]}" if word.startswith(prefix) else word for word in words]


def _overview() -> str:
    rows = "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items())
    return (
        "liverjax COMMAND --flags: liver and liver-tumour segmentation in CT and MRI (research use only)\n\n"
        f"Commands:\n{rows}\n\n"
        "`liverjax COMMAND --help` lists a command's flags; `liverjax --version` (-V) prints the version.\n"
        f"{_STATUS}"
    )


def _empty_flags(values: flags.FlagValues, allowed: Sequence[str]) -> list[str]:
    """Returns the flags that were given as an empty list, or as an empty text that is not their default."""
    given = (values[name] for name in values if values[name].present and values[name].name == name)
    empty = [flag for flag in given if flag.value == [] or (flag.value == "" and flag.default != "")]
    return [flag.name for flag in empty if flag.name not in allowed]


def _is_missing(flag: flags.Flag) -> bool:
    return flag_help.is_required(flag) and flag.value is None


def _are(names: list[str]) -> str:
    return " are required" if len(names) > 1 else " is required"


if __name__ == "__main__":
    sys.exit(main())
