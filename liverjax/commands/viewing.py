"""What `liverjax view FOLDER` shows: predictions, an evaluation, or those of a run; the worst case first."""

from __future__ import annotations

import pathlib
import shlex
from typing import TYPE_CHECKING

from liverjax.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from liverjax.scans import Reading
    from liverjax.scoring.pairing import Pair
    from liverjax.viewer.study import Study
    from liverjax.volume import Volume


def studies(folder: pathlib.Path, references: str | None, reading: Reading) -> list[Study]:
    """Returns the cases of a folder.

    Args:
      folder: that `liverjax predict`, `evaluate` or `train` wrote.
      references: data set with references of predictions, if there is one.
      reading: how scans of predictions are read.

    Raises:
      InputError: it is no such folder, or a run without predictions.
    """
    from liverjax.datasets.layouts import find_cases
    from liverjax.viewer import study

    if (folder / "run.json").is_file():
        folder = _of_run(folder)
    if (folder / "summary.json").is_file():
        if references:
            raise InputError("--references is for predictions, an evaluation has its own; leave it out")
        return _scored(folder)
    cases = find_cases(references, labelled=True) if references else []
    return study.read_folder(folder, {case.id: case.read_mask for case in cases}, reading)


def _of_run(run: pathlib.Path) -> pathlib.Path:
    """Returns the newest evaluation in the folder of a run, or else its newest predictions."""
    for name in ("summary.json", "manifest.json"):
        found = [path for path in run.rglob(name) if path.is_file()]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime).parent
    words = shlex.join([f"--model={run}", "-i", "DATASET", "-o", str(run / "predictions")])
    raise InputError(
        f"{run}: the run has no predictions to look at; make some: liverjax predict {words} --subset=test "
        "--save_uncertainty"
    )


def _scored(folder: pathlib.Path) -> list[Study]:
    """Returns the cases of an evaluation, by the Dice of the liver, the lowest first."""
    from liverjax.scoring.summary import scored_files
    from liverjax.viewer.study import Study

    found = []
    for pair, dice in scored_files(folder):
        masks = {} if pair.prediction is None else {"prediction": _prediction(pair)}
        case = pair.reference
        read = case.read_mask if case.image == case.label else case.read_image
        found.append(Study(case.id, read, masks, case.read_mask, scores=dice))
    return sorted(found, key=lambda one: one.scores.get("liver", 2.0))


def _prediction(pair: Pair) -> Callable[[], Volume]:
    def read() -> Volume:
        prediction = pair.read_prediction()
        assert prediction is not None  # Its file was there when it was scored, or reading it raises.
        return prediction

    return read
