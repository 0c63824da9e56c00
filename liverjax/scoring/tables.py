"""The summary of an evaluation as rows of text, for terminal and report."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Sequence

#: Names of the metrics, with their units.
_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "voe": "VOE [%]",
    "rvd": "RVD [%]",
    "assd": "ASSD [mm]",
    "rmsd": "RMSD [mm]",
    "hausdorff": "Hausdorff [mm]",
    "hd95": "HD95 pooled [mm]",
    "hd95_max_of_directed": "HD95 max of directed [mm]",
    "hd95_area_weighted": "HD95 area-weighted [mm]",
    "miccai": "MICCAI score [0-100]",
    "prediction_ml": "volume predicted [ml]",
    "reference_ml": "volume of reference [ml]",
}

#: Other columns of a case.
_COLUMNS = {
    "voxels_both": "voxels in both",
    "voxels_prediction": "voxels of prediction",
    "voxels_reference": "voxels of reference",
    "voxels_scan": "voxels of the scan",
}

#: What the metrics mean, of a prediction A and a reference B; docs/metrics.md says it in full.
_MEANINGS = {
    "dice": "2 |A∩B| / (|A|+|B|), from 0 (nothing in common) to 1 (equal).",
    "iou": "Voxels in both masks by voxels in either, from 0 to 1.",
    "voe": "Volumetric overlap error: 100 (1 - IoU) %; 0 is best.",
    "rvd": "Relative volume difference: 100 (|A| - |B|) / |B| %; above 0 the prediction is larger.",
    "assd": "Average symmetric surface distance: mean distance from each surface to the other, in mm; 0 is best.",
    "rmsd": "Root mean square of the same distances, in mm.",
    "hausdorff": "Largest distance from either surface to the other, in mm.",
    "hd95": "95th percentile of the distances from both surfaces as one list, in mm.",
    "hd95_max_of_directed": "The larger of the 95th percentiles of the two lists, in mm.",
    "hd95_area_weighted": "The larger of the distances within which 95 % of a surface's area lies, in mm.",
    "miccai": "Mean of five scores, 100 for no error and 75 for that of a human (SLIVER07).",
    "prediction_ml": "Number of voxels times the volume of one.",
    "reference_ml": "Likewise, of the reference.",
}

#: Values of a region over all cases.
_OVER_ALL = {"dice_per_case_lits": "Dice per case, both empty = 1", "dice_global": "Dice global"}

#: Numbers of cases of a region.
_COUNTS = {
    "cases": "cases",
    "both_empty": "cases, both empty",
    "reference_empty": "cases, reference empty",
    "prediction_empty": "cases, prediction empty",
    "prediction_missing": "cases, prediction missing",
    "not_labelled": "cases, not labelled",
}


def name(metric: str) -> str:
    """Returns the name of a metric, with its unit."""
    if tolerance := re.fullmatch(r"nsd_(.+)mm", metric):
        return f"NSD at {tolerance[1]} mm"
    if distance := re.fullmatch(r"false_(.+)mm_ml", metric):
        return f"false beyond {distance[1]} mm [ml]"
    return _NAMES[metric]


def heading(column: str) -> str:
    """Returns the name of a column of a case: of a metric as `name`, else plain words."""
    with contextlib.suppress(KeyError):
        return _COLUMNS.get(column) or name(column)
    return column


def meanings(metrics: Iterable[str]) -> dict[str, str]:
    """Returns what metrics mean, in a sentence, by their names with units."""
    found = {}
    for metric in metrics:
        if tolerance := re.fullmatch(r"nsd_(.+)mm", metric):
            found[name(metric)] = f"Share of the area of both surfaces within {tolerance[1]} mm of the other."
        elif distance := re.fullmatch(r"false_(.+)mm_ml", metric):
            found[name(metric)] = (
                f"Predicted volume that lies farther than {distance[1]} mm from the reference."
            )
        else:
            found[name(metric)] = _MEANINGS[metric]
    return found


def of_summary(summary: dict) -> dict[str, list[dict[str, str]]]:
    """Returns the tables of a summary by title: each region, LiTS if there are lesions, a comparison if any."""
    tables = {f"Scores of the {region}": region_rows(scores) for region, scores in summary["scores"].items()}
    if "lits" in summary:
        lesions = summary["lits"]["detection"]["iou_above_0"]["all"]
        if lesions["references"] or lesions["predictions"]:
            tables["LiTS table of the tumours"] = lits_rows(summary["lits"])
    if "comparison" in summary:
        tables[f"Difference from {summary['comparison']['other']}"] = comparison_rows(summary["comparison"])
    return tables


def region_rows(scores: dict) -> list[dict[str, str]]:
    """Returns the metrics of a region over the cases, then its values over all cases.

    Values that are defined in no case and numbers of cases that are 0 are left out.
    """
    rows = [
        {
            "": name(metric),
            "mean": number(values["mean"]),
            "95 % interval": interval(values),
            "sd": number(values["sd"]),
            "median": number(values["median"]),
            "n": number(values["n"]),
            "infinite": number(values["infinite"]),
        }
        for metric, values in scores["per_case"].items()
        if values["n"]
    ]
    columns = list(rows[0]) if rows else ["", "mean"]
    shown = {label: scores[key] for key, label in _OVER_ALL.items() if not math.isnan(scores[key])}
    shown |= {label: scores[key] for key, label in _COUNTS.items() if scores[key]}
    return rows + [
        dict.fromkeys(columns, "") | {"": label, "mean": number(value)} for label, value in shown.items()
    ]


def lits_rows(lits: dict) -> list[dict[str, str]]:
    """Returns the LiTS table."""
    overlapping, detected = (lits["detection"][f"iou_above_{threshold}"] for threshold in ("0", "0.5"))
    free = lits["tumor_free"]
    values = {
        "Dice per case, both empty = 1": number(lits["dice_per_case_lits"]),
        "Dice per case, both empty left out": number(lits["dice_per_case"]),
        "Dice global": number(lits["dice_global"]),
        "Dice per lesion, missed = 0": number(lits["dice_per_lesion"]),
        "Dice per corresponding lesion": number(lits["dice_per_corresponding_lesion"]),
        **{
            f"{name(metric)}, detected lesions": number(lits[metric])
            for metric in ("dice", "voe", "rvd", "assd", "hausdorff", "rmsd")
        },
        "precision at 50 % overlap": _share(detected["all"], "precision", "confirmed", "predictions"),
        "recall at 50 % overlap": _share(detected["all"], "recall", "found", "references"),
        "precision at any overlap": _share(overlapping["all"], "precision", "confirmed", "predictions"),
        "recall at any overlap": _share(overlapping["all"], "recall", "found", "references"),
        "F1 at 50 % overlap": number(detected["all"]["f1"]),
        "F1, small (< 10 mm)": number(detected["small"]["f1"]),
        "F1, medium (10-20 mm)": number(detected["medium"]["f1"]),
        "F1, large (> 20 mm)": number(detected["large"]["f1"]),
        "tumour burden, RMSE": number(lits["burden_rmse"]),
        "tumour burden, largest error": number(lits["burden_max"]),
        "tumour-free cases with a false lesion": f"{free['with_false_lesion']} of {free['cases']}",
        "false lesions in tumour-free cases": f"{free['false_lesions']} ({number(free['false_ml'])} ml)",
    }
    return [{"": label, "tumor": value} for label, value in values.items()]


def comparison_rows(comparison: dict) -> list[dict[str, str]]:
    """Returns the paired tests: mean difference with its 95 % interval, and p-values.

    Those of the primary metric, which comes first, also adjusted after Holm.
    """
    regions = {region: tests for region, tests in comparison.items() if region not in ("other", "primary")}
    rows = [(region, metric, test) for region, tests in regions.items() for metric, test in tests.items()]
    rows.sort(key=lambda row: row[1] != comparison["primary"])
    return [
        {
            "": f"{region}: {name(metric)}",
            "pairs": number(test["n"]),
            "difference": number(test["mean_difference"]),
            "95 % interval": interval(test),
            "p Wilcoxon": p_value(test["p_wilcoxon"]),
            "(Holm)": p_value(test["p_wilcoxon_holm"]) if "p_wilcoxon_holm" in test else "",
            "p permutation": p_value(test["p_permutation"]),
            "(Holm) ": p_value(test["p_permutation_holm"]) if "p_permutation_holm" in test else "",
        }
        for region, metric, test in rows
    ]


def number(value: float) -> str:
    """Returns a number with three decimals below 100 and one above; "-" if it is not defined."""
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def interval(values: dict[str, float]) -> str:
    """Returns the interval from ``ci_low`` to ``ci_high``; "-" if it is not defined."""
    low, high = values["ci_low"], values["ci_high"]
    return "-" if math.isnan(low) else f"{number(low)} to {number(high)}"


def p_value(value: float) -> str:
    """Returns a p-value with three decimals."""
    return "< 0.001" if value < 0.001 else number(value)


def _share(counts: dict, value: str, count: str, total: str) -> str:
    return f"{number(counts[value])} ({counts[count]} of {counts[total]})"


def aligned(rows: Sequence[dict[str, str]]) -> str:
    """Returns rows as lines of text: the first column to the left, the others to the right."""
    columns = list(rows[0])
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )
