"""Studies on a group's own masks, with figures, intervals and a report.

  liverjax study observers --readers=READER1,READER2,READER3 -o OUT
  liverjax study observers --readers=manual/A=MASKS1,manual/B=MASKS2,corrected/A=MASKS3,corrected/B=MASKS4 -o OUT

observers: how much readers differ. READER is a folder of masks named by case, NAME=FOLDER, or MODE/NAME=FOLDER; modes
are compared in pairs. Volumes relate to the readers' consensus, or to --reference. Writes CSV tables, observers.json,
maps of votes and of the consensus, and report.html. Research use only. Definitions: docs/studies.md.
"""

from typing import Any

from absl import flags

POSITIONAL = "kind"


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_enum("kind", None, ["observers"], "which study: the first word", **on)
    flags.DEFINE_list("readers", None, "folders of masks, as NAME=FOLDER or MODE/NAME=FOLDER", **on)
    flags.DEFINE_string("output", None, "folder for the results", short_name="o", **on)
    flags.DEFINE_enum(
        "region", "liver", ["liver", "tumor"], "the liver with its tumours, or the tumours", **on
    )
    flags.DEFINE_list("values", [], "values of the masks that are the region (default: 1,2 or 2)", **on)
    flags.DEFINE_string("reference", None, "folder of masks to which volumes relate", **on)
    flags.DEFINE_string("scans", None, "data set of the scans, for patients and pictures", **on)
    flags.DEFINE_list("cases", None, "ids of the cases (default: all)", **on)
    flags.DEFINE_float("band_mm", 5.0, "how far around disagreement voxels are counted", **on)
    flags.DEFINE_integer("seed", 0, "of the bootstrap", lower_bound=0, upper_bound=2**32 - 1, **on)
    flags.DEFINE_bool("quiet", False, "no progress bar, no table", **on)
    flags.mark_flags_as_required(["kind", "readers", "output"], **on)


def run(args: flags.FlagValues) -> None:
    """Compares the readers, writes the results and the report, prints the figures."""
    from liverjax.report.studies import observers_report
    from liverjax.studies import observers, observers_tables
    from liverjax.studies.readers import label_values, read_all, scan_of

    values = label_values(args.values)
    names = ("region", "reference", "scans", "cases", "band_mm", "seed", "quiet")
    settings = {name: args[name].value for name in names}
    found = observers.study_observers(args.readers, args.output, values=values, **settings)

    def read(case: str):
        masks = read_all(found.readers, case, found.region, values)
        named = {reader.name: mask for reader, mask in zip(found.readers, masks, strict=True)}
        return scan_of(args.scans, case, masks[0]), named

    report = observers_report(
        f"{args.output}/report.html",
        region=found.region,
        readers=[reader.name for reader in found.readers],
        tables=observers_tables.rows_of(found),
        summary=observers_tables.shown(found.summary),
        tests=observers_tables.shown_tests(found.tests),
        notes=found.notes,
        read=read,
    )
    if not args.quiet:
        print(f"{found.table()}\n\nreport: {report}")
