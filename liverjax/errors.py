"""Errors that a user can fix. The commands print their text as one line and exit with status 1.

A message names the thing (file, case, field), its value, and what was expected.
"""

import difflib
import pathlib
import sys
from collections.abc import Iterable


class LiverjaxError(Exception):
    """Base of every error that the library raises deliberately. Its text is one printable line, whatever it quotes."""

    def __str__(self) -> str:
        return printable(super().__str__())


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


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raises a `ConfigError` of a config's field and its value, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field} is {shown(value)}, expected {expected}")


def require_choice(field: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `ConfigError` of a config's field, unless its value is one of ``choices``; the nearest is named."""
    if value not in choices:
        raise ConfigError(f"{field} is {shown(value)}{did_you_mean(value, choices)}")


def printable(text: object) -> str:
    """Returns a text in one line that any terminal takes: line ends, control characters and bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


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
