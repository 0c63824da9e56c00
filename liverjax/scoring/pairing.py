"""Which prediction belongs to which reference: by case id, over folders or single files; and what its values mean."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from liverjax.datasets import layouts, names
from liverjax.datasets.case import Case, read_labels
from liverjax.datasets.dataset_json import case_facts
from liverjax.datasets.label_names import OWN, OWN_LABELS, Labels
from liverjax.errors import InputError
from liverjax.files import read_json
from liverjax.labels import NAMES, TUMOR
from liverjax.scans import Reading
from liverjax.volume import Volume

_LOG = logging.getLogger("liverjax")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One case: its reference, and the file of its prediction, or None where that is missing.

    Attributes:
      reference: the case; its `image` is the reference mask itself where no scan is known.
      prediction: file of the predicted mask, or None.
      label_map: what the values in that file mean, as `Case.label_map`.
    """

    reference: Case
    prediction: pathlib.Path | None
    label_map: tuple[tuple[int, int], ...] = OWN_LABELS

    def record(self) -> dict[str, Any]:
        """Returns the files and how they are read as JSON can hold them, from which `recorded` makes the pair again."""
        case, scanless = self.reference, self.reference.image == self.reference.label
        paths = {
            "scan": None if scanless else case.image,
            "reference": case.label,
            "prediction": self.prediction,
        }
        return {
            "case": case.id,
            **{name: path and os.path.abspath(path) for name, path in paths.items()},
            "reference_labels": case.label_map,
            "prediction_labels": self.label_map,
            "voxel_on_voxel": case.voxel_on_voxel,
            **dataclasses.asdict(case.reading),
        }

    @classmethod
    def recorded(cls, facts: dict[str, Any]) -> Pair:
        """Returns the pair of a `record`.

        Raises:
          LookupError, TypeError, ValueError: it is none.
        """
        spacing = None
        if facts["spacing"] is not None:
            x, y, z = map(float, facts["spacing"])
            spacing = x, y, z
        reference, maps = pathlib.Path(facts["reference"]), []
        for name in ("reference_labels", "prediction_labels"):
            maps.append(tuple((int(value), int(meaning)) for value, meaning in facts[name]))
        reading = Reading(phase=facts["phase"], series=facts["series"], spacing=spacing)
        scan = reference if facts["scan"] is None else pathlib.Path(facts["scan"])
        id, whole = str(facts["case"]), bool(facts["voxel_on_voxel"])
        case = Case(id, scan, reference, id, maps[0], voxel_on_voxel=whole, reading=reading)
        return cls(case, facts["prediction"] and pathlib.Path(facts["prediction"]), maps[1])

    def read_prediction(self) -> Volume | None:
        """Reads the predicted mask, as uint8 label ids; None if there is none.

        Raises:
          InputError: it cannot be read, or holds a value that `label_map` does not.
        """
        return None if self.prediction is None else read_labels(self.prediction, self.label_map)


def pair(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> list[Pair]:
    """Pairs predicted masks with reference masks, in natural order of the case ids.

    What the values of a reference mean, its data set's `dataset.json` and `cases.json` say. Of predictions, a
    `dataset.json` beside them does, as nnU-Net writes it; if they lie in a data set's own folder of masks, that of the
    data set; of masks that `liverjax predict` has written, its manifest. Others may hold the library's labels or the
    references' values, if no value means different things in the two; else they are refused.

    Args:
      predictions: a mask, or a folder of masks named as the cases.
      references: a mask, a folder of masks, or a data set in any layout that `layouts` knows.
      cases: ids of the cases to score; by default all, or the one case of a single prediction.
      allow_missing: keep cases that have no prediction.

    Raises:
      InputError: nothing to pair, an id that occurs twice, or cases without prediction or reference, which are all
        listed; or nothing says what the values of the predictions mean.
    """
    predictions, references = pathlib.Path(predictions), pathlib.Path(references)
    referenced = _references(references)
    files, stated = layouts.mask_files(predictions)
    label_map = _label_map(predictions, files.values(), stated, references, referenced.values())
    predicted = {}
    for id, file in files.items():
        other = predicted.setdefault(_known(id, referenced), file)
        if other is not file:
            raise InputError(f"{file} and {other.name} are predictions of one case, expected one of them")
    if predictions.is_file() and references.is_file():
        # Two files given by their paths belong together, whatever their names.
        return [Pair(case, predictions, label_map) for case in referenced.values()]
    if cases is None and predictions.is_file():
        cases = list(predicted)
    if cases is not None:
        cases = [_known(unicodedata.normalize("NFC", id), referenced) for id in cases]
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
    return [Pair(referenced[id], predicted.get(id), label_map) for id in _sorted(wanted)]


def _references(path: pathlib.Path) -> dict[str, Case]:
    """Returns the cases with a mask at ``path``, by id: those of a data set, of its folder of masks, or masks alone."""
    folder = pathlib.Path(os.path.abspath(path.parent if path.is_file() else path))
    within = layouts.is_mask_folder(folder)
    root = folder.parent if within else path
    listing = layouts.Listing([]) if path.is_file() and not within else layouts.list_files(root)
    cases = {case.id: case for case in layouts.find_cases(root)} if listing.masks or within else {}
    if listing.masks and not within:
        files, labels = dict(listing.masks), listing.labels
    else:
        found, labels = layouts.mask_files(path)
        ids = {name: names.mask_id(name, cases) for name in found}
        files = {name if ids[name] in found else ids[name]: file for name, file in found.items()}
    labels = labels or OWN
    if labels.text:
        _LOG.warning("%s: references are read by %s", path, labels.line)
    alone = {} if cases or path.is_file() else case_facts(path / "cases.json", files)
    return {
        id: dataclasses.replace(
            cases.get(id) or Case(id, file, file, id), label=file, label_map=labels.map, **alone.get(id, {})
        )
        for id, file in files.items()
    }


def _label_map(
    predictions: pathlib.Path,
    files: Collection[pathlib.Path],
    stated: Labels | None,
    references: pathlib.Path,
    cases: Collection[Case],
) -> tuple[tuple[int, int], ...]:
    """Returns what the values of predicted masks mean; see `pair`."""
    if _are_own(files):
        return OWN_LABELS
    if stated:
        if stated.text:
            _LOG.warning("%s: predictions are read by %s", predictions, stated.line)
        return stated.map
    own, theirs = dict(OWN_LABELS), dict(next(iter(cases)).label_map)
    for value, label in theirs.items():
        if own.get(value, label) != label:
            raise InputError(
                f"{predictions}: nothing says whether {value} in these masks is {NAMES[label]}, as in {references}, or "
                f"{NAMES[own[value]]}, as in masks of this library; put beside them a copy of the dataset.json or "
                'cases.json that states the references\' labels, or a dataset.json with {"labels": {"background": 0, '
                '"liver": 1, "tumor": 2}}'
            )
    return tuple(sorted({**theirs, **own}.items()))


def _are_own(files: Collection[pathlib.Path]) -> bool:
    """Whether all of these masks are listed in a manifest of `liverjax predict` beside them."""
    listed = set()
    for folder in {file.parent for file in files}:
        for manifest in folder.glob("manifest*.json"):
            try:
                records = read_json(manifest).get("cases")
            except (InputError, OSError):
                continue
            for record in records if isinstance(records, list) else []:
                if isinstance(record, dict) and record.get("status") != "failed":
                    listed.add(pathlib.Path(str(record.get("mask"))).name)
    return {file.name for file in files} <= listed


def without_tumors(pairs: Sequence[Pair]) -> bool:
    """Whether a model of this library predicted all of these masks that knows no tumours, as stated beside them."""
    files = [pair.prediction for pair in pairs if pair.prediction]
    if not files or not _are_own(files):
        return False
    try:
        return all(NAMES[TUMOR] not in read_json(file.parent / "labels.json") for file in files)
    except (InputError, OSError):
        return False


def _known(id: str, references: Collection[str]) -> str:
    """Returns the id of a case among the references: LiTS's `volume-7` may also be called `segmentation-7` or `7`."""
    return next((name for name in (id, names.mask_id(id), f"volume-{id}") if name in references), id)


def _sorted(ids: Iterable[str]) -> list[str]:
    return sorted(ids, key=names.natural_key)


def _listed(ids: set[str]) -> str:
    return f"{len(ids)} case{'s' if len(ids) > 1 else ''}: {', '.join(_sorted(ids))}"
