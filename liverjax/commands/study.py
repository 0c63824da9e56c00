"""Studies on a group's own masks, with figures, intervals and a report.

  liverjax study observers --readers=manual/A=MASKS1,manual/B=MASKS2,corrected/C=MASKS3,corrected/D=MASKS4 -o OUT
  liverjax study corrections --automatic=MASKS --corrected=MASKS2 --times=TIMES.csv -o OUT
  liverjax study learning-curve --config=ct_liver:small --dataset=DATASET --workdir=WORKDIR --sizes=2,4,8,16

observers: how much readers differ. READER is a folder of masks named by case, NAME=FOLDER, or MODE/NAME=FOLDER; modes
are compared in pairs. corrections: how much of automatic masks was corrected, in slices, volume, contour and minutes.
learning-curve: score against the number of training patients, run and resumed as `liverjax sweep` is. Each writes CSV
and JSON tables and report.html. Research use only. Definitions: docs/studies.md.
"""

from absl import flags

from liverjax.commands import study_curve, study_flags

POSITIONAL = "kind"
#: The flags that may be given without a value.
MAY_BE_EMPTY = ("slurm",)
define = study_flags.define


def run(args: flags.FlagValues) -> int:
    """Compares masks, or trains, writes the results and the report, prints the figures."""
    from liverjax.studies.readers import label_values

    study_flags.check(args)
    if args.kind == "learning-curve":
        return study_curve.run(args)
    settings, values = study_flags.settings(args), label_values(args.values)
    table, report = {"observers": _observers, "corrections": _corrections}[args.kind](args, settings, values)
    if not args.quiet:
        print(f"{table}\n\nreport: {report}")
    return 0


def _observers(args, settings, values):
    from liverjax.report import observers_report
    from liverjax.studies import observers_tables, study_observers

    found = study_observers(values=values, **settings)
    report = observers_report(
        f"{args.output}/report.html",
        region=found.region,
        readers=[reader.name for reader in found.readers],
        tables=observers_tables.rows_of(found),
        summary=observers_tables.shown(found.summary),
        tests=observers_tables.shown_tests(found.tests),
        notes=found.notes,
        read=_reading(args, found.readers, values),
    )
    return found.table(), report


def _corrections(args, settings, values):
    from liverjax.report import corrections_report
    from liverjax.studies import observers_tables, study_corrections

    found = study_corrections(values=values, **settings)
    report = corrections_report(
        f"{args.output}/report.html",
        region=found.region,
        cases=found.cases,
        curves=found.curves,
        summary=observers_tables.shown(found.summary),
        notes=found.notes,
        read=_reading(args, [found.automatic, *found.readers], values),
    )
    return found.table(), report


def _reading(args, readers, values):
    from liverjax.studies.readers import read_all, scan_of

    def read(case: str):
        masks = read_all(readers, case, args.region, values)
        named = {reader.name: mask for reader, mask in zip(readers, masks, strict=True)}
        return scan_of(args.scans, case, masks[0]), named

    return read
