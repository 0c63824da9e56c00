"""`liverjax explain field`, `robustness` and `features`: what holds of a model over many scans."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from liverjax.commands import explain_cases, reading
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.insight import profiles
from liverjax.pretrained.load import load_segmenter
from liverjax.report import figures
from liverjax.report.figures.insight import FieldPanel

if TYPE_CHECKING:
    from absl import flags


def field(args: flags.FlagValues) -> str:
    """Measures receptive fields; returns what is printed."""
    model = load_segmenter(args.model[0], views=args.views)
    cases = explain_cases.held_out(args, model)[:4]
    found = profiles.fields(model, [(case.id, case.read_image()) for case in cases], samples=args.samples)
    panels: dict[str, list] = {}
    for unit, view, one in found:
        title = f"{view}: {one.side:.0f} px, {one.side_mm:.0f} mm"
        panel = FieldPanel(title, one.mean, one.above, one.theoretical[1])
        panels.setdefault(unit, []).append(panel)
    caption = (
        f"{args.model[0]}, {', '.join(case.id for case in cases)}; {args.samples} slices and positions each"
    )
    pictures = [(caption, figures.receptive_fields(panels))]
    return explain_cases.written(
        args, "Receptive fields", pictures, profiles.field_rows(found), [profiles.FIELD_METHOD]
    )


def robustness(args: flags.FlagValues) -> str:
    """Scores models on changed scans; returns what is printed."""
    rows = {}
    for path in args.model:
        model = load_segmenter(path, views=args.views)
        labelled = [case for case in explain_cases.held_out(args, model) if case.label]
        if not labelled:
            raise InputError(f"{args.input[0]}: holds no case with a mask, expected some to compare with")
        rows[path] = profiles.robustness(model, ((case.id, *case.read_pair()) for case in labelled))
    flat = [{"model": path, **row} for path, own in rows.items() for row in own]
    cases = ", ".join(dict.fromkeys(row["case"] for row in flat))
    pictures = [
        (
            f"Dice of the liver; a dot per scan, lines through medians: {cases}",
            figures.robustness_profiles(rows),
        )
    ]
    return explain_cases.written(args, "Robustness", pictures, flat, [profiles.ROBUSTNESS_METHOD])


def features(args: flags.FlagValues) -> str:
    """Looks at feature maps and at slices as points; returns what is printed."""
    model = load_segmenter(args.model[0], views=args.views)
    groups = {pathlib.Path(path).name: find_cases(path, reading=reading.reading(args)) for path in args.input}
    groups = {n: [c for c in cases if not args.cases or c.id in args.cases] for n, cases in groups.items()}
    found = profiles.features(model, groups, args.tap, args.channel)
    pictures = [
        ("First kernels, 3 x 3; red above 0", figures.sheet(found.kernels, flip=False)),
        (found.maps_caption, figures.sheet(found.maps)),
        (found.exciting_caption, figures.sheet(found.exciting)),
        (found.points_caption, figures.scatter(found.points, found.groups, found.dice, "Dice of the scan")),
        (found.novelty_caption, figures.novelty_scores(found.scores, found.scores_dice)),
    ]
    return explain_cases.written(
        args, "Features", pictures, found.rows, [*found.ranking, profiles.FEATURES_METHOD]
    )
