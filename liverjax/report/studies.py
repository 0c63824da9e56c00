"""Reports of studies: pictures first, one figure a question, tables below."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from liverjax.report import figures
from liverjax.report.html import Page
from liverjax.volume import Volume

#: Pairs of readers of which there is a Bland-Altman plot.
_PLOTS = 3
_METHOD = (
    "Inter-observer variability: mean over pairs of readers of the absolute difference of relative volume errors, "
    "then over patients (PLoS ONE 2019, 14:e0217228). ICC(2,1): absolute agreement, ICC(3,1): consistency (Shrout and "
    "Fleiss 1979; intervals of McGraw and Wong 1996). Fleiss' kappa and Krippendorff's alpha count the voxels within a "
    "band around disagreement: with all the background of a scan both would be near 1. Consensus: STAPLE within that "
    "band (Warfield 2004); of two masks the surface midway. Intervals of means: bootstrap over patients (BCa, 95 %). "
    "Tests between modes: paired by patient, permutation, adjusted for their number (Holm)."
)

#: Gives the scan of a case, if there is one, and each reader's mask by name.
ReadCase = Callable[[str], tuple[Volume | None, Mapping[str, Volume]]]


def observers_report(
    path: str | os.PathLike,
    *,
    region: str,
    readers: Sequence[str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    summary: Sequence[Mapping[str, str]],
    tests: Sequence[Mapping[str, str]],
    notes: Sequence[str],
    read: ReadCase,
) -> pathlib.Path:
    """Writes the report of how observers differ as one HTML file.

    Args:
      path: the file.
      region: of which the masks are.
      readers: their names.
      tables: rows by name: "cases", "pairs", "readers", "limits".
      summary: the figures as rows of text.
      tests: likewise the tests between modes.
      notes: what a reader should know.
      read: gives scan and masks of a case.
    """
    cases, each = tables["cases"], tables["readers"]
    page = Page(f"How observers differ: {region}").text(f"Readers: {', '.join(readers)}.")
    for note in notes:
        page.text(note)
    page.section("Where do they differ?")
    share = {row["case"]: 100 * row["disagreement_ml"] / (row["consensus_ml"] or 1) for row in cases}
    _add_pictures(page, share, "of the consensus is disputed", ("most", "median", "least"), read)
    page.section("The figures")
    page.chart(
        figures.reader_volumes(each, readers, "relative volume error [%]"),
        "Each dot is a reader's mask of a case.",
        "How much do their volumes differ?",
    )
    page.chart(
        figures.score_distribution(
            {name: [row["dice_others"] for row in each if row["reader"] == name] for name in readers},
            "Dice with the others' consensus",
        ),
        "Each dot is a case; lines: median and quartiles.",
        "How well does each agree with the others?",
    )
    pairs = [(a, b) for i, a in enumerate(readers) for b in readers[i + 1 :]] if len(cases) > 1 else []
    for a, b in pairs[:_PLOTS]:
        own = ([row[f"reader_{name}_ml"] for row in cases] for name in (a, b))
        picture = figures.bland_altman(*own, "ml", (a, b))
        page.chart(picture, f"Bland-Altman, {a} - {b}.", f"Is there a bias between {a} and {b}?")
    page.section("The scores").table(summary, heading="Figures with their intervals")
    if tests:
        page.table(tests, heading="Modes of reading")
    page.table(tables["limits"], heading="Limits of agreement of volumes [ml]")
    for heading, rows in (("Cases", cases), ("Readers", each), ("Pairs of readers", tables["pairs"])):
        page.section(heading).table(rows, names=_words(rows), sortable=True)
    return page.section("Method").text(_METHOD).write(path)


def _words(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns plain headings for the columns of a table."""
    units = {"ml": "[ml]", "mm": "[mm]", "percent": "[%]"}
    return {column: " ".join(units.get(word, word) for word in column.split("_")) for column in rows[0]}


def _add_pictures(
    page: Page, shares: Mapping[str, float], what: str, badges: tuple[str, str, str], read: ReadCase
) -> None:
    """Adds the cases of the largest, the median and the smallest share in percent, with each reader's outline."""
    ranked = sorted(shares, key=lambda case: -np.nan_to_num(shares[case]))
    places = dict.fromkeys([0, len(ranked) // 2, len(ranked) - 1])
    names = badges if len(ranked) > 2 else (badges[0], badges[2]) if len(ranked) > 1 else ("only case",)
    for place, badge in zip(places, names, strict=False):
        case = ranked[place]
        scan, masks = read(case)
        outlines = {name: np.asarray(mask.voxels) != 0 for name, mask in masks.items()}
        votes = np.sum([*outlines.values()], axis=0, dtype=np.uint8)
        grid = next(iter(masks.values()))
        disputed = (votes > 0) & (votes < len(masks))
        # Without a scan, the number of readers who have a voxel in their mask, in greys.
        window = (0.0, float(len(masks))) if scan is None else None
        strips = figures.slice_strips(
            scan or grid.with_voxels(np.asarray(votes)), outlines, shown=disputed, window=window
        )
        caption = "First shown: the slices with most disagreement." if disputed.any() else ""
        page.slices(strips, f"{case}: {shares[case]:.1f} % {what}", caption, badge)


_CORRECTED = (
    "Slices are those with the region before or after; a slice of a view is changed if a voxel in it was edited "
    "(farther than the tolerance from its side of the automatic contour, if there is one). Added path length: contour "
    "of the corrected mask that is new, slice by slice (Vaassen 2020). Surface moved: ASSD and HD95 of the two masks. "
    "Simulated corrector: the first slices of an order are replaced by the corrected ones; most edited first is near "
    "the best that any order can do. Intervals: bootstrap over patients, 95 % (BCa for means, percentiles for curves "
    "and AUROC)."
)


def corrections_report(
    path: str | os.PathLike,
    *,
    region: str,
    cases: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    summary: Sequence[Mapping[str, str]],
    notes: Sequence[str],
    read: ReadCase,
) -> pathlib.Path:
    """Writes the report of what correcting took as one HTML file.

    Args:
      path: the file.
      region: of which the masks are.
      cases: a row per case and reader.
      curves: for each order of correction the Dice by the share of slices.
      summary: the figures as rows of text.
      notes: what a reader should know.
      read: gives scan and masks of a case.
    """
    page = Page(f"What correcting takes: {region}")
    for note in notes:
        page.text(note)
    page.section("What was corrected?")
    shares: dict[str, float] = {}
    for row in cases:
        shares[row["case"]] = max(shares.get(row["case"], 0.0), float(np.nan_to_num(row["edited_percent"])))
    _add_pictures(page, shares, "of the volume edited", ("most", "median", "least"), read)
    page.section("The figures")
    views = ("axial", "coronal", "sagittal")
    page.chart(
        figures.score_distribution(
            {view: [row[f"changed_{view}_percent"] for row in cases] for view in views}, "slices changed [%]"
        ),
        "Each dot is a corrected mask; lines: median and quartiles.",
        "How many slices were changed?",
    )
    if curves:
        page.chart(
            figures.correction_curves(curves),
            "A simulated corrector; shaded: 95 % interval over patients.",
            "Which slices are worth correcting first?",
        )
    times = {
        name: [row.get(f"minutes_{name}", math.nan) for row in cases]
        for name in ("manual", "corrected", "saved")
    }
    if np.isfinite(times["saved"]).any():
        page.chart(
            figures.score_distribution(times, "minutes"), "Each dot is a mask.", "How long did it take?"
        )
    page.section("The scores").table(summary)
    page.section("All cases").table(cases, names=_words(cases), sortable=True)
    return page.section("Method").text(_CORRECTED).write(path)


_CURVES = (
    "Subsets are nested: of one seed, the patients of a smaller size are among those of a larger one. Red: mean over "
    "seeds and test patients, with the 95 % interval over these patients; grey: each of them. Blue: the law that "
    "fits better by AICc, and the range of draws over patients and seeds, each of which follows a law by its Akaike "
    "weight. What lies beyond the largest size is an extrapolation by these two laws; beyond four times of it nothing "
    "is said. The range holds for this network, this training and patients like these."
)


def learning_curve_report(
    path: str | os.PathLike, about: str, metric: str, regions: Mapping[str, Mapping[str, Any]]
) -> pathlib.Path:
    """Writes the report of a learning curve as one HTML file.

    Args:
      path: the file.
      about: what was trained, on which data.
      metric: what the score is called.
      regions: for each region "rows", "patients", "fit" (as `figures.learning_curve` takes it), "needed" and "notes".
    """
    page = Page("How many cases are enough?").text(about)
    for region, found in regions.items():
        page.chart(
            figures.learning_curve(found["rows"], found["patients"], metric, found["fit"]),
            "Score of held-out patients by the number of training patients.",
            f"{metric} of the {region}: what does another patient gain?",
        )
    for region, found in regions.items():
        page.section(f"{metric} of the {region}")
        for text in [row["text"] for row in found["needed"]] + list(found["notes"]):
            page.text(text)
        page.table(found["rows"])
        page.section(f"Which patients gain most? ({region})").table(found["patients"], sortable=True)
    return page.section("Method").text(_CURVES).write(path)
