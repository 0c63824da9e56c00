"""Errors that a user can fix. The commands print their text as one line and exit with status 1.

A message names the thing (file, case, field), its value, and what was expected.
"""

import difflib
import pathlib
import sys
from collections.abc import Iterable


class LiverjaxError(Exception):
    """Base of every error that the library raises deliberately."""


class InputError(LiverjaxError):
    """A scan, mask, folder or store that cannot be used as it is."""


class ConfigError(LiverjaxError):
    """A config field or value that does not exist or does not fit."""


class CheckpointError(LiverjaxError):
    """A checkpoint or run folder that is missing, damaged, or of another configuration."""


class TrainingError(LiverjaxError):
    """Training that cannot go on, for instance because of a loss that is not finite."""


class LockedError(LiverjaxError):
    """A folder in which another process is at work."""


class Interrupted(LiverjaxError):
    """Work that a signal stopped and that was saved; the same call continues it. Exit status 75."""


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest of ``choices``, or all of them if none is near."""
    choices = sorted(choices)
    near = difflib.get_close_matches(value, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(choices)}"


def shown(value: object) -> str:
    """Returns a value as messages show it: what is long is cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Thousands of digits, or of lists within lists.
        text = f"a {type(value).__name__} that is too long to be shown"
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"


def unguarded_main() -> str:
    """Returns why worker processes of this program cannot start, if that is so: each of them imports its main file.

    An empty text if the file has the guard that it needs, or if there is none, as in a notebook.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file:
        return ""
    try:
        text = pathlib.Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"worker processes import the main file, but {file} is none; save the program as a file"
    if "__main__" in text:
        return ""
    return (
        f"worker processes import {file}, which calls this again; put its calls below "
        '`if __name__ == "__main__":`'
    )
