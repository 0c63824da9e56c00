"""Text and CSV files that users give: read whole, and refused in one line where they are none."""

from __future__ import annotations

import csv
import io
import os
import stat

from liverjax.errors import InputError

#: Largest file in bytes: a table of a hundred thousand cases.
_LARGEST = 64 * 2**20


def read_text(path: str | os.PathLike) -> str:
    """Returns the text of a file in UTF-8, with or without byte order mark.

    Raises:
      InputError: it cannot be read, is no file (a folder, a named pipe), or is too large.
      UnicodeDecodeError: it is not in UTF-8.
    """
    try:
        # Not blocking: the opening of a named pipe waits for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise InputError(f"{path}: is a folder, pipe or device, expected a file")
            if state.st_size > _LARGEST:
                raise InputError(f"{path}: has {state.st_size / 2**20:.0f} MiB, expected at most 64")
            return file.read().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_csv(path: str | os.PathLike) -> tuple[list[str], list[dict]]:
    """Returns the columns and rows of a CSV file; short and long rows are as `csv.DictReader` has them.

    Raises:
      InputError: it cannot be read, or is no CSV file in UTF-8.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = list(reader)
        return list(reader.fieldnames or []), rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({error})") from None
