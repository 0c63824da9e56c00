"""What `liverjax calibrate` fits to a model, and where it lies: beside the run, or in the bundle."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from liverjax.errors import CheckpointError, ConfigError
from liverjax.files import write_json
from liverjax.options import Config

_LOG = logging.getLogger("liverjax")

#: Name of the file in the folder of a run.
CALIBRATION = "calibration.json"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Fitted on validation cases; the defaults change nothing.

    Attributes:
      temperature: for each view what its logits are divided by (Guo 2017).
      weights: for each view the weight of each class; used by the fusion "weighted".
      members: number of networks of each view that they were fitted to; the networks of a view share its values.
    """

    temperature: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    members: int = 1

    def require_weights(self, views: Iterable[str]) -> None:
        """Raises `ConfigError` if the weights of a view, which the fusion "weighted" needs, were not fitted."""
        for view in views:
            if view not in self.weights:
                raise ConfigError(
                    f"predict.fusion is 'weighted', but no weights of the view {view} are fitted to these networks; "
                    "fit them with `liverjax calibrate`, or choose 'mean'"
                )

    def for_members(self, members: int) -> Calibration:
        """Returns it, or if it was fitted to another number of networks, one that changes nothing, and says so."""
        if self.members == members or self == UNCALIBRATED:
            return self
        _LOG.warning(
            "not calibrated: temperatures and weights were fitted to %d networks of each view, not to %d",
            self.members,
            members,
        )
        return UNCALIBRATED


UNCALIBRATED = Calibration()


def to_json(calibration: Calibration) -> dict:
    """Returns a calibration as JSON takes it."""
    weights = {view: list(values) for view, values in calibration.weights.items()}
    return {
        "temperature": dict(calibration.temperature),
        "weights": weights,
        "members": calibration.members,
    }


def from_json(values: Any, config: Config, where: str | os.PathLike) -> Calibration:
    """Returns the calibration that `to_json` gave.

    Raises:
      CheckpointError: the values are of another form, or of another model than the config's.
    """
    try:
        temperature = {view: float(value) for view, value in values["temperature"].items()}
        weights = {view: tuple(map(float, share)) for view, share in values["weights"].items()}
        members = int(values["members"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where}: not a calibration ({error!r})") from None
    numbers = [*temperature.values(), *(value for share in weights.values() for value in share)]
    sound = all(math.isfinite(value) and value >= 0 for value in numbers) and all(temperature.values())
    views = {*temperature, *weights}
    if (
        not sound
        or not views <= set(config.views)
        or any(len(s) != len(config.labels) for s in weights.values())
    ):
        raise CheckpointError(
            f"{where}: not a calibration of views {config.views} and classes {config.labels}"
        )
    return Calibration(temperature, weights, members)


def read_calibration(run: pathlib.Path, config: Config) -> Calibration:
    """Returns the calibration in the folder of a run, or one that changes nothing if there is none."""
    path = run / CALIBRATION
    if not path.exists():
        return UNCALIBRATED
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    return from_json(values, config, path)


def write_calibration(run: pathlib.Path, calibration: Calibration, **facts: object) -> pathlib.Path:
    """Writes a calibration into the folder of a run, with facts about how it was fitted; returns the file."""
    write_json(run / CALIBRATION, {**to_json(calibration), **facts})
    return run / CALIBRATION
