"""Train a filter that tells true tumour candidates from false ones (Chlebus 2018), and show what it gains.

  liverjax train-filter --predictions=FOLD0,FOLD1 --references=DATASET -o FILTER

FOLD0, FOLD1, ... are folders of `liverjax predict --save_probabilities --subset=test`, so that each case comes from
a network that did not train on it; DATASET holds their scans and masks. Writes FILTER/filter.safetensors,
candidates.csv and filter.html, and prints the table. Needs scikit-learn: pip install 'liverjax[lesions]'.
"""

import pathlib
from typing import Any

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_list("predictions", None, "folders of predictions with their probability maps", **on)
    flags.DEFINE_string("references", None, "data set with scans and masks of these cases", **on)
    flags.DEFINE_string("output", None, "folder for the filter and its report", short_name="o", **on)
    flags.DEFINE_float("threshold", 0.3, "least tumour probability of a candidate's voxels", **on)
    flags.DEFINE_float("margin_mm", 3.0, "how far outside the liver a candidate's voxels may lie", **on)
    flags.DEFINE_float("recall_share", 0.95, "share of the recall that the operating point keeps", **on)
    flags.DEFINE_bool("views", True, "use the maps of the single views if all cases have them", **on)
    flags.DEFINE_integer("seed", 0, "of the forests", lower_bound=0, upper_bound=2**32 - 1, **on)
    flags.DEFINE_bool("quiet", False, "no progress bar, no table", **on)
    flags.mark_flags_as_required(["predictions", "references", "output"], **on)


def run(args: flags.FlagValues) -> None:
    """Trains, writes the filter and the report, prints the table."""
    from liverjax.objects.candidates import CandidateOptions
    from liverjax.report.lesions import lesion_filter_report
    from liverjax.studies import lesions, lesions_tables

    fit, notes = lesions.train_filter(
        args.predictions,
        args.references,
        args.output,
        candidates=CandidateOptions(args.threshold, args.margin_mm),
        recall_share=args.recall_share,
        views=args.views,
        seed=args.seed,
        quiet=args.quiet,
    )
    rows, curves = lesions_tables.effect_rows(fit), lesions_tables.curves(fit)
    path = pathlib.Path(args.output) / "filter.html"
    summary = lesions_tables.summary(fit)
    lesion_filter_report(path, "Lesion filter", rows, curves, fit.importance, [summary, *notes])
    if not args.quiet:
        print(f"{summary}\n{lesions_tables.table(fit)}\n\nreport: {path}")
