"""Which prediction belongs to which reference: by case id, over folders or single files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

from liverjax.datasets import layouts
from liverjax.datasets.case import Case
from liverjax.errors import InputError

#: Folders of masks within a data set, and the folder of scans beside them by which they are recognised.
_MASK_FOLDERS = {"labelsTr": "imagesTr", "labels": "images"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """One case: its reference, and the file of its prediction, or None where that is missing.

    Attributes:
      reference: the case; its `image` is the reference mask itself where no scan is known.
      prediction: file of the predicted mask, or None.
    """

    reference: Case
    prediction: pathlib.Path | None


def pair(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> list[Pair]:
    """Pairs predicted masks with reference masks, in natural order of the case ids.

    Args:
      predictions: a mask, or a folder of masks named as the cases.
      references: a mask, a folder of masks, or a data set in any layout that `layouts` knows.
      cases: ids of the cases to score; by default all, or the one case of a single prediction.
      allow_missing: keep cases that have no prediction.

    Raises:
      InputError: nothing to pair, an id that occurs twice, or cases without prediction or reference, which are all
        listed.
    """
    predictions, references = pathlib.Path(predictions), pathlib.Path(references)
    referenced = _references(references)
    predicted = {}
    for id, file in _masks(predictions).items():
        other = predicted.setdefault(_known(id, referenced), file)
        if other is not file:
            raise InputError(f"{file} and {other.name} are predictions of one case, expected one of them")
    if predictions.is_file() and references.is_file():
        # Two files given by their paths belong together, whatever their names.
        return [Pair(case, predictions) for case in referenced.values()]
    if cases is None and predictions.is_file():
        cases = list(predicted)
    if cases is not None:
        cases = [_known(id, referenced) for id in cases]
        predicted = {id: predicted[id] for id in cases if id in predicted}

    if cases is not None and not cases:
        raise InputError(f"{predictions}: no case was chosen to be scored, expected one or more ids")
    wanted = set(referenced if cases is None else cases) | set(predicted)
    without_reference = wanted - set(referenced)
    without_prediction = set() if allow_missing else wanted - without_reference - set(predicted)
    problems = []
    if without_reference:
        problems.append(f"no reference in {references} for {_listed(without_reference)}")
    if without_prediction:
        problems.append(
            f"no prediction in {predictions} for {_listed(without_prediction)} (--allow_missing scores "
            "them as empty, --cases chooses some)"
        )
    if problems:
        raise InputError("; ".join(problems))
    return [Pair(referenced[id], predicted.get(id)) for id in _sorted(wanted)]


def _references(path: pathlib.Path) -> dict[str, Case]:
    """Returns the cases with a mask at ``path``, by id."""
    root = path.parent if _is_within_data_set(path) else path
    cases = {} if path.is_file() else {case.id: case for case in layouts.find_cases(root) if case.label}
    if cases:
        return cases
    # Masks alone, without a data set.
    return {id: Case(id, file, file, id) for id, file in _masks(path).items()}


def _is_within_data_set(path: pathlib.Path) -> bool:
    return path.name in _MASK_FOLDERS and (path.parent / _MASK_FOLDERS[path.name]).is_dir()


def _masks(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the mask files of a folder, or the single one, by case id."""
    return {case.id: case.image for case in layouts.find_cases(path, "auto" if path.is_file() else "flat")}


def _known(id: str, references: dict[str, Case]) -> str:
    """Returns the id of a case among the references: LiTS's case `volume-7` may also be called `7`."""
    lits = f"volume-{id}"
    return lits if id not in references and lits in references else id


def _sorted(ids: Iterable[str]) -> list[str]:
    return sorted(ids, key=layouts.natural_key)


def _listed(ids: set[str]) -> str:
    return f"{len(ids)} case{'s' if len(ids) > 1 else ''}: {', '.join(_sorted(ids))}"
