"""Which prediction belongs to which reference: by case id, over folders or single files."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from liverjax.errors import InputError
from liverjax.scans import layouts

#: Where data sets keep their masks, below the folder that a user names.
_LABEL_FOLDERS = ("labelsTr", "labels")
#: LiTS keeps scans and masks side by side; these are the masks.
_LITS_MASK = "segmentation-"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One case: its reference mask and its prediction, or None where that is missing."""

    case: str
    reference: pathlib.Path
    prediction: pathlib.Path | None


def pair(
    predictions: str | pathlib.Path,
    references: str | pathlib.Path,
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> list[Pair]:
    """Pairs mask files by case id, in natural order.

    Args:
      predictions: a mask, or a folder of masks named as the cases (or as LiTS scans, ``volume-N``).
      references: a mask, a folder of masks, or a data set (with ``labelsTr``, ``labels`` or ``segmentation-N``).
      cases: ids of the cases to score; all by default, or the one case if ``predictions`` is a single file.
      allow_missing: keep cases that have no prediction.

    Raises:
      InputError: nothing to pair, an id that occurs twice, or (all listed) cases without prediction or reference.
    """
    predictions, references = pathlib.Path(predictions), pathlib.Path(references)
    predicted, referenced = _masks(predictions), _masks(references)
    if predictions.is_file() and references.is_file():
        # Two files that are named outright belong together, whatever they are called.
        return [Pair(next(iter(predicted)), references, predictions)]
    if cases is None and predictions.is_file():
        cases = list(predicted)
    if cases is not None:
        predicted, referenced = (
            {id: files[id] for id in cases if id in files} for files in (predicted, referenced)
        )

    wanted = set(cases or referenced) | set(predicted)
    without_reference = _sorted(wanted - set(referenced))
    without_prediction = [] if allow_missing else _sorted(wanted - set(predicted) - set(without_reference))
    problems = []
    if without_reference:
        problems.append(f"no reference in {references} for {_listed(without_reference)}")
    if without_prediction:
        problems.append(
            f"no prediction in {predictions} for {_listed(without_prediction)} (--allow_missing scores them as "
            "empty, --cases chooses some)"
        )
    if problems:
        raise InputError("; ".join(problems))
    return [Pair(case, referenced[case], predicted.get(case)) for case in _sorted(referenced)]


def _masks(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the mask files at ``path`` by case id."""
    if path.is_file():
        return {layouts.case_id(path): path}
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder of masks")
    folder = next((path / name for name in _LABEL_FOLDERS if (path / name).is_dir()), path)
    files = [file for file in sorted(folder.iterdir()) if file.name.endswith((".nii", ".nii.gz"))]
    files = [file for file in files if file.name.startswith(_LITS_MASK)] or files
    if not files:
        raise InputError(f"{folder}: no .nii or .nii.gz mask in this folder")
    masks = {}
    for file in files:
        case = layouts.case_id(file)
        if case in masks:
            raise InputError(
                f"{file}: case {case!r} occurs twice, see {masks[case].name}; expected one mask a case"
            )
        masks[case] = file
    return masks


def _sorted(cases: Iterable[str]) -> list[str]:
    return sorted(cases, key=layouts.natural_key)


def _listed(cases: list[str]) -> str:
    return f"{len(cases)} case{'s' if len(cases) > 1 else ''}: {', '.join(cases)}"
