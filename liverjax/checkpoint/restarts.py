"""Where the restarts of a view lie, and the record of which were kept when, ``restarts.json``."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from liverjax.errors import CheckpointError
from liverjax.files import write_json

_RECORD = "restarts.json"


@dataclasses.dataclass(frozen=True)
class Selection:
    """One comparison of the restarts of a view.

    Attributes:
      step: number of steps after which they were compared.
      dice: restart -> its highest validation Dice until then.
      kept: the restarts that continue, the best first.
    """

    step: int
    dice: dict[int, float]
    kept: tuple[int, ...]


def restart_folder(view_folder: pathlib.Path, restart: int) -> pathlib.Path:
    """Returns the folder of one of several restarts, with checkpoints and log as those of a single network."""
    return view_folder / f"restart_{restart}"


def kept_folders(view_folder: pathlib.Path, restarts: int) -> list[pathlib.Path]:
    """Returns the folders of the restarts of a view that are left, the best first; without restarts, the view's own.

    Raises:
      CheckpointError: the record is damaged, or the restarts were not compared yet.
    """
    if restarts == 1:
        return [view_folder]
    selections = read_selections(view_folder)
    if not selections:
        raise CheckpointError(
            f"{view_folder / _RECORD} does not exist: the {restarts} restarts were not compared yet; train further"
        )
    return [restart_folder(view_folder, restart) for restart in selections[-1].kept]


def read_selections(view_folder: pathlib.Path) -> list[Selection]:
    """Returns the comparisons so far, in order; none if there is no record. Raises `CheckpointError`."""
    path = view_folder / _RECORD
    try:
        found = [
            Selection(
                int(entry["step"]),
                {int(restart): float(dice) for restart, dice in entry["validation_dice"].items()},
                tuple(map(int, entry["kept"])),
            )
            for entry in json.loads(path.read_text(encoding="utf-8"))["selections"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r})") from None
    if not all(selection.kept and set(selection.kept) <= set(selection.dice) for selection in found):
        raise CheckpointError(f"{path}: damaged (a selection keeps none, or a restart that was not compared)")
    return found


def write_selections(view_folder: pathlib.Path, selections: Sequence[Selection]) -> None:
    """Writes the comparisons so far, atomically."""
    entries = [
        {"step": selection.step, "validation_dice": selection.dice, "kept": selection.kept}
        for selection in selections
    ]
    write_json(view_folder / _RECORD, {"selections": entries})
