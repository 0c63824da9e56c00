"""A worksheet of SIRT: every input, every formula with its numbers in place, the results, intervals and warnings."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from liverjax import __version__, files
from liverjax.errors import ConfigError
from liverjax.planning import sirt
from liverjax.planning.intervals import INTERVAL, NO_ERRORS, VolumeErrors, interval
from liverjax.planning.sirt_inputs import Inputs
from liverjax.planning.sirt_steps import DOSES, Sheet, Step
from liverjax.planning.territory import Territory, scaled
from liverjax.planning.volumetry import USE, Volumes, between
from liverjax.scoring import tables
from liverjax.scoring.summary import make_folder

#: Columns of `sirt.csv`.
COLUMNS = (
    *("section", "quantity", "symbol", "value", "unit", "low", "high", "interval", "formula", "numbers"),
    "use",
)
# What is changed by this much, to see whether a result depends on it.
_SLIGHTLY = 1.01


@dataclasses.dataclass(frozen=True)
class Worksheet:
    """A plan: what it rests on, its steps in order, what is beyond usual limits, and what a reader should know."""

    volumes: Volumes
    territory: Territory[float]
    inputs: Inputs
    errors: VolumeErrors
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def plan(
    volumes: Volumes, territory: Territory[float], inputs: Inputs, errors: VolumeErrors = NO_ERRORS
) -> Worksheet:
    """Returns the worksheet of a patient.

    The activity is what is computed from the measured volumes. Its interval is that of the activity which the true
    volumes ask for; the intervals of the doses are of this one activity, for the true volumes.

    Args:
      volumes: of the liver.
      territory: that is perfused.
      inputs: what is stated.
      errors: of volumes, for the intervals.

    Raises:
      ConfigError: a dose of tumours is asked for, and none is perfused.
      InputError: a number is out of its range.
    """
    if not territory.tumor_ml and inputs.tumor_dose_gy is not None:
        raise ConfigError(
            f"tumor_dose_gy is {inputs.tumor_dose_gy:g}, but no tumour is perfused; expected --dose_gy, the dose of "
            "the perfused liver"
        )
    tumors = bool(territory.tumor_ml)
    steps = Sheet(territory, inputs, tumors).steps
    fixed = [step.value for step in steps if step.symbol == "A"]

    def values(liver: np.ndarray | float, tumor: np.ndarray | float) -> list[Any]:
        return [s.value for s in Sheet(scaled(territory, liver, tumor), inputs, tumors, fixed).steps]

    slightly = {"liver": values(_SLIGHTLY, 1.0), "tumor": values(1.0, _SLIGHTLY)}
    of_scans: dict[tuple[str, ...], list[Any] | None] = {}
    for index, step in enumerate(steps):
        changed = [
            name for name, of in slightly.items() if not math.isclose(of[index], step.value, rel_tol=1e-9)
        ]
        key = tuple(changed)
        if key not in of_scans:
            factors = errors.factors(*changed) if changed else None
            by = None if factors is None else [factors.get(name, 1.0) for name in ("liver", "tumor")]
            of_scans[key] = None if by is None else values(*by)
        found = of_scans[key]
        if changed:
            where = interval(step.value, None if found is None else np.asarray(found[index]))
            steps[index] = dataclasses.replace(step, where=where)
    notes = (*volumes.notes, *territory.notes, *_notes(territory, inputs))
    return Worksheet(
        volumes, territory, inputs, errors, tuple(steps), _warnings(territory, inputs, steps), notes
    )


# --- warnings ---------------------------------------------------------------------------------------------------


def _warnings(territory: Territory[float], inputs: Inputs, steps: Sequence[Step]) -> tuple[str, ...]:
    """Returns what is beyond usual limits."""
    kind, found = inputs.kind, []
    largest = kind.largest_lung_shunt
    if largest.value is not None and inputs.lung_shunt > largest.value:
        found.append(
            f"a lung shunt of {100 * inputs.lung_shunt:g} % is above {100 * largest.value:g} %: usually no {kind.name} "
            f"microspheres are given ({largest.source})"
        )
    if not inputs.lungs_gy:
        found.append(
            f"the lungs had {inputs.previous_lung_gy:g} Gy already, all that is usual ({_TOTAL.source})"
        )
    lungs = sirt.LUNG_SESSION_GY.source if inputs.lung_limit_gy is None else "stated"
    limits = {"D": kind.perfused_gy, "D_L": sirt.Limit(inputs.lungs_gy, lungs)}
    # Without tumours the mean dose is that of the liver without tumours.
    normal = "D_N" if territory.tumor_ml else "D"
    normal = "D_N_all" if kind.whole and not territory.is_whole else normal
    if normal not in limits or _of(kind.normal_gy) < _of(limits[normal]):
        limits[normal] = kind.normal_gy
    for step in steps:
        if not step.section.startswith(DOSES):
            continue
        activity = step.section.removeprefix(f"{DOSES} of the ")
        limit = limits.get(step.symbol, _NO_LIMIT)
        usual, high = _of(limit) * (1 + _ROUNDING), step.where.high
        if step.value > usual:
            found.append(
                f"{activity}: {step.value:.1f} Gy of the {step.quantity} are more than the usual {limit.value:g} Gy "
                f"({limit.source})"
            )
        elif high is not None and high > usual:
            found.append(
                f"{activity}: the interval of the {step.quantity} reaches {high:.1f} Gy, above the usual "
                f"{limit.value:g} Gy ({limit.source})"
            )
        least = kind.tumor_gy
        if step.symbol == "D_T" and least.value is not None and step.value < least.value * (1 - _ROUNDING):
            found.append(
                f"{activity}: {step.value:.1f} Gy of the tumours are less than the usual {least.value:g} Gy "
                f"({least.source})"
            )
    return tuple(found)


def _notes(territory: Territory[float], inputs: Inputs) -> Iterator[str]:
    if not territory.tumor_ml:
        yield "no tumour is perfused: doses are those of one compartment"
    elif inputs.ratio is None:
        yield "no tumour-to-normal ratio is stated: no doses of tumours and of the liver without them"
    if (
        inputs.microspheres == "resin"
        and inputs.height_m is None
        and inputs.lung_shunt >= sirt.LUNG_SHUNT_STEPS[0][0]
    ):
        yield "the reduction for the lung shunt belongs to the activity by body surface, and is not made here"


def _of(limit: sirt.Limit) -> float:
    """Returns the value of a limit, infinite if there is none."""
    return math.inf if limit.value is None else limit.value


_TOTAL, _NO_LIMIT, _ROUNDING = sirt.LUNG_TOTAL_GY, sirt.Limit(None, ""), 1e-9


# --- output -----------------------------------------------------------------------------------------------------


def input_rows(sheet: Worksheet) -> list[dict[str, Any]]:
    """Returns a row for each input and constant: what, its symbol, value, unit, and where it is from."""
    inputs, where, mask = sheet.inputs, sheet.territory, pathlib.Path(sheet.volumes.mask.name).name
    constant = inputs.kind.nuclide.source if inputs.dose_gy_kg_per_gbq is None else "stated"
    stated: list[tuple[str, str, Any, str, str]] = [
        ("perfused liver with tumours", "V", where.liver_ml, "ml", where.name),
        ("perfused tumours", "V_T", where.tumor_ml, "ml", where.name),
        ("whole liver with tumours", "V_all", where.whole_liver_ml, "ml", mask),
        ("all tumours", "V_T_all", where.whole_tumor_ml, "ml", mask),
        ("lung shunt fraction", "LSF", inputs.lung_shunt, "", "stated"),
        ("residual fraction", "R", inputs.residual, "", _stated(inputs.residual, 0.0)),
        ("tumour-to-normal ratio", "TNR", inputs.ratio, "", "stated"),
        ("activity", "A", inputs.activity_gbq, "GBq", "stated"),
        ("wanted dose of the perfused liver", "D", inputs.dose_gy, "Gy", "stated"),
        ("wanted dose of tumours", "D_T", inputs.tumor_dose_gy, "Gy", "stated"),
        ("wanted dose of the liver without tumours", "D_N", inputs.normal_dose_gy, "Gy", "stated"),
        ("height", "h", inputs.height_m, "m", "stated"),
        ("weight", "w", inputs.weight_kg, "kg", "stated"),
        ("earlier dose of the lungs", "", inputs.previous_lung_gy or None, "Gy", "stated"),
        (
            *("largest dose of the lungs", "D_max", inputs.lungs_gy, "Gy"),
            sirt.LUNG_SESSION_GY.source if inputs.lung_limit_gy is None else "stated",
        ),
        (
            "mass of the lungs",
            "m_L",
            inputs.lung_mass_kg,
            "kg",
            _stated(inputs.lung_mass_kg, sirt.LUNG_MASS_KG),
        ),
        (
            *("density of the liver", "rho", inputs.density_g_per_ml, "g / ml"),
            _stated(inputs.density_g_per_ml, sirt.DENSITY_G_PER_ML),
        ),
        (f"dose constant, {inputs.kind.nuclide.name}", "k", inputs.constant, "Gy kg / GBq", constant),
    ]
    columns = ("input", "symbol", "value", "unit", "from")
    return [dict(zip(columns, row, strict=True)) for row in stated if row[2] is not None]


def _stated(value: float, default: float) -> str:
    return "default" if value == default else "stated"


def step_rows(sheet: Worksheet) -> list[dict[str, Any]]:
    """Returns a row for each step, as `sirt.csv` has them."""
    return [
        {
            "section": step.section, "quantity": step.quantity, "symbol": step.symbol, "value": float(step.value),
            "unit": step.unit, "low": step.where.low, "high": step.where.high, "interval": step.where.status,
            "formula": step.formula, "numbers": step.numbers, "use": USE,
        }
        for step in sheet.steps
    ]  # fmt: skip


def report_rows(sheet: Worksheet) -> dict[str, Any]:
    """Returns what `report.worksheet_report` takes."""
    kind = sheet.inputs.kind
    return {
        "title": f"SIRT worksheet: {sheet.volumes.case}, {kind.name} microspheres ({kind.nuclide.name})",
        "inputs": input_rows(sheet),
        "steps": step_rows(sheet),
        "warnings": sheet.warnings,
        "notes": (*sheet.notes, f"intervals rest on {'; '.join(sheet.errors.summary())}"),
    }


def table(sheet: Worksheet) -> str:
    """Returns the steps as lines of text, for a terminal, with warnings and notes below them."""
    lines = [
        {
            "": f"{row['section']}: {row['quantity']}",
            "result": f"{tables.number(row['value'])} {row['unit']}",
            "interval": between(row),
        }
        for row in step_rows(sheet)
    ]
    warnings = [f"Warning: {text}" for text in sheet.warnings]
    return "\n".join([tables.aligned(lines), *warnings, *sheet.notes])


def save(folder: str | os.PathLike, sheet: Worksheet) -> pathlib.Path:
    """Writes `sirt.csv` and `sirt.json` into a folder, each atomically, and returns the folder.

    Raises:
      InputError: the folder cannot be written to.
    """
    folder = make_folder(folder)
    files.write_csv(folder / "sirt.csv", step_rows(sheet), COLUMNS)
    document = {
        "use": USE,
        "liverjax_version": __version__,
        "case": sheet.volumes.case,
        "microspheres": sheet.inputs.microspheres,
        "nuclide": sheet.inputs.kind.nuclide.name,
        "territory": sheet.territory.name,
        "inputs": input_rows(sheet),
        "calibration": {
            "tables": sheet.errors.sources,
            "scans": sheet.errors.summary(),
            "interval": INTERVAL,
        },
        "steps": [{key: value for key, value in row.items() if key != "use"} for row in step_rows(sheet)],
        "warnings": sheet.warnings,
        "notes": sheet.notes,
    }
    files.write_json(folder / "sirt.json", document)
    return folder
