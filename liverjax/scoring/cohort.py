"""Scores of a whole set of cases: from two folders of masks to tables."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from liverjax.errors import InputError, LiverjaxError, did_you_mean
from liverjax.labels import REGIONS
from liverjax.progress import ProgressLine
from liverjax.scoring import case, summary
from liverjax.scoring.metrics import METRICS, is_tested, metric
from liverjax.scoring.pairing import Pair, pair

_LOG = logging.getLogger("liverjax")
#: Exit status of a process that was started to score, and starts to score everything itself.
_UNGUARDED = 82


def evaluate(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    regions: Sequence[str] | None = None,
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

    Several processes import the file that was started, as all of `multiprocessing` does: a script calls this under
    ``if __name__ == "__main__":``.

    Args:
      predictions: a mask file, or a folder of them, named as the cases.
      references: a mask file, a folder of them, or a data set in any known layout.
      output: folder for `summary.json`, `cases.csv` and `lesions.csv`; None writes nothing.
      metrics: names out of `METRICS`, ``nsd_<tolerance>mm`` or ``false_<distance>mm_ml``.
      regions: "liver", "tumor" or both; by default both, but no tumours where no mask holds one. Lesions and the LiTS
        table belong to "tumor".
      compare: another method's predictions of the same cases, to be tested against in pairs.
      primary: the metric of ``metrics`` by which the two methods are judged: its p-values are adjusted for the number
        of regions, those of the others are not adjusted and only describe.
      cases: ids of the cases to score; by default all.
      allow_missing: score a case without a prediction as if the prediction were empty, else refuse.
      processes: number of cases that are scored at the same time, each in a process of its own.
      quiet: show no progress bar.

    Raises:
      InputError: an unknown metric or region, or none; a primary metric that is not computed; masks that are missing,
        damaged, not of one geometry or hold other labels (all cases in one message); an output folder that cannot be
        written to, or holds such files of another program; several processes in a program that is not a file.
      LiverjaxError: a process died, or memory ran out.
    """
    if processes > 1:
        _require_main_module(processes)
    if not metrics:
        raise InputError(f"no metric was chosen, expected one or more of {', '.join(METRICS)}")
    metrics = tuple(dict.fromkeys(metrics))
    for name in (*metrics, primary):
        metric(name)
    if regions is not None and not regions:
        raise InputError(f"no region was chosen, expected one or more of {', '.join(REGIONS)}")
    for region in regions or ():
        if region not in REGIONS:
            raise InputError(f"region {region!r} does not exist{did_you_mean(region, REGIONS)}")
    if compare and not (primary in metrics and is_tested(primary)):
        tested = ", ".join(filter(is_tested, metrics)) or "no metric that can be tested"
        raise InputError(f"primary metric {primary!r} is not among those computed; expected one of {tested}")
    pairs = pair(predictions, references, cases, allow_missing)
    others = pair(compare, references, [p.reference.id for p in pairs], allow_missing) if compare else []
    if output is not None:
        summary.results_folder(output)
    chosen = [name for name in REGIONS if regions is None or name in regions]
    scores = _score([*pairs, *others], tuple(metrics), tuple(chosen), processes, quiet)
    notes: list[str] = []
    if regions is None:
        chosen, notes = summary.scored_regions(scores, pairs)
    evaluation = summary.collect(pairs, scores[: len(pairs)], metrics, chosen, notes)
    if others:
        evaluation.summary["comparison"] = summary.comparison(
            str(compare),
            evaluation.cases,
            [row for score in scores[len(pairs) :] for row in score.regions],
            metrics,
            primary,
            chosen,
        )
    if output is not None:
        evaluation.save(output)
    return evaluation


def _score(
    pairs: list[Pair], metrics: tuple[str, ...], regions: tuple[str, ...], processes: int, quiet: bool
) -> list[case.CaseScores]:
    """Returns the scores of each pair, in order; the errors of all of them are raised as one."""
    scores, errors = [], []
    here = [functools.partial(case.score, pair, metrics, regions) for pair in pairs]
    many = _submitted(pairs, metrics, regions, processes) if processes > 1 else None
    with (
        many or contextlib.nullcontext((here, [])) as (calls, children),
        ProgressLine("evaluate", len(pairs), "case", quiet=quiet) as line,
    ):
        for pair, call in zip(pairs, calls, strict=True):
            try:
                scores.append(call())
                line.numbers.update(_mean_dice(scores))
            except InputError as error:
                _LOG.debug("case %s", pair.reference.id, exc_info=error)
                errors.append(str(error))
            except MemoryError as error:
                fewer = "fewer --processes, or " if processes > 1 else ""
                raise LiverjaxError(
                    f"case {pair.reference.id}: out of memory ({str(error) or 'this process is given no more'}), "
                    f"expected {fewer}a machine with more"
                ) from None
            except BrokenProcessPool:
                raise LiverjaxError(f"one of {processes} scoring processes {_death(children)}") from None
            line.advance()
    if errors:
        raise InputError("; ".join(errors))
    return scores


def _mean_dice(scores: Sequence[case.CaseScores]) -> dict[str, str]:
    """Returns the mean Dice of the cases so far, of their first region (the liver, if it is scored), to be shown."""
    found = [score.regions[0].get("dice", math.nan) for score in scores if score.regions]
    found = [dice for dice in found if not math.isnan(dice)]
    return {"Dice": f"{sum(found) / len(found):.3f}"} if found else {}


@contextlib.contextmanager
def _submitted(
    pairs: list[Pair], metrics: tuple[str, ...], regions: tuple[str, ...], processes: int
) -> Iterator[tuple[Sequence[Callable[[], case.CaseScores]], list[BaseProcess]]]:
    """Gives a function for the scores of each pair, which processes compute, and these processes."""
    # Not forked: the caller may have threads, JAX's above all, and a forked lock stays locked.
    pool = concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    others = set(multiprocessing.active_children())
    # Ctrl-C reaches all processes of a terminal: the scoring ones inherit that it does not reach them, and are ended.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        calls = [pool.submit(case.score, pair, metrics, regions).result for pair in pairs]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    children = [child for child in multiprocessing.active_children() if child not in others]
    try:
        yield calls, children
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.terminate()
        raise
    finally:
        pool.shutdown()


def _require_main_module(processes: int) -> None:
    """Refuses processes that could not import the file that was started, as each of them does.

    One that does so, and by that comes here, ends: its parent reports why.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)
    started = getattr(sys.modules["__main__"], "__file__", None)
    if started is not None and not os.path.exists(started):
        raise InputError(
            f"{processes} processes import the program that was started, but {started} is no file, expected a "
            "program in a file, or processes=1"
        )


def _death(children: Sequence[BaseProcess]) -> str:
    """Returns why the first of the processes ended, of which the pool then ends the others by SIGTERM."""
    # The pool waits for them too, in another thread: for a moment the code of one that has ended can be unknown.
    until = time.monotonic() + 5
    while any(child.exitcode is None for child in children) and time.monotonic() < until:
        time.sleep(0.02)
    codes = [child.exitcode for child in children if child.exitcode]
    code = next((code for code in codes if code != -signal.SIGTERM), -signal.SIGTERM)
    if code == _UNGUARDED:
        started = getattr(sys.modules["__main__"], "__file__", "the program")
        return (
            f"came to evaluate() again while it imported {started}, expected the call under "
            'if __name__ == "__main__":, or processes=1'
        )
    if code == -signal.SIGKILL:
        return "was killed, as systems do if memory is short, expected fewer --processes"
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
    return f"died {how}; --processes=1 may show why"
