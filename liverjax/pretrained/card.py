"""The card of a model: what trained it, how it did on held-out scans, and what it was never tried on.

Words come from a JSON file, scores from `liverjax evaluate`; together they stand in the metadata of a bundle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from liverjax.errors import CheckpointError, InputError, LiverjaxError, did_you_mean, shown
from liverjax.files import read_json
from liverjax.options import Config

#: Statistics of the Dice per case that a card holds of each group of held-out scans.
DICE = ("mean", "median", "min", "max")
_WORDS = {"about": str, "data": list, "held_out": dict, "never_tried": list, "commands": list}
_GROUP = {"scans": str, "modality": str, "trained": bool}
_MODALITIES = ("ct", "mr")


def read_card(path: str | os.PathLike, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the card of a JSON file, with scores of each group of held-out scans.

    Args:
      path: the file: "about" (one sentence), "data", "never_tried" and "commands" (lists of lines), and "held_out",
        which names groups: ``{"scans": what they are, "modality": "ct" or "mr", "trained": whether scans of their
        kind trained}``.
      scores: of each group, by its name, what `bundle.read_scores` reads.

    Raises:
      InputError: it is no such file, a group has no scores, or scores name no group or hold no Dice of the liver.
    """
    try:
        words = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist, expected the card of a model (see docs/models.md)"
        ) from None
    check_words(words, path, error=InputError)
    groups = words["held_out"]
    for name in scores:
        if name not in groups:
            raise InputError(f"{path}: has no held-out group {name!r}{did_you_mean(name, groups)}")
    for name in groups:
        if name not in scores:
            raise InputError(
                f"{path}: its held-out group {name!r} has no scores; add --held_out={name}=SCORES/summary.json"
            )
    return {**words, "held_out": {name: {**groups[name], **_dice(scores[name], name)} for name in groups}}


def _dice(scores: Mapping[str, Any], name: str) -> dict[str, Any]:
    dice = scores["scores"].get("liver", {}).get("per_case", {}).get("dice", {})
    found = {"cases": dice.get("n"), "dice": {key: dice.get(key) for key in DICE}}
    if not _are_scores(found):
        raise InputError(
            f"--held_out={name}: holds no Dice per case of the liver; evaluate again with --metrics=dice"
        )
    return {**found, "dice": {key: round(value, 4) for key, value in found["dice"].items()}}


def check_card(card: Any, path: str | os.PathLike) -> None:
    """Refuses what `read_card` does not return.

    Raises:
      CheckpointError: it is no card.
    """
    check_words(card, path, scored=True)


def check_words(
    card: Any, path: str | os.PathLike, *, scored: bool = False, error: type[LiverjaxError] = CheckpointError
) -> None:
    """Refuses a card that lacks a field, or has another or one of another type.

    Args:
      card: the value.
      path: of its file, for the message.
      scored: each group of held-out scans has its scores.
      error: what is raised.
    """
    _check_fields(card, _WORDS, f"{path}: its card", error)
    for name in ("data", "never_tried", "commands"):
        if not all(isinstance(line, str) for line in card[name]):
            raise error(f"{path}: its card: {name} is {shown(card[name])}, expected lines of text")
    for name, group in card["held_out"].items():
        where = f"{path}: its card: held_out {shown(name)}"
        fields = {**_GROUP, "cases": int, "dice": dict} if scored else _GROUP
        _check_fields(group, fields, where, error)
        if group["modality"] not in _MODALITIES:
            raise error(f"{where}: modality is {shown(group['modality'])}, expected ct or mr")
        if scored and not _are_scores(group):
            raise error(f"{where}: its Dice is no mean, median, min and max of 0 to 1 of one case or more")


def _check_fields(value: Any, fields: Mapping[str, type], where: str, error: type[LiverjaxError]) -> None:
    if not isinstance(value, dict):
        raise error(f"{where} is {shown(value)}, expected a group of fields")
    for name in fields:
        if name not in value or type(value[name]) is not fields[name]:
            raise error(f"{where}: {name} is {shown(value.get(name))}, expected {fields[name].__name__}")
    for name in value:
        if name not in fields:
            raise error(f"{where}: {shown(name)} is unknown{did_you_mean(name, fields)}")


def _are_scores(group: Mapping[str, Any]) -> bool:
    dice = group["dice"]
    return (
        type(group["cases"]) is int
        and group["cases"] > 0
        and set(dice) == set(DICE)
        and all(type(value) in (int, float) and 0 <= value <= 1 for value in dice.values())
    )


def task(config: Config) -> str:
    """Returns what a model finds, as "liver" or "liver, tumor"."""
    return ", ".join(config.labels[1:])


def modality(config: Config) -> str:
    """Returns in which scans: "CT", "MR", or "CT and MR"."""
    return "CT and MR" if config.preprocess.modality == "any" else config.preprocess.modality.upper()


def held_out(card: Mapping[str, Any]) -> list[str]:
    """Returns the scores of a card, a line for each group."""
    return [
        f"{group['scans']}: {group['dice']['mean']:.3f} ({group['dice']['min']:.3f} to "
        f"{group['dice']['max']:.3f}, {group['cases']})"
        for group in card["held_out"].values()
    ]


def text(name: str, facts: Mapping[str, Any], size: int) -> str:
    """Returns the card as a section of Markdown.

    Args:
      name: of the model.
      facts: of `bundle.read_facts`, with a card.
      size: of the file, in bytes.
    """
    card, config = facts["card"], facts["config"]
    spacing = " x ".join(f"{value:g}" for value in config.preprocess.spacing)
    cases = facts["cases"]
    rows = [
        ("finds", f"{task(config)}, in {modality(config)}"),
        ("networks", f"{len(config.views)} views of {', '.join(map(str, config.model.features))} features"),
        ("grid", f"{spacing} mm"),
        ("file", f"{size / 1e6:.1f} MB, {facts['dtype']}, sha256 {facts['sha256'][:12]}"),
        ("trained by", f"liverjax {facts['versions'].get('liverjax', 'unknown')}"),
        ("scans", f"{cases.get('train', 0)} trained, {cases.get('validation', 0)} chose the checkpoints"),
        ("licence", facts["licence"]),
        ("credit", facts["credit"]),
    ]
    lines = [f"## {name}", "", card["about"], "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows]
    lines += ["", "Trained on:", "", *(f"- {line}" for line in card["data"])]
    lines += ["", "Dice of the liver per case, on held-out scans:", ""]
    lines += [
        "| scans | such scans trained | cases | mean | median | worst | best |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in card["held_out"].values():
        dice = " | ".join(f"{group['dice'][key]:.3f}" for key in DICE)
        trained = "yes" if group["trained"] else "no"
        lines.append(f"| {group['scans']} | {trained} | {group['cases']} | {dice} |")
    lines += ["", "Never tried on:", "", *(f"- {line}" for line in card["never_tried"])]
    lines += ["", "How it was made and scored:", "", *(f"    {line}" for line in card["commands"])]
    return "\n".join(lines)
