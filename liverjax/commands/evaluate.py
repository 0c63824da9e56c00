"""Score predicted masks against reference masks, in the scans' own geometry.

  liverjax evaluate --predictions=MASKS --references=DATASET -o SCORES
  liverjax evaluate --predictions=MASKS --references=DATASET -o SCORES --model=RUN --subset=test

Masks are paired by case id. The references are a data set in any known layout, or a folder of masks. The scored
regions are the liver with its tumours (labels 1 and 2) and the tumours (label 2). If both masks of a region are empty
its scores are undefined: such cases are left out of means, and counted. Writes summary.json (in nnU-Net's shape),
cases.csv, lesions.csv and report.html, and prints the tables.
"""

from typing import Any

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    on: dict[str, Any] = {"flag_values": values}
    string, words = flags.DEFINE_string, flags.DEFINE_list
    string("predictions", None, "predicted mask, or folder of masks named as the cases", **on)
    string("references", None, "data set, folder of masks, or reference mask", **on)
    string("output", None, "folder for the results", short_name="o", **on)
    words("regions", None, "liver, tumor, or both (default: both; no tumours if no mask holds one)", **on)
    words("metrics", None, "metrics of each case (default: all)", **on)
    words("cases", None, "ids of the cases to score (default: all)", **on)
    string("model", None, "run that predicted: only the regions that it knows are scored", **on)
    subsets = ["train", "validation", "test"]
    flags.DEFINE_enum("subset", None, subsets, "only this subset of the split of --model", **on)
    string("compare", None, "predictions of another method, tested against in pairs", **on)
    string("primary", "dice", "metric by which --compare judges; Holm's method adjusts it", **on)
    flags.DEFINE_bool("allow_missing", False, "score a case without a prediction as an empty one", **on)
    flags.DEFINE_integer("processes", 1, "cases scored at the same time", lower_bound=1, **on)
    flags.DEFINE_bool("quiet", False, "no progress bar, no table", **on)
    flags.mark_flags_as_required(["predictions", "references", "output"], **on)


def run(args: flags.FlagValues) -> None:
    """Scores, writes the results and the report, prints the tables."""
    from liverjax.report.evaluation import evaluation_report
    from liverjax.scoring import cohort
    from liverjax.scoring.metrics import METRICS

    names = ("predictions", "references", "output", "compare", "primary", "allow_missing", "processes")
    settings = {name: args[name].value for name in (*names, "quiet")}
    settings["metrics"] = tuple(METRICS) if args.metrics is None else args.metrics
    evaluation = cohort.evaluate(**settings, **_chosen(args))
    title = f"Evaluation of {args.predictions}"
    report = evaluation_report(f"{args.output}/report.html", title, **evaluation.report_rows())
    if not args.quiet:
        print(f"{evaluation.table()}\n\nreport: {report}")


def _chosen(args: flags.FlagValues) -> dict[str, Any]:
    """Returns the cases and regions to score, which the run may name that predicted."""
    from liverjax.errors import ConfigError

    if args.subset and (args.cases is not None or not args.model):
        given = "--cases" if args.model else "no --model"
        raise ConfigError(
            f"--subset={args.subset} with {given}, expected --model=RUN, whose split names the cases"
        )
    cases, regions = args.cases, args.regions
    if args.model:
        from liverjax.checkpoint.manifest import read_manifest
        from liverjax.config import resolve
        from liverjax.files import local_path
        from liverjax.labels import REGIONS

        run = local_path(args.model, "--model")
        if run.is_file():
            raise ConfigError(
                f"--model: {run} is a file, expected the folder of a run, which lists its cases"
            )
        facts = read_manifest(run / "run.json")
        known = len(resolve(facts["config"]).labels)
        cases = facts["data"][args.subset] if args.subset else cases
        regions = [name for name, ids in REGIONS.items() if min(ids) < known] if regions is None else regions
    return {"cases": cases, "regions": regions}
