"""What is stated for a worksheet of SIRT, beside the volumes; what is out of its range is refused."""

from __future__ import annotations

import dataclasses
import math

from liverjax.errors import ConfigError, did_you_mean
from liverjax.planning import sirt


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is stated, beside the volumes. Doses and the activity are what is asked for; None is not.

    Attributes:
      microspheres: glass, resin or holmium.
      lung_shunt: share of the injected activity that reaches the lungs, in [0, 1).
      residual: share of the prescribed activity that is not injected, in [0, 1).
      activity_gbq: an activity whose doses are wanted.
      dose_gy: wanted mean dose of the perfused liver (one compartment).
      tumor_dose_gy, normal_dose_gy: wanted mean dose of tumours, or of the perfused liver without (partition model).
      ratio: activity per kg of tumour over that of liver, TNR.
      height_m, weight_kg: of the patient, for the activity by body surface.
      lung_limit_gy: largest dose of the lungs in this session; by default the usual one.
      previous_lung_gy: dose of the lungs in earlier sessions.
      lung_mass_kg, density_g_per_ml: of the lungs, and of the liver with its tumours.
      dose_gy_kg_per_gbq: dose constant, by default that of the nuclide.
    """

    microspheres: str
    lung_shunt: float
    residual: float = 0.0
    activity_gbq: float | None = None
    dose_gy: float | None = None
    tumor_dose_gy: float | None = None
    normal_dose_gy: float | None = None
    ratio: float | None = None
    height_m: float | None = None
    weight_kg: float | None = None
    lung_limit_gy: float | None = None
    previous_lung_gy: float = 0.0
    lung_mass_kg: float = sirt.LUNG_MASS_KG
    density_g_per_ml: float = sirt.DENSITY_G_PER_ML
    dose_gy_kg_per_gbq: float | None = None

    def __post_init__(self) -> None:
        if self.microspheres not in sirt.MICROSPHERES:
            raise ConfigError(
                f"microspheres is {self.microspheres!r}{did_you_mean(self.microspheres, sirt.MICROSPHERES)}"
            )
        sirt.check_shares(lung_shunt=self.lung_shunt, residual=self.residual)
        optional = ("activity_gbq", "dose_gy", "tumor_dose_gy", "normal_dose_gy", "ratio", "lung_limit_gy")
        stated = {name: getattr(self, name) for name in (*optional, "dose_gy_kg_per_gbq")}
        positive = {name: value for name, value in stated.items() if value is not None}
        sirt.check_positive(
            lung_mass_kg=self.lung_mass_kg, density_g_per_ml=self.density_g_per_ml, **positive
        )
        if not 0 <= self.previous_lung_gy < math.inf:
            raise ConfigError(f"previous_lung_gy is {self.previous_lung_gy:g}, expected 0 or more")
        if (self.height_m is None) != (self.weight_kg is None):
            missing = "height_m" if self.height_m is None else "weight_kg"
            raise ConfigError(f"{missing} is missing, expected height_m and weight_kg, or neither of them")
        if self.height_m is not None and self.weight_kg is not None:
            sirt.body_surface_m2(self.height_m, self.weight_kg)
            if self.microspheres != "resin":
                raise ConfigError(
                    f"height_m and weight_kg with {self.microspheres} microspheres, expected resin, whose activity is "
                    "by body surface: --microspheres=resin"
                )
        wanted = (self.activity_gbq, self.dose_gy, self.tumor_dose_gy, self.normal_dose_gy, self.height_m)
        if all(value is None for value in wanted):
            raise ConfigError(
                "nothing is asked for, expected one or more of --activity_gbq, --dose_gy, --tumor_dose_gy, "
                "--normal_dose_gy, or --height_m with --weight_kg"
            )
        if self.ratio is None and (self.tumor_dose_gy is not None or self.normal_dose_gy is not None):
            raise ConfigError("ratio is missing, expected the tumour-to-normal ratio, as --ratio=3")

    @property
    def kind(self) -> sirt.Microspheres:
        """The microspheres."""
        return sirt.MICROSPHERES[self.microspheres]

    @property
    def constant(self) -> float:
        """The dose constant in Gy kg / GBq."""
        own = self.kind.nuclide.dose_gy_kg_per_gbq
        return own if self.dose_gy_kg_per_gbq is None else self.dose_gy_kg_per_gbq

    @property
    def lungs_gy(self) -> float:
        """The largest dose of the lungs in this session: what is left of all sessions' at most."""
        assert sirt.LUNG_SESSION_GY.value is not None and sirt.LUNG_TOTAL_GY.value is not None
        if self.lung_limit_gy is not None:
            return self.lung_limit_gy
        return max(min(sirt.LUNG_SESSION_GY.value, sirt.LUNG_TOTAL_GY.value - self.previous_lung_gy), 0.0)
