"""Scores predicted masks against reference masks, in the scans' own geometry.

  liverjax evaluate --predictions=MASKS --references=DATASET -o SCORES

Masks are paired by case id. The references are a data set in any known layout, or a folder of masks. The scored
regions are the liver with its tumours (labels 1 and 2) and the tumours (label 2). If both masks of a region are empty
its scores are undefined: such cases are left out of means, and counted. Writes summary.json (in nnU-Net's shape),
cases.csv, lesions.csv and report.html, and prints the tables.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    string, integer, boolean = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_bool
    string("predictions", None, "predicted mask, or folder of masks named as the cases", flag_values=values)
    string("references", None, "data set, folder of masks, or reference mask", flag_values=values)
    string("output", None, "folder for the results", short_name="o", flag_values=values)
    string("compare", None, "predictions of another method, tested against in pairs", flag_values=values)
    string(
        "primary", "dice", "metric by which --compare judges; Holm's method adjusts it", flag_values=values
    )
    for name in ("predictions", "references", "output"):
        flags.mark_flag_as_required(name, flag_values=values)
    flags.DEFINE_list("metrics", None, "metrics per case, by default all", flag_values=values)
    flags.DEFINE_list("cases", None, "ids of the cases to score, by default all", flag_values=values)
    boolean("allow_missing", False, "score a case without a prediction as an empty one", flag_values=values)
    integer("processes", 1, "cases scored at the same time", lower_bound=1, flag_values=values)
    boolean("quiet", False, "no progress bar, no table", flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Scores, writes the results and the report, prints the tables."""
    from liverjax.report.evaluation import evaluation_report
    from liverjax.scoring import cohort
    from liverjax.scoring.metrics import METRICS

    evaluation = cohort.evaluate(
        args.predictions,
        args.references,
        args.output,
        metrics=args.metrics or tuple(METRICS),
        compare=args.compare,
        primary=args.primary,
        cases=args.cases,
        allow_missing=args.allow_missing,
        processes=args.processes,
        quiet=args.quiet,
    )
    report = evaluation_report(
        f"{args.output}/report.html",
        f"Evaluation of {args.predictions}",
        evaluation.tables(),
        evaluation.cases,
        evaluation.lesions,
        evaluation.read,
    )
    if not args.quiet:
        print(f"{evaluation.table()}\n\nreport: {report}")
