"""Plan from masks of any tool: volumes of the liver, or activity and dose of SIRT.

  liverjax plan volumetry -i MASKS -o OUT --calibration=SCORES/cases.csv
  liverjax plan volumetry -i MASK.nii.gz -o OUT --regions=LOBES.nii.gz --region_names=1=left,2=right
  liverjax plan sirt -i MASK.nii.gz -o OUT --microspheres=glass --lung_shunt=0.04 --dose_gy=120

Writes volumetry.csv, .json and .html, or sirt.csv, .json and .html, a worksheet. The liver includes its tumours. What a
model predicted gets intervals, if --calibration states how its volumes were on 20 or more scans that did not train it.
Research use only, not for treatment. Definitions and sources: docs/sirt.md.
"""

import os

from absl import flags

from liverjax.commands import plan_flags, plan_pictures

POSITIONAL = "task"


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_enum("task", None, ["volumetry", "sirt"], "what to plan: the first word", flag_values=values)
    plan_flags.define(values)
    flags.mark_flags_as_required(["task", "input", "output"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Measures and computes, writes the results and the report, prints them."""
    from liverjax.planning import companions, intervals, volumetry

    plan_flags.check(args)
    errors = intervals.read_volume_errors(args.calibration)
    labels = {n: companions.label_values(n, args[n].value or ()) for n in ("liver_labels", "tumor_labels")}
    masks = volumetry.read_masks(args.input, tumor_masks=args.tumor_masks, **labels)
    (_volumetry if args.task == "volumetry" else _sirt)(args, masks, errors)


def _volumetry(args, masks, errors) -> None:
    from liverjax.planning import companions, volumetry
    from liverjax.report import volumetry_report

    names, alone = companions.region_names(args.region_names), os.path.isfile(args.input)
    measured, notes, pictures = {}, {}, plan_pictures.Pictures(args)
    for id, mask in masks:
        volumes = volumetry.measure(mask, id, companions.mask_of(args.regions, id, alone), names)
        measured[id], notes[id] = volumetry.rows(volumes, errors), volumes.notes
        pictures.add(id, mask)
    folder, known = volumetry.save(args.output, measured, errors, notes), errors.summary()
    report = volumetry_report(folder / "volumetry.html", measured, known, notes, pictures.strips.items())
    said = [f"{id}: {note}" for id, of_case in notes.items() for note in of_case]
    print(volumetry.table(measured), *known, *said, f"\n{volumetry.USE}. Report: {report}", sep="\n")


def _sirt(args, masks, errors) -> None:
    from liverjax.planning import SirtInputs, companions, perfused, volumetry, worksheet
    from liverjax.report import worksheet_report

    inputs = SirtInputs(**plan_flags.stated(args))
    id, mask = companions.only(args.input, masks)
    values = companions.label_values("territory_labels", args.territory_labels)
    volumes, territory = volumetry.measure(mask, id), companions.mask_of(args.territory, id, True, values)
    where = perfused(volumes, territory, args.perfused_share, args.perfused_tumor_share)
    sheet = worksheet.plan(volumes, where, inputs, errors)
    pictures = plan_pictures.Pictures(args)
    pictures.add(id, mask, territory)
    path = worksheet.save(args.output, sheet) / "sirt.html"
    report = worksheet_report(path, **worksheet.report_rows(sheet), pictures=pictures.strips.items())
    print(f"{worksheet.table(sheet)}\n\n{volumetry.USE}. Worksheet: {report}")
