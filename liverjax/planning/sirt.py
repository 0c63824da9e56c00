"""Selective internal radiation therapy (SIRT): activity and absorbed dose of microspheres in the liver.

Each formula is a pure function of numbers, or of NumPy arrays of samples, with the unit in every name. Research use
only, not for treatment.

Symbols: A activity in GBq as prescribed, D dose in Gy, m mass in kg of what is perfused (T tumour, N liver without
tumour, L lungs), k dose constant in Gy kg / GBq, LSF lung shunt fraction (share of what is injected that reaches the
lungs), R residual fraction (share of what is prescribed that is not injected), TNR = (A_T / m_T) / (A_N / m_N).

| method | activity to dose | dose to activity |
|---|---|---|
| MIRD, one compartment | D = k A (1 - LSF) (1 - R) / m | A = D m / (k (1 - LSF) (1 - R)) |
| partition | D_N = k A (1 - LSF) (1 - R) / (TNR m_T + m_N), D_T = TNR D_N | A = D_N (...) / (k (1 - LSF) (1 - R)) |
| lungs | D_L = k A LSF (1 - R) / m_L | A = D_L m_L / (k LSF (1 - R)) |

Body surface area (resin): A = ((BSA - 0.2) V_treated / V_liver + V_T / V_liver) / (1 - R), V_T the tumours of what is
treated. Sources of all numbers: docs/sirt.md.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from liverjax.errors import InputError, shown

#: A number, or an array of samples of it.
Number = TypeVar("Number", float, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Nuclide:
    """A radionuclide whose emissions stay where it is.

    Attributes:
      name: of the nuclide.
      dose_gy_kg_per_gbq: mean dose of 1 GBq that decays completely in 1 kg: its energy in J / GBq.
      source: where that is from.
    """

    name: str
    dose_gy_kg_per_gbq: float
    source: str


Y90 = Nuclide("Y-90", 49.67, "van Roekel, thesis, p. 30; 49.38 to 50 are in use")
HO166 = Nuclide("Ho-166", 15.87, "15.87 mJ / MBq, J Nucl Med 2016;57(suppl 2):199")


@dataclasses.dataclass(frozen=True)
class Limit:
    """A usual limit.

    Attributes:
      value: beyond which there is a warning; None if there is none.
      source: where it is from.
    """

    value: float | None
    source: str


@dataclasses.dataclass(frozen=True)
class Microspheres:
    """A kind of microspheres, with its nuclide and usual limits in Gy.

    Attributes:
      name: glass, resin or holmium.
      nuclide: in them.
      perfused_gy: mean dose of the perfused liver; for segments, much higher ones are usual.
      normal_gy: dose of the liver without tumour.
      whole: whether that limit is of the whole liver without tumour, and not of its perfused part.
      tumor_gy: dose that tumours usually get at least.
      largest_lung_shunt: above which none are given.
    """

    name: str
    nuclide: Nuclide
    perfused_gy: Limit
    normal_gy: Limit
    whole: bool
    tumor_gy: Limit
    largest_lung_shunt: Limit


_EANM = "EANM guideline 2022 (Weber), table"
_NOT_STATED = Limit(None, "")
GLASS = Microspheres(
    "glass", Y90, Limit(150.0, f"{_EANM} 2: lobes; segmentectomy > 400 Gy"),
    Limit(75.0, f"{_EANM} 2: 50 to 90 Gy by bilirubin"), True, Limit(205.0, f"{_EANM} 2: HCC"), _NOT_STATED,
)  # fmt: skip
RESIN = Microspheres(
    "resin", Y90, _NOT_STATED, Limit(40.0, f"{_EANM} 3: 30 Gy in compromised livers"), False,
    Limit(100.0, f"{_EANM} 3"), Limit(0.20, "instructions for use, by van Roekel, thesis, p. 41"),
)  # fmt: skip
HOLMIUM = Microspheres(
    "holmium", HO166, Limit(60.0, f"{_EANM} 4"), Limit(60.0, f"{_EANM} 4: 40 Gy if both lobes are treated"), True,
    Limit(90.0, f"{_EANM} 4: colorectal metastases"), _NOT_STATED,
)  # fmt: skip
MICROSPHERES = {kind.name: kind for kind in (GLASS, RESIN, HOLMIUM)}

#: Dose of the lungs in one session, and in all of them, in Gy.
LUNG_SESSION_GY = Limit(30.0, "van Roekel, thesis, p. 41")
LUNG_TOTAL_GY = Limit(50.0, "van Roekel, thesis, p. 41")
#: Mass of the lungs in kg; density of the liver and its tumours in g / ml.
LUNG_MASS_KG, DENSITY_G_PER_ML = 1.0, 1.03
#: Lung shunt fraction from which on a share of the activity by body surface is given; above 20 % none is.
LUNG_SHUNT_STEPS = ((0.10, 0.8), (0.15, 0.6))
#: Constants of Du Bois (1916), for metres and kg.
_BSA, _BSA_HEIGHT, _BSA_WEIGHT, _BSA_OFFSET_GBQ = 0.20247, 0.725, 0.425, 0.2


# --- one compartment, and lungs ---------------------------------------------------------------------------------


def mass(volume_ml: Number, density_g_per_ml: float = DENSITY_G_PER_ML) -> Number:
    """Returns the mass in kg of a volume in ml."""
    check_positive(density_g_per_ml=density_g_per_ml)
    return volume_ml * density_g_per_ml / 1000


def one_compartment_dose(
    activity_gbq: Number,
    mass_kg: Number,
    lung_shunt: float = 0.0,
    residual: float = 0.0,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> Number:
    """Returns the mean dose in Gy of a perfused mass (MIRD, one compartment).

    Args:
      activity_gbq: as prescribed; 0 gives 0 Gy.
      mass_kg: liver with its tumours that is perfused.
      lung_shunt: share of the injected activity that reaches the lungs, in [0, 1).
      residual: share of the prescribed activity that is not injected, in [0, 1).
      dose_gy_kg_per_gbq: of the nuclide.

    Raises:
      InputError: a number is out of its range.
    """
    _check_activity(activity_gbq)
    check_positive(mass_kg=mass_kg)
    return activity_gbq * _per_gbq(lung_shunt, residual, dose_gy_kg_per_gbq) / mass_kg


def one_compartment_activity(
    dose_gy: Number,
    mass_kg: Number,
    lung_shunt: float = 0.0,
    residual: float = 0.0,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> Number:
    """Returns the activity in GBq that gives a perfused mass a mean dose: the inverse of `one_compartment_dose`."""
    check_positive(dose_gy=dose_gy, mass_kg=mass_kg)
    return dose_gy * mass_kg / _per_gbq(lung_shunt, residual, dose_gy_kg_per_gbq)


def lung_dose(
    activity_gbq: Number,
    lung_shunt: float,
    residual: float = 0.0,
    lung_kg: float = LUNG_MASS_KG,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> Number:
    """Returns the mean dose of the lungs in Gy; arguments as of `one_compartment_dose`, ``lung_kg`` their mass."""
    _check_activity(activity_gbq)
    check_positive(lung_kg=lung_kg, dose_gy_kg_per_gbq=dose_gy_kg_per_gbq)
    check_shares(lung_shunt=lung_shunt, residual=residual)
    return dose_gy_kg_per_gbq * activity_gbq * lung_shunt * (1 - residual) / lung_kg


def lung_activity(
    dose_gy: float,
    lung_shunt: float,
    residual: float = 0.0,
    lung_kg: float = LUNG_MASS_KG,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> float:
    """Returns the activity in GBq that gives the lungs a mean dose; infinite if none does: inverse of `lung_dose`."""
    per_gbq = lung_dose(1.0, lung_shunt, residual, lung_kg, dose_gy_kg_per_gbq)
    check_positive(dose_gy=dose_gy)
    return dose_gy / per_gbq if per_gbq else float("inf")


# --- partition model ----------------------------------------------------------------------------------------------


def partition_doses(
    activity_gbq: Number,
    tumor_kg: Number,
    normal_kg: Number,
    ratio: float,
    lung_shunt: float = 0.0,
    residual: float = 0.0,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> tuple[Number, Number]:
    """Returns the mean doses in Gy of tumours and of the perfused liver without them (partition model, Ho 1996).

    Args:
      activity_gbq: as of `one_compartment_dose`, and so are the last three.
      tumor_kg: tumours that are perfused.
      normal_kg: liver without tumours that is perfused.
      ratio: activity per kg of tumour over that of liver, TNR.

    Raises:
      InputError: a number is out of its range.
    """
    _check_activity(activity_gbq)
    weight = _weight(tumor_kg, normal_kg, ratio)
    normal = activity_gbq * _per_gbq(lung_shunt, residual, dose_gy_kg_per_gbq) / weight
    return ratio * normal, normal


def partition_activity(
    tumor_kg: Number,
    normal_kg: Number,
    ratio: float,
    *,
    tumor_gy: float | None = None,
    normal_gy: float | None = None,
    lung_shunt: float = 0.0,
    residual: float = 0.0,
    dose_gy_kg_per_gbq: float = Y90.dose_gy_kg_per_gbq,
) -> Number:
    """Returns the activity in GBq that gives tumours, or the perfused liver without them, a mean dose.

    Exactly one of the two doses is given; the other arguments are those of `partition_doses`, of which this is the
    inverse.
    """
    if (tumor_gy is None) == (normal_gy is None):
        raise InputError(
            "a partition model wants the dose of tumours or of the liver, expected one of the two"
        )
    dose_gy = normal_gy if tumor_gy is None else tumor_gy
    assert dose_gy is not None
    check_positive(dose_gy=dose_gy)
    weight = _weight(tumor_kg, normal_kg, ratio)
    normal = dose_gy if tumor_gy is None else dose_gy / ratio
    return normal * weight / _per_gbq(lung_shunt, residual, dose_gy_kg_per_gbq)


def _weight(tumor_kg: Number, normal_kg: Number, ratio: float) -> Number:
    check_positive(tumor_to_normal_ratio=ratio)
    for name, value in (("tumor_kg", tumor_kg), ("normal_kg", normal_kg)):
        if not np.all(np.isfinite(value) & (np.asarray(value) >= 0)):
            raise InputError(f"{name} is {shown(value)}, expected a mass of 0 kg or more")
    weight = ratio * tumor_kg + normal_kg
    check_positive(perfused_kg=weight)
    return weight


# --- body surface area --------------------------------------------------------------------------------------------


def body_surface_m2(height_m: float, weight_kg: float) -> float:
    """Returns the body surface area in m2 (Du Bois)."""
    if not 0.3 <= height_m <= 2.6:
        raise InputError(f"height is {height_m:g} m, expected 0.3 to 2.6 m")
    if not 2 <= weight_kg <= 500:
        raise InputError(f"weight is {weight_kg:g} kg, expected 2 to 500 kg")
    return _BSA * height_m**_BSA_HEIGHT * weight_kg**_BSA_WEIGHT


def body_surface_activity(
    surface_m2: float,
    tumor_ml: Number,
    treated_ml: Number,
    liver_ml: Number,
    residual: float = 0.0,
) -> Number:
    """Returns the activity in GBq of resin microspheres by the body surface method, not reduced for the lungs.

    Args:
      surface_m2: body surface area.
      tumor_ml: tumours in what is treated.
      treated_ml: liver with tumours that is treated, such as a lobe; all of the liver if all is.
      liver_ml: the whole liver with its tumours.
      residual: as of `one_compartment_dose`.

    Raises:
      InputError: a number is out of its range: tumours larger than what is treated, or that than the liver.
    """
    check_positive(surface_m2=surface_m2, treated_ml=treated_ml, liver_ml=liver_ml)
    check_shares(residual=residual)
    if surface_m2 <= _BSA_OFFSET_GBQ:
        raise InputError(f"surface_m2 is {surface_m2:g}, expected a body surface of more than 0.2 m2")
    if not np.all((np.asarray(tumor_ml) >= 0) & (np.asarray(tumor_ml) <= treated_ml)):
        raise InputError(f"tumours of {shown(tumor_ml)} ml, expected 0 to the {shown(treated_ml)} ml treated")
    if not np.all(np.asarray(treated_ml) <= liver_ml):
        raise InputError(
            f"{shown(treated_ml)} ml are treated, expected at most the {shown(liver_ml)} ml of the liver"
        )
    return ((surface_m2 - _BSA_OFFSET_GBQ) * treated_ml + tumor_ml) / liver_ml / (1 - residual)


def lung_shunt_factor(lung_shunt: float) -> float:
    """Returns the share of the activity by body surface that is given at a lung shunt.

    1 below 10 %, 0.8 from 10 % on, 0.6 from 15 % to 20 %, 0 above 20 %.
    """
    check_shares(lung_shunt=lung_shunt)
    largest = RESIN.largest_lung_shunt.value
    if largest is not None and lung_shunt > largest:
        return 0.0
    return next((share for start, share in reversed(LUNG_SHUNT_STEPS) if lung_shunt >= start), 1.0)


# --- ranges -------------------------------------------------------------------------------------------------------


def _per_gbq(lung_shunt: float, residual: float, dose_gy_kg_per_gbq: float) -> float:
    """Returns the dose in Gy kg of 1 GBq as prescribed."""
    check_positive(dose_gy_kg_per_gbq=dose_gy_kg_per_gbq)
    check_shares(lung_shunt=lung_shunt, residual=residual)
    return dose_gy_kg_per_gbq * (1 - lung_shunt) * (1 - residual)


def _check_activity(activity_gbq: float | np.ndarray) -> None:
    if not np.all(np.isfinite(activity_gbq) & (np.asarray(activity_gbq) >= 0)):
        raise InputError(f"activity_gbq is {shown(activity_gbq)}, expected 0 GBq or more")


def check_positive(**values: float | np.ndarray) -> None:
    """Raises an `InputError` that names the value which is not finite or not above 0."""
    for name, value in values.items():
        if not np.all(np.isfinite(value) & (np.asarray(value) > 0)):
            raise InputError(f"{name} is {shown(value)}, expected a number above 0")


def check_shares(**values: float) -> None:
    """Raises an `InputError` that names the value which is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            percent = f" (a fraction: {value:g} % are {value / 100:g})" if 1 <= value < 100 else ""
            raise InputError(f"{name} is {value:g}, expected at least 0 and less than 1{percent}")
