"""Many cases with one model, as `liverjax predict` shows them: a bar or lines, a line for each error, the manifest."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from liverjax.progress import ProgressLine

if TYPE_CHECKING:
    from absl import flags

    from liverjax.datasets.case import Case
    from liverjax.inference import Cascade, Outcome, Segmenter


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

    records, summary, shard = [], "", "1/1" if args.share else args.shard
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
            with ProgressLine("predict", len(cases), "case", quiet=args.quiet) as line:
                for outcome in share.outcomes(predict) if share else predict(cases):
                    line.advance()
                    records.append(outcome.record())
                    if outcome.error:
                        line.print_error(f"liverjax: error: {' '.join(str(outcome.error).split())}")
        finally:
            with share.ending(records) if share else contextlib.nullcontext(records) as written:
                summary = outputs.write_manifest(args.output, shard, model, written, source, args.tumor_model)
    if not args.quiet:
        print(summary)
    if (failed := sum(record["status"] == "failed" for record in records)) and len(cases) > 1:
        print(f"liverjax: {failed} of {len(cases)} cases failed", file=sys.stderr)
    return 1 if failed else 0
