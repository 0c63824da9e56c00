"""The flags of `liverjax plan`, and which task each belongs to."""

from __future__ import annotations

from typing import Any

from absl import flags

#: Of sirt: numbers, with what they are.
NUMBERS = {
    "lung_shunt": "share of the injected activity that reaches the lungs, in [0, 1); must be stated",
    "residual": "share of the prescribed activity that is not injected, in [0, 1) (default: 0)",
    "activity_gbq": "an activity whose doses are wanted",
    "dose_gy": "wanted mean dose of the perfused liver (MIRD, one compartment)",
    "tumor_dose_gy": "wanted mean dose of the tumours (partition model)",
    "normal_dose_gy": "wanted mean dose of the perfused liver without tumours (partition model)",
    "ratio": "activity per kg of tumour over that of liver",
    "height_m": "of the patient, for the activity of resin microspheres by body surface",
    "weight_kg": "of the patient, likewise",
    "lung_limit_gy": "largest dose of the lungs (default: 30, and 50 with earlier sessions)",
    "previous_lung_gy": "dose of the lungs in earlier sessions (default: 0)",
    "lung_mass_kg": "mass of the lungs (default: 1)",
    "density_g_per_ml": "of liver and tumours (default: 1.03)",
    "dose_gy_kg_per_gbq": "dose of 1 GBq in 1 kg (default: 49.67 of Y-90, 15.87 of Ho-166)",
}
SIRT = ("microspheres", "territory", "territory_labels", "perfused_share", "perfused_tumor_share", *NUMBERS)
VOLUMETRY = ("regions", "region_names")


def define(values: flags.FlagValues) -> None:
    """Defines all of them but the task."""
    on: dict[str, Any] = {"flag_values": values}
    string, words, number = flags.DEFINE_string, flags.DEFINE_list, flags.DEFINE_float
    string("input", None, "mask, or for volumetry a folder of masks", short_name="i", **on)
    string("output", None, "folder for the results", short_name="o", **on)
    words("liver_labels", [], "values of liver in the masks (default: 1, or as a dataset.json states)", **on)
    words("tumor_labels", [], "values of tumour in the masks (default: 2, likewise)", **on)
    string("tumor_masks", None, "mask of tumours in a file of its own, or a folder of them", **on)
    words("calibration", [], "scores of scans that trained no model: cases.csv, or a sweep's folder", **on)
    string("scans", None, "the scan, or a folder of scans, for the pictures", **on)
    string("regions", None, "volumetry: mask of lobes or segments, or a folder of them", **on)
    words("region_names", [], "volumetry: their names, as 1=left lobe,2=right lobe", **on)
    kinds = ["glass", "resin", "holmium"]
    flags.DEFINE_enum("microspheres", None, kinds, "sirt: kind of microspheres; must be stated", **on)
    string("territory", None, "sirt: mask of what is perfused (default: the whole liver)", **on)
    words(
        "territory_labels", [], "sirt: its values that are perfused (default: all), as those of a lobe", **on
    )
    number("perfused_share", None, "sirt: in its place, the share of the liver that is perfused", **on)
    number("perfused_tumor_share", None, "sirt: and the share of the tumours (default: 1)", **on)
    for name, about in NUMBERS.items():
        number(name, None, f"sirt: {about}", **on)


def check(args: flags.FlagValues) -> None:
    """Refuses flags of the other task, which would have no effect, and a missing one of SIRT.

    Raises:
      ConfigError: there is one.
    """
    from liverjax.errors import ConfigError

    for name in SIRT if args.task == "volumetry" else VOLUMETRY:
        if args[name].present:
            other = "sirt" if args.task == "volumetry" else "volumetry"
            raise ConfigError(
                f"--{name} has no effect on {args.task}, expected it with `liverjax plan {other}`"
            )
    for name in ("microspheres", "lung_shunt"):
        if args.task == "sirt" and args[name].value is None:
            expected = (
                "glass, resin or holmium" if name == "microspheres" else "a share, as --lung_shunt=0.05"
            )
            raise ConfigError(f"--{name} is missing, expected {expected}")


def stated(args: flags.FlagValues) -> dict[str, Any]:
    """Returns what is stated for a worksheet of SIRT, as `planning.SirtInputs` takes it."""
    found = {name: args[name].value for name in ("microspheres", *NUMBERS)}
    return {name: value for name, value in found.items() if value is not None}
