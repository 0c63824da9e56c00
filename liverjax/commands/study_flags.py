"""The flags of `liverjax study`, and which study each belongs to."""

from __future__ import annotations

from typing import Any

from absl import flags

KINDS = ("observers", "corrections")
#: Flags of one study only, with those that it must have first.
_OWN = {
    "observers": ("readers", "reference", "band_mm"),
    "corrections": ("automatic", "corrected", "tolerance_mm", "times", "quality"),
}
_NEEDED = {"observers": ("readers",), "corrections": ("automatic", "corrected")}


def define(values: flags.FlagValues) -> None:
    """Defines all of them."""
    on: dict[str, Any] = {"flag_values": values}
    string, words, number = flags.DEFINE_string, flags.DEFINE_list, flags.DEFINE_float
    flags.DEFINE_enum("kind", None, list(KINDS), "which study: the first word", **on)
    string("output", None, "folder for the results", short_name="o", **on)
    flags.DEFINE_enum(
        "region", "liver", ["liver", "tumor"], "the liver with its tumours, or the tumours", **on
    )
    words("values", [], "values of the masks that are the region (default: 1,2 or 2)", **on)
    string("scans", None, "data set of the scans, for patients and pictures", **on)
    words("cases", None, "ids of the cases (default: all)", **on)
    words("readers", None, "observers: folders of masks, as NAME=FOLDER or MODE/NAME=FOLDER", **on)
    string("reference", None, "observers: folder of masks to which volumes relate", **on)
    number("band_mm", 5.0, "observers: how far around disagreement voxels are counted", **on)
    string("automatic", None, "corrections: folder of the masks before", **on)
    words("corrected", None, "corrections: folders of the masks after, as FOLDER or NAME=FOLDER", **on)
    number("tolerance_mm", 0.0, "corrections: smaller edits change no slice", **on)
    string("times", None, "corrections: CSV file of case, minutes_manual, minutes_corrected (, reader)", **on)
    string("quality", None, "corrections: folder uncertainty/ of liverjax predict --uncertainty", **on)
    flags.DEFINE_integer("seed", 0, "of the bootstrap", lower_bound=0, upper_bound=2**32 - 1, **on)
    flags.DEFINE_bool("quiet", False, "no progress bar, no table", **on)
    flags.mark_flags_as_required(["kind", "output"], **on)


def settings(args: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of the study that the flags state, beside the values of the masks.

    Raises:
      ConfigError: a flag that the study needs is missing, or one belongs to another study.
    """
    from liverjax.errors import ConfigError

    for kind, names in _OWN.items():
        for name in names:
            if kind != args.kind and args[name].present:
                raise ConfigError(
                    f"--{name} has no effect on {args.kind}, expected it with `liverjax study {kind}`"
                )
    for name in _NEEDED[args.kind]:
        if not args[name].value:
            expected = "a folder of masks" if name == "automatic" else "folders of masks"
            raise ConfigError(f"--{name} is missing, expected {expected}, as --{name}=FOLDER")
    shared = ("output", "region", "scans", "cases", "seed", "quiet")
    return {name: args[name].value for name in (*_OWN[args.kind], *shared)}
