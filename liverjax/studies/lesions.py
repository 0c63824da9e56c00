"""A lesion filter from files: predictions with their probability maps, and the data set with scans and references.

A case must come from a network that did not train on it: on cases that it knows a network is surer, makes fewer false
candidates, and a forest would learn an operating point that does not hold on others. Where a manifest of `liverjax
predict` names the run, this is checked, patient by patient.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from liverjax.checkpoint.manifest import read_manifest
from liverjax.datasets.case import Case
from liverjax.datasets.layouts import find_cases, mask_files
from liverjax.datasets.names import natural_key
from liverjax.errors import CheckpointError, InputError
from liverjax.files import local_path, read_json, write_csv
from liverjax.labels import TUMOR
from liverjax.objects.candidates import CandidateOptions, Truth, find_candidates, truth
from liverjax.objects.features import feature_names, measure
from liverjax.objects.filter_file import write_filter
from liverjax.objects.forest import classifier
from liverjax.progress import followed
from liverjax.scans import nifti
from liverjax.scoring import froc
from liverjax.scoring.pairing import Pair, pair
from liverjax.scoring.summary import cell, make_folder
from liverjax.studies.forest_fit import FilterFit, check_share, fit_filter
from liverjax.views import VIEWS

_LOG = logging.getLogger("liverjax")

#: Names of what is written into the output folder, beside the report.
FILTER, TABLE = "filter.safetensors", "candidates.csv"
_AGAIN = "predict with --save_probabilities and a network of three labels"


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A case with the maps that were predicted.

    Attributes:
      pair: its scan and reference, and its predicted mask, of which liver and tumours are the liver.
      tumor: file of the tumour probability.
      views: file of each view's tumour probability, where there are some.
      model: run that predicted it, as the manifest names it; "" where nothing is known.
      tumor_model: likewise the run of the tumour networks of a cascade; "" of a single model.
    """

    pair: Pair
    tumor: pathlib.Path
    views: Mapping[str, pathlib.Path]
    model: str
    tumor_model: str = ""

    @property
    def case(self) -> Case:
        """The case of the data set."""
        return self.pair.reference


def train_filter(
    predictions: Sequence[str | os.PathLike],
    references: str | os.PathLike,
    output: str | os.PathLike,
    *,
    candidates: CandidateOptions = CandidateOptions(),  # noqa: B008  (frozen)
    recall_share: float = 0.95,
    views: bool = True,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[FilterFit, list[str]]:
    """Trains a lesion filter, and writes it with a table of all candidates.

    Args:
      predictions: folders of `liverjax predict --save_probabilities`, such as one a fold, each of cases that its run
        held out: ID.nii.gz, probabilities/ID_tumor.nii.gz, and, if the filter is to use the single views,
        probabilities/ID_tumor_VIEW.nii.gz.
      references: the data set that holds scans and reference masks of these cases.
      output: folder for filter.safetensors and candidates.csv.
      candidates: what a candidate is.
      recall_share: the operating point is the highest that keeps this share of the recall.
      views: use the maps of the single views if every case has them.
      seed: of the forests.
      quiet: show no progress bar.

    Returns:
      The filter with its figures, and notes on what could not be checked.

    Raises:
      InputError: maps are missing or lie elsewhere than their scan, a case was trained on by the network that predicted
        it, a case is there twice, the output folder cannot be written to, or as `fit_filter`.
      ConfigError: a recall share that is not in (0, 1].
      LiverjaxError: scikit-learn is not installed.
    """
    # What would otherwise be noticed only when all cases have been measured.
    classifier()
    check_share(recall_share)
    cases = find_predicted(predictions, references)
    notes = check_held_out(cases, find_cases(references))
    folder = make_folder(output)
    for note in notes:
        _LOG.warning("%s", note)
    used = _common_views(cases) if views else ()
    rows, truths = [], []
    for found, true in _measured(cases, candidates, used, quiet):
        rows.append(found)
        truths.append(true)
    cohort = froc.gather(truths, [p.case.id for p in cases], [p.case.patient for p in cases])
    fit = fit_filter(
        np.concatenate(rows), cohort, views=used, candidates=candidates, recall_share=recall_share, seed=seed
    )
    write_filter(folder / FILTER, fit.lesion_filter)
    write_csv(folder / TABLE, _table(fit, np.concatenate(rows)), _columns(used))
    return fit, notes


def find_predicted(
    predictions: Sequence[str | os.PathLike], references: str | os.PathLike
) -> list[Predicted]:
    """Returns the predicted cases of all folders, each with its scan and its reference.

    Raises:
      InputError: there are none, one is there twice, or a map, a scan or a reference of tumours is missing.
    """
    found: dict[str, Predicted] = {}
    for folder in predictions:
        folder = local_path(folder, "--predictions")
        if not folder.is_dir():
            raise InputError(f"{folder}: no folder, expected one of `liverjax predict --save_probabilities`")
        models = _models(folder)
        ids = list(mask_files(folder)[0])
        for one in pair(folder, references, ids):
            case, mask = one.reference, one.prediction
            if mask is None:
                continue
            if case.image == case.label:
                raise InputError(
                    f"{references}: holds no scan of case {case.id!r}, expected the data set with its scans"
                )
            if case.liver_only:
                raise InputError(
                    f"{case.label}: does not distinguish tumours from the liver, expected a reference of tumours for "
                    f"case {case.id!r}; take {mask.name} out of {folder}"
                )
            stem = mask.name.removesuffix(".gz").removesuffix(".nii")
            maps = folder / "probabilities"
            tumor = maps / f"{stem}_tumor.nii.gz"
            if not tumor.is_file():
                raise InputError(
                    f"{tumor} does not exist, expected the tumour probability of case {case.id!r}; {_AGAIN}"
                )
            views = {view: maps / f"{stem}_tumor_{view}.nii.gz" for view in VIEWS}
            views = {view: file for view, file in views.items() if file.is_file()}
            if case.id in found:
                raise InputError(
                    f"case {case.id!r} is in {found[case.id].tumor.parent.parent} and in {folder}, expected each case "
                    "once"
                )
            found[case.id] = Predicted(one, tumor, views, *models.get(mask.name, ("", "")))
    return sorted(found.values(), key=lambda one: natural_key(one.case.id))


def check_held_out(predicted: Sequence[Predicted], cases: Sequence[Case]) -> list[str]:
    """Refuses cases of patients that trained the network which predicted them.

    Args:
      predicted: the cases.
      cases: all of the data set, which say whose cases trained.

    Returns:
      Notes on the cases for which this cannot be known: no manifest, or a model without the list of its cases.

    Raises:
      InputError: there are such cases; the first are named.
    """
    patients = {case.id: case.patient for case in cases}
    trained: dict[str, set[str] | None] = {}
    wrong: dict[str, str] = {}
    unknown: dict[str, None] = {}
    for one in predicted:
        for model in (one.model, *([one.tumor_model] if one.tumor_model else [])):
            if model not in trained:
                trained[model] = _trained_on(model, patients)
            known = trained[model]
            if known is None:
                unknown[one.case.id] = None
            elif one.case.patient in known or one.case.id in known:
                wrong.setdefault(one.case.id, model)
    if wrong:
        first, model = next(iter(wrong.items()))
        raise InputError(
            f"{len(wrong)} of {len(predicted)} cases were predicted by a network that trained on their patients (the "
            f"first: {first!r} by {model}), expected held-out cases; predict these of each fold "
            "(`liverjax predict --subset=test`) into a folder of their own"
        )
    if not unknown:
        return []
    first = next(iter(unknown))
    return [
        f"{len(unknown)} of {len(predicted)} cases (the first: {first!r}) were predicted by a model that does not "
        "list the cases that trained it: that they were held out was not checked"
    ]


def _trained_on(model: str, patients: Mapping[str, str]) -> set[str] | None:
    """Returns the patients and cases that trained a run; None if that cannot be known."""
    if not model or not (pathlib.Path(model) / "run.json").is_file():
        return None
    try:
        ids = read_manifest(pathlib.Path(model) / "run.json")["data"]["train"]
    except CheckpointError as error:
        _LOG.warning("%s", error)
        return None
    return {*ids, *(patients[id] for id in ids if id in patients)}


def _models(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Returns the model of each mask and its tumour model, by file name, as the manifests of a folder name them."""
    models = {}
    for file in sorted(folder.glob("manifest*.json")):
        try:
            facts = read_json(file)
        except (InputError, OSError) as error:
            _LOG.warning("%s", error)
            continue
        earlier = facts.get("earlier")
        # What the last run says of a mask counts; it skips those that an earlier one wrote.
        for run in [*(earlier if isinstance(earlier, list) else []), facts]:
            records = run.get("cases") if isinstance(run, dict) else None
            for record in records if isinstance(records, list) else []:
                if isinstance(record, dict) and record.get("status") == "done":
                    names = str(run.get("model") or ""), str(run.get("tumor_model") or "")
                    models[pathlib.Path(str(record.get("mask"))).name] = names
    return models


def _common_views(cases: Sequence[Predicted]) -> tuple[str, ...]:
    sets = {tuple(one.views) for one in cases}
    if len(sets) == 1 and len(next(iter(sets))) > 1:
        return next(iter(sets))
    if any(sets):
        _LOG.warning(
            "not all cases have the maps of the same views, two or more: their features are left out"
        )
    return ()


def _measured(
    cases: Sequence[Predicted], options: CandidateOptions, views: Sequence[str], quiet: bool
) -> Iterator[tuple[np.ndarray, Truth]]:
    for one in followed(cases, "candidates", "case", quiet=quiet):
        scan, reference = one.case.read_pair()
        mask = one.pair.read_prediction()
        assert mask is not None  # `find_predicted` has left out those without.
        nifti.require_same_geometry(mask, scan)
        maps = {}
        for name, file in {"": one.tumor, **{view: one.views[view] for view in views}}.items():
            volume = nifti.read(file)
            nifti.require_same_geometry(volume, scan)
            maps[name] = volume.voxels
        fused = maps.pop("")
        try:
            found = find_candidates(fused, mask.voxels, scan.affine, options)
            features = measure(found, scan.voxels, fused, maps)
        except InputError as error:
            raise InputError(f"case {one.case.id}: {error}") from None
        yield features, truth(found, reference.voxels == TUMOR)


def _columns(views: Sequence[str]) -> list[str]:
    return ["case", "candidate", "true", "lesion_probability", "kept", *feature_names(bool(views))]


def _table(fit: FilterFit, features: np.ndarray) -> Iterator[dict[str, object]]:
    cohort = fit.cohort
    first = np.searchsorted(cohort.case, np.arange(len(cohort.cases)))
    for row, values in enumerate(features):
        case = int(cohort.case[row])
        yield {
            "case": cell(cohort.cases[case]),
            "candidate": row - int(first[case]) + 1,
            "true": int(cohort.true[row]),
            "lesion_probability": round(float(fit.probabilities[row]), 6),
            "kept": int(fit.kept[row]),
            **{
                name: f"{value:.7g}"
                for name, value in zip(fit.lesion_filter.forest.names, values, strict=True)
            },
        }
