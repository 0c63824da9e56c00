"""`liverjax explain slice`: what speaks for the answer at some pixels of one scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liverjax import insight
from liverjax.commands import explain_cases, reading
from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError
from liverjax.insight import explanation, sanity, seen
from liverjax.labels import BACKGROUND, NAMES
from liverjax.pretrained.load import load_segmenter
from liverjax.report import figures
from liverjax.report.figures.insight import SliceMaps
from liverjax.scans.nifti import read_mask

if TYPE_CHECKING:
    from absl import flags

_METHOD = (
    "The score is the sum of the class's logits over the yellow pixels. A map must change as the weights become random "
    "(Adebayo 2018): one whose correlation stays high shows where the network can look, not what it has learnt.",
    "Deleting what a map marks must lower the class's probability sooner than a random order does, and inserting it "
    "must raise it sooner. Where all orders are alike, the answer hangs on no single place.",
    "A map says what moves the network of one view; it does not say why, and not what the fusion of the views does.",
)


def run(args: flags.FlagValues) -> str:
    """Explains one scan; returns what is printed."""
    asked = [name for name in ("at", "voxel", "lesion", "worst") if args[name].value not in (None, False)]
    if len(asked) > 1:
        raise ConfigError(f"--{asked[0]} and --{asked[1]} are both given, expected one; leave one out")
    if args.worst and not args.reference:
        raise ConfigError("--worst needs a mask to compare with, expected --reference=MASK")
    point = None if args.at is None else _numbers("at", args.at, float)
    voxel = None if args.voxel is None else _numbers("voxel", args.voxel, int)
    case = explain_cases.one(args, find_cases(args.input[0], reading=reading.reading(args)))
    model = load_segmenter(args.model[0], views=args.views)
    label = None if args.label is None else NAMES.index(args.label)
    if label is not None and label >= len(model.config.labels):
        known = ", ".join(model.config.labels)
        raise ConfigError(f"--label is {args.label}, which the model does not know, expected one of {known}")
    scan = insight.look(model, case.image, reading=case.reading)
    reference = insight.on_grid(scan, read_mask(args.reference)) if args.reference else None
    point = point if voxel is None else insight.world_of_voxel(scan.scan, voxel)
    false = reference if args.worst else None
    sheets, pictures, rows, said = [], [], [], ""
    for view in model.config.views:
        question = seen.question(scan, view, label, point=point, number=args.lesion, reference=false)
        options = {"tap": args.tap, "baseline": args.baseline, "smooth": args.smoothgrad}
        found = insight.explain(model, scan, question, **options)
        where, stack = seen.place_of(scan, question), scan.stack
        drawn = {name: (one.values, one.signed) for name, one in found.maps.items()}
        mask = stack(view, scan.labels)[question.index] != BACKGROUND
        true = None if reference is None else stack(view, reference)[question.index] != BACKGROUND
        spacing = scan.spacing_of(view)
        sheets.append(SliceMaps(view, where, found.image, question.pixels, mask, true, spacing, drawn))
        checks = figures.sanity_checks(found.cascades, sanity.SHARES, found.curves)
        pictures.append((f"{case.id}, {where}: sanity checks of the maps", checks))
        rows += explanation.rows(found)
        said = f"{case.id}: {question.about}, class {NAMES[question.label]}, voxels of {spacing[0]:g} mm"
    pictures.insert(
        0, (f"{said}. {'; '.join(row['map'] for row in rows[:4])}", figures.attribution_sheet(sheets))
    )
    return f"{said}\n{explain_cases.written(args, said, pictures, rows, _METHOD)}"


def _numbers(flag: str, words: list[str], kind: type) -> list:
    try:
        x, y, z = map(kind, words)
        if all(abs(value) < 1e6 for value in (x, y, z)):
            return [x, y, z]
    except ValueError:
        pass
    example = "12.5,-30,40 in mm" if flag == "at" else "64,70,20"
    raise ConfigError(f"--{flag} is {','.join(words)!r}, expected three numbers, as {example}")
