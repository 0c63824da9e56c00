"""What lies in folders: NIfTI files and folders, each folder read once, and what is passed over in them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from liverjax.datasets.names import printable
from liverjax.errors import InputError

_SPECIAL = {
    stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip


def kind(path: Path) -> str:
    """Returns what a path is: "file", "folder", "missing", or a noun for what else it is."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of names that no file can have
        return "broken link" if path.is_symlink() else "missing"
    except OSError as error:
        return (
            "loop of links"
            if error.errno == errno.ELOOP
            else f"path that cannot be opened ({error.strerror})"
        )
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else _SPECIAL.get(stat.S_IFMT(mode), "no file")


class Folders:
    """Reads folders, each once.

    Attributes:
      passed_over: a line on each entry that is called as a scan and is no file.
    """

    def __init__(self) -> None:
        self.passed_over: list[str] = []
        self._read: dict[Path, tuple[list[Path], list[Path]]] = {}

    def scans(self, folder: Path) -> list[Path]:
        """Returns the NIfTI files in a folder, sorted by name; none if there is no such folder.

        Hidden ones are left out. A folder called as a file that holds a file of its own name, `a.nii/a.nii` as
        archives unpack to, stands for that file. Links that lead nowhere are returned: they are found out where
        files are opened.

        Raises:
          InputError: the folder cannot be read.
        """
        return self._entries(folder)[0]

    def below(self, folder: Path) -> list[Path]:
        """Returns the folders in a folder, sorted by name, without hidden ones and those that stand for a file.

        Raises:
          InputError: the folder cannot be read.
        """
        return self._entries(folder)[1]

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        if folder not in self._read:
            self._read[folder] = self._sorted_out(folder) if folder.is_dir() else ([], [])
        return self._read[folder]

    def _sorted_out(self, folder: Path) -> tuple[list[Path], list[Path]]:
        files, folders = [], []
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise InputError(
                f"{printable(folder)}: cannot be read ({error.strerror or error}), expected a folder that you may list"
            ) from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.name.lower().endswith((".nii", ".nii.gz")):
                folders += [entry] if entry.is_dir() else []
                continue
            found = kind(entry)
            if found == "folder":
                inner = entry / entry.name
                if kind(inner) == "file":
                    files.append(inner)
                else:
                    folders.append(entry)
                    self.passed_over.append(f"{printable(entry)} is a folder and not read as a scan")
            elif found in _SPECIAL.values():
                self.passed_over.append(f"{printable(entry)} is a {found} and not read")
            else:
                files.append(entry)
        return files, folders
