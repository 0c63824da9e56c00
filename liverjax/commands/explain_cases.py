"""The cases that `liverjax explain` looks at, and where its results go."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from liverjax import files
from liverjax.commands import reading
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.report import insight_report

if TYPE_CHECKING:
    from absl import flags

    from liverjax.datasets.case import Case
    from liverjax.inference.segmenter import Segmenter


def held_out(args: flags.FlagValues, model: Segmenter) -> list[Case]:
    """Returns the cases that --cases names, or those that did not train the model.

    Raises:
      InputError: there are none.
    """
    cases = find_cases(args.input[0], reading=reading.reading(args))
    seen = {id for name in ("train", "validation") for id in model.subsets.get(name, ())}
    chosen = [case for case in cases if (case.id in args.cases if args.cases else case.id not in seen)]
    if not chosen:
        ids = ",".join(case.id for case in cases[:3])
        raise InputError(
            f"{args.input[0]}: has no such case that did not train the model; name some, as --cases={ids}"
        )
    return chosen


def one(args: flags.FlagValues, cases: list[Case]) -> Case:
    """Returns the only case of an input, or the one that --cases names.

    Raises:
      InputError: there are more, or none.
    """
    chosen = [case for case in cases if not args.cases or case.id in args.cases]
    if len(chosen) != 1:
        ids = ", ".join(case.id for case in cases[:3])
        raise InputError(
            f"{args.input[0]}: {len(chosen)} scans, expected one; name it, as --cases={ids.split(',')[0]}"
        )
    return chosen[0]


def written(args: flags.FlagValues, title: str, pictures, rows, method) -> str:
    """Writes table and report; returns where they are."""
    folder = files.make_folder(pathlib.Path(args.output))
    files.write_csv(folder / f"{args.task}.csv", rows, list(rows[0]))
    return f"Report: {insight_report(folder / f'{args.task}.html', title, pictures, {title: rows}, method)}"
