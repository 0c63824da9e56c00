"""The report of a training run, made from what lies in its folder: logs, pictures of slices, ``run.json``."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from liverjax import files
from liverjax.errors import InputError
from liverjax.report.events import validation_strip
from liverjax.report.html import Page
from liverjax.report.lines import Line, line_chart
from liverjax.views import VIEWS

_MEANINGS = {
    "Loss": "Of single batches, soft Dice plus cross-entropy by their weights; faint as logged, strong smoothed.",
    "Validation Dice": "Of fixed slices of the validation cases, on the working grid, mean of the foreground classes. "
    "It chooses the checkpoint and is no score: `liverjax evaluate` scores whole cases in the scans' own geometry.",
    "Chosen checkpoint": "The one of the highest validation Dice (of tumours in boxes, its mean with detection); a dot "
    "marks it. It is what the run predicts with.",
}
_DETECTION = (
    "Harmonic mean of the share of lesions that are found on the validation slices, and of the share of slices with "
    "predicted tumour that hold one."
)


def training_report(run: str | os.PathLike, path: str | os.PathLike | None = None) -> pathlib.Path:
    """Writes the report of a run as one HTML file: curves, the chosen checkpoints, and validation slices over time.

    `liverjax.train` writes it at the end, and before that at validations, as long as that takes less than 1 % of the
    time. It can be made of any run, also of one that another version trained, or of one that is still going on.

    Args:
      run: folder of the run.
      path: the file; by default ``report.html`` in the folder.

    Returns:
      The file.

    Raises:
      InputError: the folder holds no log of a network.
    """
    run = files.local_path(run, "run")
    folders = _networks(run)
    curves = {name: _records(folder) for name, folder in folders.items()}
    if not any(curves.values()):
        raise InputError(
            f"{run}: holds no NETWORK/log.jsonl with a record, expected the folder of a training run"
        )
    page = Page(f"Training of {_name(run)}")
    strips = []
    for name, records in curves.items():
        best = best_record(records)
        strip = validation_strip(folders[name] / "tensorboard", name, best["step"] if best else None)
        strips += [strip] if strip else []
    if strips:
        page.section("Validation slices while it learnt")
        page.slices(
            strips,
            "Four slices of each network, validation by validation",
            "Outlines: prediction in blue, reference in yellow. The chosen checkpoint is shown first.",
        )
    page.section("The figures")
    add_curves(page, curves)
    page.section("Networks").table([_row(name, records) for name, records in curves.items() if records])
    return page.definitions(_meanings(curves)).provenance(_facts(run)).write(path or run / "report.html")


def add_curves(page: Page, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Adds the charts of a training: loss, validation Dice and learning rate by step, one figure a question.

    Args:
      page: takes them.
      curves: for each network the records of its log, each with ``step`` and any of ``loss``, ``validation_dice``,
        ``validation_dice_<class>``, ``validation_detection``, ``learning_rate``.
    """
    of_classes = sorted(
        {
            key
            for records in curves.values()
            for record in records
            for key in record
            if key.startswith("validation_dice_")
        }
    )
    charts = [
        ("loss", "Does the loss fall?", "Faint: single batches as logged; strong: smoothed.", None),
        (
            "validation_dice",
            "Does the validation Dice rise?",
            "Dots: the checkpoints that were chosen.",
            (0, 1),
        ),
    ]
    if len(of_classes) > 1:
        charts += [
            (key, f"And that of {key.removeprefix('validation_dice_')}?", "Dots: as above.", (0, 1))
            for key in of_classes
        ]
    charts += [
        ("validation_detection", "Are lesions found, without false alarms?", "Dots: as above.", (0, 1)),
        ("learning_rate", "How large are the steps?", "The learning rate by its schedule.", None),
    ]
    for key, question, caption, limits in charts:
        lines, names = [], []
        for name, records in curves.items():
            shown = [(record["step"], record[key]) for record in records if key in record]
            steps = [step for step, _ in shown]
            best = best_record(records)
            at = steps.index(best["step"]) if best and key.startswith("validation") and key in best else None
            label = f"{name}: {shown[at][1]:.3f} at step {steps[at]}" if at is not None else ""
            lines.append(Line(steps, [value for _, value in shown], key == "loss", at, label))
            names.append(name)
        if any(line.x for line in lines):
            axis = key.removeprefix("validation_").replace("dice", "Dice").replace("_", " ")
            axis = f"validation {axis}" if limits else axis
            page.drawing(line_chart(lines, "step", axis, y_range=limits), caption, question, names)


def best_record(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Returns the record of the validation whose checkpoint was chosen: the first of the highest score; None if none.

    The score is ``validation_dice``; with ``validation_detection`` beside it, the mean of both.
    """
    found = [record for record in records if "validation_dice" in record]
    return max(found, key=_score, default=None)


def _score(record: Mapping[str, Any]) -> float:
    dice = record["validation_dice"]
    return (dice + record["validation_detection"]) / 2 if "validation_detection" in record else dice


def _networks(run: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folder of each network that has a log, the views in their order; of restarts the one that is kept."""
    found = {}
    children = [path for path in sorted(run.iterdir()) if path.is_dir()] if run.is_dir() else []
    for folder in sorted(
        children, key=lambda path: (*VIEWS, path.name).index(path.name)
    ):  # Stable: others by name.
        restarts = sorted(folder.glob("restart_*/log.jsonl"))
        if (folder / "log.jsonl").exists():
            found[folder.name] = folder
        elif restarts:
            kept = _kept(folder, [log.parent for log in restarts])
            found[f"{folder.name}, {kept.name.replace('_', ' ')} of {len(restarts)}"] = kept
    return found


def _kept(folder: pathlib.Path, restarts: Sequence[pathlib.Path]) -> pathlib.Path:
    """Returns the restart that the record of comparisons puts first; before the first one, the best so far."""
    try:
        best = files.read_json(folder / "restarts.json")["selections"][-1]["kept"][0]
        return next(path for path in restarts if path.name == f"restart_{best}")
    except (OSError, InputError, LookupError, TypeError, StopIteration):
        return max(
            restarts, key=lambda path: _score(best_record(_records(path)) or {"validation_dice": -1.0})
        )


def _records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the records of a log whose values are numbers."""
    return [
        record
        for record in files.read_json_lines(folder / "log.jsonl")
        if "step" in record and all(isinstance(value, int | float) for value in record.values())
    ]


def _row(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    best, losses = best_record(records), [record["loss"] for record in records if "loss" in record]
    rates = [record["slices_per_second"] for record in records if "slices_per_second" in record]
    return {
        "network": name,
        "steps": records[-1]["step"],
        "validation Dice, best": best["validation_dice"] if best else math.nan,
        "chosen at step": best["step"] if best else None,
        "loss, last": losses[-1] if losses else math.nan,
        "slices/s": rates[-1] if rates else math.nan,
    }


def _meanings(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    detects = any("validation_detection" in record for records in curves.values() for record in records)
    return {**_MEANINGS, **({"Detection": _DETECTION} if detects else {})}


def _name(run: pathlib.Path) -> str:
    return run.resolve().name


def _facts(run: pathlib.Path) -> dict[str, str]:
    """Returns what ``run.json`` says of the run; what it does not is left out."""
    try:
        manifest = files.read_json(run / "run.json")
        config, data, versions = manifest["config"], manifest["data"], manifest["versions"]
        devices = manifest["machine"]["devices"]
        counts = ", ".join(
            f"{len(data[subset])} {subset}" for subset in ("train", "validation", "test") if subset in data
        )
        forced = ", ".join(manifest.get("forced", []))
        return {
            "Model": f"config {config['name']}, seed {config['seed']}; all fields are in run.json",
            "Data": f"store {config['store']}: cases {counts}",
            "Machine": f"{len(devices)} x {devices[0]}, jax {versions['jax']}",
            "Started with": f"liverjax {versions['liverjax']}",
            "Forced to go on with": forced,
        }
    except (OSError, InputError, LookupError, TypeError, AttributeError):
        return {}
