"""Scores of a whole set of cases: from two folders of masks to tables."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

import tqdm

from liverjax.errors import InputError, LiverjaxError
from liverjax.scoring import case, summary
from liverjax.scoring.metrics import METRICS, is_tested, metric
from liverjax.scoring.pairing import Pair, pair


def evaluate(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    compare: str | os.PathLike | None = None,
    primary: str = "dice",
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
    processes: int = 1,
    quiet: bool = False,
) -> summary.Evaluation:
    """Scores predicted masks against reference masks, in the scans' own geometry.

    Regions are those of `liverjax.labels.REGIONS`: the liver with its tumours, and the tumours. Where both
    masks of a region are empty nothing is defined: such cases are NaN, left out of means, and counted.

    Args:
      predictions: a mask file, or a folder of them, named as the cases.
      references: a mask file, a folder of them, or a data set in any known layout.
      output: folder for `summary.json`, `cases.csv` and `lesions.csv`; None writes nothing.
      metrics: names out of `METRICS`, or ``nsd_<tolerance>mm``.
      compare: another method's predictions of the same cases, to be tested against in pairs.
      primary: the metric of ``metrics`` by which the two methods are judged: its p-values are adjusted for the number
        of regions, those of the others are not adjusted and only describe.
      cases: ids of the cases to score; by default all.
      allow_missing: score a case without a prediction as if the prediction were empty, else refuse.
      processes: number of cases that are scored at the same time, each in a process of its own.
      quiet: show no progress bar.

    Raises:
      InputError: an unknown metric; a primary metric that is not computed; masks that are missing, damaged, not of
        one geometry or hold other labels (all cases in one message); an output folder that cannot be written to.
      LiverjaxError: a process died.
    """
    for name in metrics:
        metric(name)
    if compare and not (primary in metrics and is_tested(primary)):
        tested = ", ".join(filter(is_tested, metrics)) or "no metric that can be tested"
        raise InputError(f"primary metric {primary!r} is not among those computed; expected one of {tested}")
    pairs = pair(predictions, references, cases, allow_missing)
    others = pair(compare, references, [p.reference.id for p in pairs], allow_missing) if compare else []
    if output is not None:
        summary.make_folder(output)
    scores = _score([*pairs, *others], tuple(metrics), processes, quiet)
    evaluation = summary.collect(pairs, scores[: len(pairs)], metrics)
    if others:
        evaluation.summary["comparison"] = summary.comparison(
            str(compare),
            evaluation.cases,
            [row for score in scores[len(pairs) :] for row in score.regions],
            metrics,
            primary,
        )
    if output is not None:
        evaluation.save(output)
    return evaluation


def _score(pairs: list[Pair], metrics: tuple[str, ...], processes: int, quiet: bool) -> list[case.CaseScores]:
    """Returns the scores of each pair, in order; the errors of all of them are raised as one."""
    scores, errors = [], []
    with contextlib.ExitStack() as stack:
        if processes > 1:
            # Not forked: the caller may have threads, JAX's above all, and a forked lock stays locked.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(processes, context))
            calls = [pool.submit(case.score, pair, metrics).result for pair in pairs]
        else:
            calls = [functools.partial(case.score, pair, metrics) for pair in pairs]
        for call in tqdm.tqdm(calls, desc="evaluate", unit="case", disable=quiet or None):
            try:
                scores.append(call())
            except InputError as error:
                errors.append(str(error))
            except BrokenProcessPool:
                raise LiverjaxError(
                    f"one of {processes} scoring processes died, perhaps out of memory; expected fewer "
                    "--processes"
                ) from None
    if errors:
        raise InputError("; ".join(errors))
    return scores
