"""The calculations of a worksheet of SIRT, one after the other, each with its formula and the numbers in place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from liverjax.planning import sirt
from liverjax.planning.intervals import NO_INTERVAL, Interval
from liverjax.planning.sirt_inputs import Inputs
from liverjax.planning.territory import Territory

#: Sections of a worksheet; that of doses goes on with what the activity is for.
MASSES, ACTIVITY, DOSES = "Perfused liver", "Activity", "Doses"
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z_0-9]*")


@dataclasses.dataclass(frozen=True)
class Step:
    """A result.

    Attributes:
      section: heading that it stands under.
      quantity: what it is.
      symbol: in formulas.
      formula: in symbols, and the same with ``numbers`` in place; both empty if it was stated.
      value: in ``unit``.
      where: its interval; an empty status if it does not depend on a volume.
    """

    section: str
    quantity: str
    symbol: str
    formula: str
    numbers: str
    value: float
    unit: str
    where: Interval = NO_INTERVAL


class Sheet:
    """The steps for a territory, of numbers or of arrays; doses are those of ``fixed`` activities, if there are any."""

    def __init__(
        self, where: Territory[Any], inputs: Inputs, tumors: bool, fixed: Sequence[float] | None = None
    ):
        self.steps: list[Step] = []
        self._where, self._inputs, self._tumors = where, inputs, tumors
        self._known: dict[str, Any] = {
            "rho": inputs.density_g_per_ml, "k": inputs.constant, "LSF": inputs.lung_shunt, "R": inputs.residual,
            "TNR": inputs.ratio, "m_L": inputs.lung_mass_kg, "V": where.liver_ml, "V_T": where.tumor_ml,
            "V_all": where.whole_liver_ml, "V_T_all": where.whole_tumor_ml, "h": inputs.height_m, "w": inputs.weight_kg,
            "D_max": inputs.lungs_gy,
        }  # fmt: skip
        rho = inputs.density_g_per_ml
        self._mass, self._tumor_kg = sirt.mass(where.liver_ml, rho), sirt.mass(where.tumor_ml, rho)
        self._normal_kg = sirt.mass(where.liver_ml - where.tumor_ml, rho)
        self._per_gbq = {"lung_shunt": inputs.lung_shunt, "residual": inputs.residual}
        self._per_gbq |= {"dose_gy_kg_per_gbq": inputs.constant}
        # Without tumours the partition model is that of one compartment, whatever the ratio.
        self._ratio: Any = inputs.ratio if tumors else 1.0
        self._masses()
        activities = self._activities()
        for index, (title, activity) in enumerate(activities):
            self._doses(title, activity if fixed is None else fixed[index])

    def _add(self, section: str, quantity: str, symbol: str, unit: str, formula: str, value: Any) -> None:
        numbers = ""
        if not np.ndim(value):
            numbers = _SYMBOL.sub(lambda match: _number(self._known[match[0]]), formula)
        self._known[symbol] = value
        self.steps.append(Step(section, quantity, symbol, formula, numbers, value, unit))

    def _masses(self) -> None:
        load = 100 * self._where.whole_tumor_ml / self._where.whole_liver_ml
        self._add(MASSES, "tumour load of the liver", "load", "%", "100 * V_T_all / V_all", load)
        self._add(MASSES, "perfused liver with tumours", "m", "kg", "rho * V / 1000", self._mass)
        if self._tumors:
            self._add(MASSES, "perfused tumours", "m_T", "kg", "rho * V_T / 1000", self._tumor_kg)
        self._add(
            MASSES, "perfused liver without tumours", "m_N", "kg", "rho * (V - V_T) / 1000", self._normal_kg
        )

    def _activities(self) -> list[tuple[str, Any]]:
        """Adds the activities that are asked for, and returns them, each with what it is for."""
        inputs, where, found = self._inputs, self._where, []

        def activity(title: str, formula: str, value: Any, **stated: float) -> None:
            self._known |= stated
            self._add(ACTIVITY, f"activity {title}", "A", "GBq", formula, value)
            found.append((title, value))

        if inputs.lung_shunt and inputs.lungs_gy:
            value = sirt.lung_activity(
                inputs.lungs_gy, inputs.lung_shunt, inputs.residual, inputs.lung_mass_kg, inputs.constant
            )
            formula = "D_max * m_L / (k * LSF * (1 - R))"
            self._add(ACTIVITY, "largest activity by the lungs", "A_max", "GBq", formula, value)
        if inputs.activity_gbq is not None:
            activity("as stated", "", inputs.activity_gbq)
        if inputs.dose_gy is not None:
            value = sirt.one_compartment_activity(inputs.dose_gy, self._mass, **self._per_gbq)
            activity("for the perfused liver", "D * m / (k * (1 - LSF) * (1 - R))", value, D=inputs.dose_gy)
        weight = "(TNR * m_T + m_N)" if self._tumors else "m_N"
        model = (self._tumor_kg, self._normal_kg, self._ratio)
        if inputs.tumor_dose_gy is not None:
            value = sirt.partition_activity(*model, tumor_gy=inputs.tumor_dose_gy, **self._per_gbq)
            formula = f"D_T / TNR * {weight} / (k * (1 - LSF) * (1 - R))"
            activity("for tumours", formula, value, D_T=inputs.tumor_dose_gy)
        if inputs.normal_dose_gy is not None:
            value = sirt.partition_activity(*model, normal_gy=inputs.normal_dose_gy, **self._per_gbq)
            formula = f"D_N * {weight} / (k * (1 - LSF) * (1 - R))"
            activity("for the liver without tumours", formula, value, D_N=inputs.normal_dose_gy)
        if inputs.height_m is not None and inputs.weight_kg is not None:
            surface = sirt.body_surface_m2(inputs.height_m, inputs.weight_kg)
            self._add(ACTIVITY, "body surface", "BSA", "m2", "0.20247 * h ^ 0.725 * w ^ 0.425", surface)
            volumes = (where.tumor_ml, where.liver_ml, where.whole_liver_ml)
            value = sirt.body_surface_activity(surface, *volumes, residual=inputs.residual)
            share = sirt.lung_shunt_factor(inputs.lung_shunt)
            formula = "((BSA - 0.2) * V + V_T) / V_all / (1 - R) * f"
            self._add(ACTIVITY, "share that is given at this lung shunt", "f", "", "", share)
            activity("by body surface", formula, share * value)
        return found

    def _doses(self, title: str, activity: Any) -> None:
        """Adds the doses of an activity."""
        where, inputs, section = self._where, self._inputs, f"{DOSES} of the activity {title}"
        self._known["A"] = activity
        dose = sirt.one_compartment_dose(activity, self._mass, **self._per_gbq)
        self._add(section, "perfused liver, mean", "D", "Gy", "k * A * (1 - LSF) * (1 - R) / m", dose)
        normal, symbol = dose, "D"
        if self._tumors and self._ratio is not None:
            model = (self._tumor_kg, self._normal_kg, self._ratio)
            tumor, normal = sirt.partition_doses(activity, *model, **self._per_gbq)
            symbol, formula = "D_N", "k * A * (1 - LSF) * (1 - R) / (TNR * m_T + m_N)"
            self._add(section, "perfused liver without tumours", "D_N", "Gy", formula, normal)
            self._add(section, "tumours", "D_T", "Gy", "TNR * D_N", tumor)
        # With tumours and no ratio, the dose of the liver beside them is not known.
        if not where.is_whole and (not self._tumors or self._ratio is not None):
            rest, whole = where.liver_ml - where.tumor_ml, where.whole_liver_ml - where.whole_tumor_ml
            formula = f"{symbol} * (V - V_T) / (V_all - V_T_all)"
            self._add(
                section, "whole liver without tumours", "D_N_all", "Gy", formula, normal * _share(rest, whole)
            )
        lungs = sirt.lung_dose(
            activity, inputs.lung_shunt, inputs.residual, inputs.lung_mass_kg, inputs.constant
        )
        self._add(section, "lungs", "D_L", "Gy", "k * A * LSF * (1 - R) / m_L", lungs)


def _share(part: Any, whole: Any) -> Any:
    """Returns part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)[()]


def _number(value: Any) -> str:
    """Returns a number as formulas show it: six digits, without an exponent."""
    return np.format_float_positional(float(f"{value:.6g}"), trim="-") if value else "0"
