"""Write a finished mask in another format: a DICOM segmentation or structure set that refers to the series of its scan.

  liverjax convert MASK.nii.gz --scan=SERIES -o MASK.seg.dcm --format=dicom-seg
  liverjax convert MASK.nii.gz --scan=SERIES -o MASK.rtstruct.dcm --format=rtstruct

MASK holds 0 background, 1 liver, 2 tumour; its axes may be turned and flipped against the slices, as converters write
them, but its voxels must be theirs. Of SERIES, a folder, only the headers are read. Research use only.
"""

from typing import Any

from absl import flags

POSITIONAL = "input"


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    string = flags.DEFINE_string
    string("input", None, "the mask, a NIfTI file", short_name="i", **on)
    string("scan", None, "folder with the DICOM series of its scan", **on)
    string("output", None, "file to write, .dcm", short_name="o", **on)
    flags.DEFINE_enum("format", "dicom-seg", ["dicom-seg", "rtstruct"], "what to write", **on)
    string("series", None, "of a folder with several series, the number or UID of one, or largest", **on)
    string("phase", None, "of a dynamic series, the phase: an index from 0, or last", **on)
    string("algorithm", "liverjax", "what made the mask, as the DICOM object states", **on)
    flags.DEFINE_bool("liver_only", False, "whoever made the mask knows no tumours", **on)
    flags.mark_flags_as_required(["input", "scan", "output"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    import pathlib

    from liverjax.files import local_path, output_file
    from liverjax.labels import NAMES, TUMOR
    from liverjax.scans import nifti, write
    from liverjax.scans.dicom_source import series_geometry

    output, scan = output_file(args.output, "--output"), local_path(args.scan, "--scan")
    write.check_format(output, args.format)
    write.check_scans([], args.format)  # Is there what writes it?
    classes = TUMOR if args.liver_only else len(NAMES)
    mask = nifti.read_mask(pathlib.Path(args.input), labels=range(classes))
    series = series_geometry(scan, phase=args.phase, series=args.series)
    placed = write.placed_on(mask, series)
    write.write_labels(output, placed, format=args.format, classes=classes, algorithm=args.algorithm)
    print(
        f"{output}: {args.format} of {', '.join(write.label_names(classes))[12:]}, {series.shape[2]} slices"
    )
