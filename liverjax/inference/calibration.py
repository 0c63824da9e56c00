"""What `liverjax calibrate` fits to a model, and where it lies: beside the run, or in the bundle."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from liverjax.errors import CheckpointError, ConfigError
from liverjax.files import read_json, write_json
from liverjax.options import Config

_LOG = logging.getLogger("liverjax")

#: Name of the file in the folder of a run.
CALIBRATION = "calibration.json"
_REMEDY = "calibrate the run again, or remove the file"
#: What a fit can give, and float32 computes with: a temperature outside makes every voxel certain, or none.
_TEMPERATURES = (0.01, 100.0)
_WEIGHTS = (1e-30, 1e30)


class Checkpoint(TypedDict):
    """What tells one checkpoint from another: its step, and the SHA-256 of its ``checksums.json``."""

    step: int
    sha256: str


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


def from_json(values: Any, config: Config, where: str | os.PathLike, *, remedy: str = "") -> Calibration:
    """Returns the calibration that `to_json` gave.

    Args:
      values: what it gave; other fields are not looked at.
      config: of the model.
      where: the file that they are from, for the message.
      remedy: what the message of an error ends with.

    Raises:
      CheckpointError: the values are of another form, or of another model than the config's.
    """

    def take(field: str, expected: str, fits: Callable[[Any], bool]) -> Any:
        value = values.get(field) if isinstance(values, dict) else None
        if not fits(value):
            raise CheckpointError(
                f"{where}: not a calibration of views {config.views} and classes {config.labels} "
                f"({field} is {reprlib.repr(value)}, expected {expected})" + (f"; {remedy}" if remedy else "")
            )
        return value

    def of_views(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
        return lambda value: (
            isinstance(value, dict) and set(value) <= set(config.views) and all(map(fits, value.values()))
        )

    temperature = take(
        "temperature",
        "for each view a number from {} to {}".format(*_TEMPERATURES),
        of_views(lambda value: _lies_within(value, _TEMPERATURES)),
    )
    weights = take(
        "weights",
        "for each view one number above 0 for each class",
        of_views(
            lambda shares: (
                isinstance(shares, list)
                and len(shares) == len(config.labels)
                and all(_lies_within(share, _WEIGHTS) for share in shares)
            )
        ),
    )
    members = take("members", "a whole number from 1", lambda value: type(value) is int and value >= 1)
    return Calibration(
        {view: float(value) for view, value in temperature.items()},
        {view: tuple(map(float, shares)) for view, shares in weights.items()},
        members,
    )


def _lies_within(value: Any, limits: tuple[float, float]) -> bool:
    return type(value) in (int, float) and limits[0] <= value <= limits[1]


def read_calibration(
    run: pathlib.Path, config: Config, checkpoints: Mapping[str, Sequence[Checkpoint]]
) -> Calibration:
    """Returns the calibration in the folder of a run, or one that changes nothing if there is none that holds.

    Args:
      run: the folder.
      config: of the run.
      checkpoints: for each view that is used the checkpoints of its members. If the calibration was fitted to others,
        because training has gone on since, it is not used, and a warning says so.

    Raises:
      CheckpointError: the file is damaged, or of another model.
    """
    path = run / CALIBRATION
    try:
        values = read_json(path, error=CheckpointError, remedy=_REMEDY)
    except FileNotFoundError:
        return UNCALIBRATED
    calibration = from_json(values, config, path, remedy=_REMEDY)
    fitted = values.get("checkpoints")
    if not isinstance(fitted, dict) or not all(isinstance(own, list) for own in fitted.values()):
        raise CheckpointError(
            f"{path}: checkpoints is {reprlib.repr(fitted)}, expected a list for each view; {_REMEDY}"
        )
    for view, now in checkpoints.items():
        own = fitted.get(view)
        if not own or own != list(now[: len(own)]):
            _LOG.warning(
                "%s is not used: it was fitted to other checkpoints than %s has now; calibrate the run again",
                path,
                view,
            )
            return UNCALIBRATED
    return calibration


def write_calibration(
    run: pathlib.Path,
    calibration: Calibration,
    checkpoints: Mapping[str, Sequence[Checkpoint]],
    **facts: object,
) -> None:
    """Writes a calibration into the folder of a run.

    Args:
      run: the folder.
      calibration: what was fitted.
      checkpoints: for each view those of the members to which it was fitted.
      facts: what else to note, as JSON takes it.
    """
    own = {view: list(members[: calibration.members]) for view, members in checkpoints.items()}
    write_json(run / CALIBRATION, {**to_json(calibration), "checkpoints": own, **facts})
