"""The command ``liverjax``: finds the command that the first word names, parses its flags, runs it.

Each module of this package beside this one is a command. Its docstring is its help, ``define(values)``
defines its flags, and ``run(args)`` does the work and returns the exit status (None is 0). The flag that
``POSITIONAL`` names, if the module has it, is set by the first word if that is no flag.
Exit status: 0 done, 1 failed, 2 wrong usage, 75 interrupted and saved.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import types
import warnings

from absl import flags

from liverjax import __version__
from liverjax.errors import Interrupted, LiverjaxError, did_you_mean

#: Command -> what it does, in the order of a first use.
COMMANDS = {
    "demo": "phantom scans, three networks, predictions and scores in a few minutes",
    "config": "print a config field by field, with what each means",
    "check": "list what is wrong with a data set",
    "prepare": "turn a folder of scans and masks into a store for training",
    "train": "train the networks of the three views, or resume",
    "predict": "segment a scan or a folder of scans",
    "evaluate": "score predicted masks against references",
    "recist": "measure lesions and their response over time by RECIST 1.1, and how raters agree",
    "calibrate": "make a run's probabilities true on its validation cases",
    "quality": "judge on held-out cases whether slice quality finds the poor slices",
    "sweep": "run an ablation, on this machine or on SLURM, and compare its variants",
    "bundle": "put a trained model into one file",
    "export": "write a model's networks for other programs, as StableHLO or ONNX",
    "bench": "measure how fast this machine trains",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"liverjax {__version__}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        return _wrong_usage(f"no command is called {name!r}{did_you_mean(name, COMMANDS)}")
    command = importlib.import_module(f"liverjax.commands.{name.replace('-', '_')}")
    return run_program(command, f"liverjax {name}", rest)


def run_program(program: types.ModuleType, name: str, words: list[str]) -> int:
    """Parses the flags of a command, runs it, and returns the exit status.

    Args:
      program: its module, as the docstring of this one says.
      name: what the user types to start it.
      words: what the user typed after that.
    """
    values = flags.FlagValues()
    program.define(values)
    positional = getattr(program, "POSITIONAL", None)
    if any(word in ("-h", "--help") for word in words):
        usage = f"{name} {positional.upper()} --flags" if positional else f"{name} --flags"
        print(f"{usage}\n\n{(program.__doc__ or '').strip()}\n\nFlags:\n{_flag_help(values)}")
        return 0
    if positional and words and not words[0].startswith("-"):
        words = [f"--{positional}={words[0]}", *words[1:]]
    try:
        surplus = values([name, *_with_overrides(words)])[1:]
    except flags.Error as error:
        return _wrong_usage(" ".join(str(error).split()), name)
    if surplus:
        return _wrong_usage(f"{surplus[0]!r} is not a flag", name)
    # Grain's workers read the process-wide flags, which this command does not use.
    flags.FLAGS.mark_as_parsed()
    _keep_compiled_programs()
    logging.basicConfig(level=logging.WARNING, format="liverjax: %(message)s", stream=sys.stderr)
    _silence_orbax_shutdown_noise()
    try:
        return program.run(values) or 0
    except Interrupted as interruption:
        print(f"liverjax: {interruption}", file=sys.stderr)
        return 75
    except LiverjaxError as error:
        return _failed(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _failed(f"{error.filename or 'system'}: {error.strerror or error}")


def _keep_compiled_programs() -> None:
    """Keeps what jax compiles for later processes, in the user's cache or where JAX_COMPILATION_CACHE_DIR says."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "liverjax", "jax"))


def _silence_orbax_shutdown_noise() -> None:
    """Silences what Orbax and TensorStore print beside the error that they raise, by the page if a disk is full."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def report(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = report


def _with_overrides(words: list[str]) -> list[str]:
    """Writes ``--config.model.dropout=0.2`` as the flag ``--override=model.dropout=0.2``."""
    prefix = "--config."
    return [f"--override={word[len(prefix) :]}" if word.startswith(prefix) else word for word in words]


def _overview() -> str:
    rows = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    return (
        "liverjax COMMAND --flags: liver and liver-tumour segmentation in CT and MRI (research use only)\n\n"
        f"Commands:\n{rows}\n\n"
        "`liverjax COMMAND --help` lists a command's flags; `liverjax --version` prints the version."
    )


def _flag_help(values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(values):
        flag = values[name]
        if name != flag.name or name == "override":  # A short name stands beside its flag.
            continue
        short = f", -{flag.short_name}" if flag.short_name else ""
        default = f" (default: {flag.default})" if flag.default not in (None, "", False, []) else ""
        lines.append(f"  --{name}{short}: {flag.help}{default}")
    if "override" in values:
        lines.append(f"  --config.FIELD=VALUE: {values['override'].help}")
    return "\n".join(lines)


def _wrong_usage(message: str, program: str = "liverjax") -> int:
    print(f"liverjax: {message}; see '{program} --help'", file=sys.stderr)
    return 2


def _failed(message: str) -> int:
    print(f"liverjax: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
