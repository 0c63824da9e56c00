"""The flags of `liverjax study`, and which study each belongs to."""

from __future__ import annotations

from typing import Any

from absl import flags

from liverjax.commands import study_curve_flags

KINDS = ("observers", "corrections", "learning-curve")
#: Flags of one study only, with those that it must have first.
_OWN = {
    "observers": ("readers", "reference", "band_mm"),
    "corrections": ("automatic", "corrected", "tolerance_mm", "times", "quality"),
    "learning-curve": study_curve_flags.NAMES,
}
_MASKS = ("output", "region", "values", "scans", "cases", "quiet")
_NEEDED = {"observers": ("output", "readers"), "corrections": ("output", "automatic", "corrected")}
_NEEDED["learning-curve"] = study_curve_flags.NAMES[:4]
_EXPECTED = {
    **dict.fromkeys(("output", "dataset", "workdir"), "a folder"),
    "config": "a config, as --config=ct_liver:small",
    "sizes": "numbers of training patients, as --sizes=2,4,8,16",
}


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
    string("quality", None, "corrections: folder uncertainty/ of liverjax predict --save_uncertainty", **on)
    flags.DEFINE_integer("seed", 0, "of the bootstrap", lower_bound=0, upper_bound=2**32 - 1, **on)
    flags.DEFINE_bool("quiet", False, "no progress bar, no table", **on)
    study_curve_flags.define(values)
    flags.mark_flag_as_required("kind", **on)


def check(args: flags.FlagValues) -> None:
    """Refuses, by a ConfigError, flags of other studies, which would have no effect, and a missing one."""
    from liverjax.errors import ConfigError

    masks = {"observers": _MASKS} if args.kind == "learning-curve" else {}
    for kind, names in [*_OWN.items(), *masks.items()]:
        for name in names:
            if kind != args.kind and args[name].present:
                raise ConfigError(
                    f"--{name} has no effect on {args.kind}, expected it with `liverjax study {kind}`"
                )
    for name in _MASKS if args.kind == "learning-curve" else ():
        if args[name].present:
            raise ConfigError(
                f"--{name} has no effect on learning-curve, expected it with `liverjax study observers`"
            )
    for name in _NEEDED[args.kind]:
        if not args[name].value:
            raise ConfigError(
                f"--{name} is missing, expected {_EXPECTED.get(name, f'masks, as --{name}=FOLDER')}"
            )


def settings(args: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of a study of masks that the flags state, beside the values of the masks."""
    shared = ("output", "region", "scans", "cases", "seed", "quiet")
    return {name: args[name].value for name in (*_OWN[args.kind], *shared)}
