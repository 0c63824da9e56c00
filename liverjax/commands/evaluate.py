"""Scores predicted masks against reference masks, in the scans' own geometry.

Masks are paired by case id: FOLDER/x.nii.gz of the predictions with x of the references. The references may be a
data set (with labelsTr, labels, or LiTS's segmentation-N beside volume-N). Regions: the liver with its tumours
(labels 1 and 2), and the tumours (label 2). Writes summary.json (nnU-Net's shape) and cases.csv, and prints a table.
Where both masks of a region are empty nothing is defined: left out of means, and counted.

  liverjax evaluate --predictions=MASKS --references=DATASET/labelsTr -o SCORES
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    string, integer, boolean = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_bool
    string("predictions", None, "predicted mask, or folder of masks named as the cases", flag_values=values)
    string("references", None, "reference mask, folder of masks, or data set", flag_values=values)
    string("output", None, "folder for the results", short_name="o", flag_values=values)
    for name in ("predictions", "references", "output"):
        flags.mark_flag_as_required(name, flag_values=values)
    flags.DEFINE_list("metrics", None, "metrics per case, by default all", flag_values=values)
    flags.DEFINE_list("cases", None, "ids of the cases to score, by default all", flag_values=values)
    boolean("allow_missing", False, "score a case without a prediction as an empty one", flag_values=values)
    integer("processes", 1, "cases scored at the same time", lower_bound=1, flag_values=values)
    boolean("quiet", False, "no progress bar, no table", flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Scores, writes the results, prints the table."""
    from liverjax.scoring import cohort

    evaluation = cohort.evaluate(
        args.predictions,
        args.references,
        args.output,
        metrics=args.metrics or tuple(cohort.METRICS),
        cases=args.cases,
        allow_missing=args.allow_missing,
        processes=args.processes,
        quiet=args.quiet,
    )
    if not args.quiet:
        print(evaluation.table())
