"""Many cases with one model, as `liverjax predict` shows them: a bar or lines, a line for each error, the manifest."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from absl import flags

    from liverjax.datasets.case import Case
    from liverjax.inference import Cascade, Outcome, Segmenter

#: Seconds between two lines on the progress, where there is no terminal but the file of a batch system.
EVERY_S = 30.0


def segment(
    args: flags.FlagValues, model: Segmenter | Cascade, source: str, cases: Sequence[Case], **settings: Any
) -> int:
    """Segments cases and writes the manifest, also of an interrupted run; returns 1 if a case failed, else 0.

    Args:
      args: flags of `liverjax predict`: --output, --shard, --share, --tumor_model, --quiet.
      model: the model.
      source: where it is from, for the manifest.
      cases: the cases.
      settings: of `predict_cases`.
    """
    from liverjax.inference import outputs
    from liverjax.inference.predict import predict_cases
    from liverjax.inference.sharing import Sharing, fingerprint
    from liverjax.training.logs import shows_bars

    records, line, shard = [], "", "1/1" if args.share else args.shard
    with contextlib.ExitStack() as stack:
        share = None
        if args.share:
            extras, reading = settings["extras"], repr(cases[0].reading) if cases else ""
            beside = (extras.probabilities, extras.uncertainty, extras.mc_samples, extras.picture is not None)
            chosen = fingerprint(model, *beside, settings["format"], args.runtime, reading)
            share = stack.enter_context(Sharing(args.output, cases, chosen))

        def predict(some: Sequence[Case]) -> Generator[Outcome]:
            return predict_cases(model, some, args.output, share=share, **settings)

        try:
            bars = shows_bars()
            printed = began = time.monotonic()
            with tqdm(total=len(cases), desc="predict", unit="case", disable=args.quiet or not bars) as bar:
                for outcome in share.outcomes(predict) if share else predict(cases):
                    bar.update()
                    records.append(outcome.record())
                    if not (args.quiet or bars) and time.monotonic() - printed >= EVERY_S:
                        printed = time.monotonic()
                        pace = f"{(printed - began) / len(records):.2f} s a case"
                        print(
                            f"predict: {len(records)} of {len(cases)} cases, {pace}",
                            file=sys.stderr,
                            flush=True,
                        )
                    if outcome.error:
                        bar.write(f"liverjax: error: {' '.join(str(outcome.error).split())}", file=sys.stderr)
        finally:
            with share.ending(records) if share else contextlib.nullcontext(records) as written:
                line = outputs.write_manifest(args.output, shard, model, written, source, args.tumor_model)
    if not args.quiet:
        print(line)
    if (failed := sum(record["status"] == "failed" for record in records)) and len(cases) > 1:
        print(f"liverjax: {failed} of {len(cases)} cases failed", file=sys.stderr)
    return 1 if failed else 0
