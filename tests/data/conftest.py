"""Data sets of two phantoms that a test may change, and what is in a folder."""

import json
import pathlib
import shutil
from collections.abc import Callable, Iterable

import pytest

from liverjax.files import sha256


@pytest.fixture
def some_scans(phantom_scans, tmp_path) -> Callable[[Iterable[int]], pathlib.Path]:
    """Function from numbers of phantoms to a data set of these, free to be damaged."""

    def choose(numbers):
        folder = tmp_path / "scans"
        for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            (folder / part).mkdir(parents=True)
            for number in numbers:
                shutil.copy(phantom_scans / part / f"phantom_00{number}{ending}", folder / part)
        facts = json.loads((phantom_scans / "dataset.json").read_text(encoding="utf-8"))
        del facts["numTraining"]
        (folder / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
        return folder

    return choose


@pytest.fixture
def two_scans(some_scans) -> pathlib.Path:
    """A data set of two of the phantoms, free to be damaged."""
    return some_scans((1, 2))


@pytest.fixture
def contents() -> Callable[[pathlib.Path], dict[str, str]]:
    """Function from a store to the hash of each of its files, but for its lock."""

    def of(folder):
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".prepare.lock")
        return {str(path.relative_to(folder)): sha256(path) for path in files}

    return of
