"""Many cases with one model, as `liverjax predict` shows them: a bar, a line for each error, the manifest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liverjax.progress import ProgressLine

if TYPE_CHECKING:
    from absl import flags

    from liverjax.datasets.case import Case
    from liverjax.inference import Cascade, Segmenter


def segment(
    args: flags.FlagValues, model: Segmenter | Cascade, source: str, cases: Sequence[Case], **settings: Any
) -> int:
    """Segments cases and writes the manifest, also of an interrupted run; returns 1 if a case failed, else 0.

    Args:
      args: flags of `liverjax predict`: --output, --shard, --tumor_model, --quiet.
      model: the model.
      source: where it is from, for the manifest.
      cases: the cases.
      settings: of `predict_cases`.
    """
    from liverjax.inference import outputs
    from liverjax.inference.predict import predict_cases

    records, summary = [], ""
    try:
        with ProgressLine("predict", len(cases), "case", quiet=args.quiet) as line:
            for outcome in predict_cases(model, cases, args.output, **settings):
                line.advance()
                records.append(outcome.record())
                if outcome.error:
                    line.print_error(f"liverjax: error: {' '.join(str(outcome.error).split())}")
    finally:
        summary = outputs.write_manifest(args.output, args.shard, model, records, source, args.tumor_model)
    if not args.quiet:
        print(summary)
    if (failed := sum(record["status"] == "failed" for record in records)) and len(cases) > 1:
        print(f"liverjax: {failed} of {len(cases)} cases failed", file=sys.stderr)
    return 1 if failed else 0
