"""Measure lesions in masks of any tool, follow them over time, and tell the response by RECIST 1.1.

  liverjax recist --time_points=FOLDER -o OUT
  liverjax recist --time_points=baseline.nii.gz,later.nii.gz --scans=ct0.nii.gz,ct1.nii.gz -o OUT
  liverjax recist --raters=READER1,READER2,READER3.csv -o OUT

Time points are mask files of one patient in order of time, one folder of them, or a folder for each time point, with
masks named by patient. Writes lesions.csv, responses.csv, recist.json and report.html, and a DICOM SR of each scan
that is a DICOM series. --raters compares readers: folders of masks (of folders for each time point), or CSV files of
diameters; --simulate_raters simulated ones.
Research use only, not for treatment decisions. Definitions: docs/planning.md.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    for name, default, meaning in (
        ("time_points", [], "masks in order of time, or folders of them"),
        ("raters", [], "folders of masks, or CSV files of diameters, one for each rater"),
        ("scans", [], "the scans of the time points, for the pictures: files, or folders of DICOM slices"),
        ("viable", [], "masks of arterially enhancing tumour, for mRECIST"),
        ("transforms", [], "of each later time point, a file of 4 x 4 numbers: to baseline"),
        ("dates", [], "of the time points, as 2024-01-31"),
        ("targets", [], "numbers of the target lesions, or a CSV file; proposed by default"),
        ("tumor_labels", ["2"], "values of tumour in the masks"),
    ):
        flags.DEFINE_list(name, default, meaning, flag_values=values)
    flags.DEFINE_string("output", None, "folder for the results", short_name="o", flag_values=values)
    flags.DEFINE_string("elsewhere", None, "CSV file of findings beyond the masks", flag_values=values)
    flags.DEFINE_integer("simulate_raters", 0, "number of simulated raters", 0, 1000, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of simulation and bootstrap", 0, flag_values=values)
    for name, default, meaning in (
        ("near_mm", 0.0, "match lesions without overlap up to this distance"),
        ("too_small_mm", 5.0, "what a smaller target lesion counts"),
        ("new_mm", 5.0, "new lesions that stay smaller are equivocal"),
        ("error_mm", 2.0, "standard deviation of the errors of simulated raters"),
        ("bias_mm", 0.0, "standard deviation of their biases"),
    ):
        flags.DEFINE_float(name, default, meaning, 0, 1000, flag_values=values)
        flags.register_validator(name, lambda mm: mm == mm, "expected 0 to 1000 mm", flag_values=values)
    flags.mark_flag_as_required("output", flag_values=values)
    flags.register_multi_flags_validator(
        ["time_points", "raters"],
        lambda given: bool(given["time_points"]) != bool(given["raters"]),
        message="expected either --time_points or --raters",
        flag_values=values,
    )


def run(args: flags.FlagValues) -> None:
    """Measures, follows, compares raters, writes the results and the reports."""
    from liverjax.files import local_path
    from liverjax.planning import assessment, dicom_report, patients, pictures, raters, stated
    from liverjax.report import raters_report, response_report

    labels = stated.tumor_labels(args.tumor_labels)
    options = assessment.Options(labels, args.near_mm, args.too_small_mm, args.new_mm)
    courses = raters.read_raters(args.raters, options, args.transforms)
    each = []
    if args.time_points:
        files = {name: getattr(args, name) for name in ("dates", "scans", "viable", "transforms")}
        found = patients.find_patients(args.time_points, **files)
        targets, beyond = stated.read_all(args.targets, args.elsewhere, found)
        each = [assessment.assess_patient(p, options, targets.get(p.id), beyond.get(p.id)) for p in found]
        if args.simulate_raters:
            courses = raters.simulate(each, args.simulate_raters, args.error_mm, args.bias_mm, args.seed)
    agreement = raters.compare_raters(courses, args.seed) if courses else None
    if each:
        # Scans are read as they are drawn, which is before anything is written.
        rows = {**assessment.report_rows(each), "pictures": pictures.pictures(each)}
        report = response_report(local_path(args.output, "--output") / "report.html", **rows)
        assessment.save(args.output, each)
        dicom_report.save(args.output, each)
        print(f"{assessment.table(each)}\n\n{assessment.USE}. Report: {report}")
    if agreement:
        agreement.save(args.output)
        report = raters_report(f"{args.output}/raters.html", **agreement.report_rows())
        print(f"{agreement.table()}\n\n{assessment.USE}. Report of raters: {report}")
