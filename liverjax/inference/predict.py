"""From scan files to mask files: many cases, one after the other, each whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from liverjax.errors import InputError, LiverjaxError
from liverjax.inference.segmenter import Prediction, Segmenter
from liverjax.scans import nifti
from liverjax.scans.layouts import Case

_ENDINGS = (".nii", ".nii.gz")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one case: a prediction that was written to `path`, or the error that stopped it."""

    case: Case
    path: pathlib.Path
    prediction: Prediction | None = None
    error: LiverjaxError | OSError | None = None


def output_path(case: Case, cases: Sequence[Case], output: str | os.PathLike) -> pathlib.Path:
    """Returns where a case's mask goes: the file ``output`` for a single case, else ``output/<id>.nii.gz``.

    Raises:
      InputError: ``output`` names a file, and there are several cases; or it is the scan itself.
    """
    output = pathlib.Path(output)
    if output.name.endswith(_ENDINGS):
        if len(cases) > 1:
            raise InputError(f"{output} names one file for {len(cases)} cases, expected a folder")
        path = output
    else:
        path = output / f"{case.id}.nii.gz"
    if path.exists() and path.samefile(case.image):
        raise InputError(f"{path}: the mask would take the place of the scan; choose another --output")
    return path


def predict_cases(
    model: Segmenter, cases: Sequence[Case], output: str | os.PathLike, *, phase: int | str | None = None
) -> Iterator[Outcome]:
    """Segments the cases and writes their masks, uint8 and voxel on voxel with the scans.

    A case that cannot be used does not stop the others. Yields an `Outcome` after each case.
    """
    paths = [output_path(case, cases, output) for case in cases]
    for case, path in zip(cases, paths, strict=True):
        try:
            prediction = model.predict(case.image, phase=phase)
            nifti.write(path, prediction.labels)
        except (LiverjaxError, OSError) as error:
            yield Outcome(case, path, error=error)
        else:
            yield Outcome(case, path, prediction=prediction)
