"""What is logged or refused of the cases of a data set while a store is prepared, beyond each case's own."""

from __future__ import annotations

import collections
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from liverjax.datasets.case import Case
from liverjax.errors import ConfigError, InputError
from liverjax.files import local_path
from liverjax.labels import TUMOR
from liverjax.options import Config, Target

_LOG = logging.getLogger("liverjax")


def predicted_livers(
    livers: str | os.PathLike | None, cases: Sequence[Case], target: Target
) -> dict[str, pathlib.Path]:
    """Returns the mask of each case in a folder of predicted livers; none without a folder."""
    if (target.region == "predicted") != (livers is not None):
        raise ConfigError(
            f"target.region is {target.region!r}, "
            + (
                "expected 'predicted' with a folder of predicted livers; set target.region=predicted"
                if livers is not None
                else "but no folder of predicted livers is given; give --livers=FOLDER with the masks that "
                "`liverjax predict` wrote of the same scans, or set target.region=reference"
            )
        )
    if livers is None:
        return {}
    folder = local_path(livers, "the folder of predicted livers")
    found, missing = {}, []
    for case in cases:
        paths = [folder / f"{case.id}{ending}" for ending in (".nii.gz", ".nii")]
        paths = [path for path in paths if path.is_file()]
        if paths:
            found[case.id] = paths[0]
        else:
            missing.append(case.id)
    if missing:
        raise InputError(
            f"{folder}: no mask of {len(missing)} of {len(cases)} cases, the first {missing[0]}.nii.gz; run `liverjax "
            "predict` with a liver model on all scans of the data set"
        )
    return found


def report_unlabelled(cases: Sequence[Case], config: Config) -> None:
    """Logs it if tumours are to be learnt from masks that have no value for them, as if there were none."""
    without = [
        case.id
        for case in cases
        if not case.liver_only and all(meaning != TUMOR for _, meaning in case.label_map)
    ]
    if without and "tumor" in config.labels:
        _LOG.warning(
            "%d cases, the first %s, have masks without a label for tumours: they count as free of tumours; if "
            'they are not, list them in cases.json as {"liver_only": [...]}, so that they are not used',
            len(without),
            without[0],
        )


def report_doubts(prepared: Sequence[Mapping[str, Any]]) -> None:
    """Logs what speaks against each case, and which cases are the same."""
    same = collections.defaultdict(list)
    for facts in prepared:
        for doubt in facts["doubts"]:
            _LOG.warning("case %s is doubtful: %s", facts["id"], doubt)
        # Equal files, or files that differ in their compression or header alone.
        file = facts["fingerprint"][0], repr(facts["reading"])
        for key in (file, facts["sha256"]["axial.npy"]):
            same[key].append(facts["id"])
    groups = {frozenset(ids): ids for ids in same.values() if len(ids) > 1}
    for ids in (ids for group, ids in groups.items() if not any(group < other for other in groups)):
        _LOG.warning(
            "%s hold the same voxels; keep one: copies in training and test make scores too good",
            " and ".join(ids),
        )
