"""List all problems of a data set, each with its remedy.

  liverjax check -i DATASET
  liverjax check -i DATASET --json > findings.json

Every scan and mask is read. A data set with errors cannot be used; the exit status is then 1.
"""

from absl import flags

from liverjax.commands import reading


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "input", None, "folder of scans, with or without masks", short_name="i", flag_values=values
    )
    flags.DEFINE_string(
        "layout", "auto", "how the folder is laid out: auto, plain, nnunet, ...", flag_values=values
    )
    flags.DEFINE_enum(
        "modality", "auto", ["auto", "ct", "mr"], "what kind of scans these are", flag_values=values
    )
    reading.define(values)
    flags.DEFINE_bool("json", False, "print the findings as JSON", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no progress bar", flag_values=values)
    flags.mark_flags_as_required(["input"], flag_values=values)


def run(args: flags.FlagValues) -> int:
    """Runs the command; the exit status is 1 if there are errors."""
    import dataclasses
    import json

    from liverjax.datasets.check import check_data_set

    report = check_data_set(
        args.input,
        layout=args.layout,
        modality=args.modality,
        reading=reading.reading(args),
        quiet=args.quiet,
    )
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
        return 1 if report.errors else 0
    for finding in report.findings:
        print(f"{finding.severity} ({finding.kind}): {finding.message}\n  {finding.remedy}")
    if report.labels:
        print(f"masks are read by {report.labels}")
    warnings = len(report.findings) - report.errors
    print(
        f"{report.path}: {report.cases} cases ({report.modality}), {report.errors} errors and {warnings} "
        "warnings"
    )
    return 1 if report.errors else 0
