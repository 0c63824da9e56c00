"""What the help and the completion of a command say of its flags."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absl import flags

_PACKAGE = pathlib.Path(__file__).parent.parent


def listed(values: flags.FlagValues) -> list[flags.Flag]:
    """Returns the flags in the order in which they were defined, without --override, which --config.FIELD sets."""
    # A short name stands beside its flag.
    return [values[name] for name in values if values[name].name == name != "override"]


def is_required(flag: flags.Flag) -> bool:
    """Returns whether a command does not run without this flag."""
    return any("must have a value other than None" in check.message for check in flag.validators)


def meaning(flag: flags.Flag) -> str:
    """Returns what a flag means, in a line."""
    return (flag.help or "").partition(";\n    repeat this option")[0]


def text(values: flags.FlagValues) -> str:
    """Returns the lines of help: required flags first, in the order in which they were defined, then the others."""
    required, others = [], []
    if "override" in values:
        others.append(f"  --config.FIELD=VALUE: {meaning(values['override'])}")
    for flag in listed(values):
        short = f", -{flag.short_name}" if flag.short_name else ""
        facts = "required" if is_required(flag) else ""
        facts = facts or (f"default: {flag.default}" if flag.default not in (None, "", False, []) else "")
        lines = required if is_required(flag) else others
        lines.append(f"  --{flag.name}{short}: {meaning(flag)}{f' ({facts})' if facts else ''}")
        if flag.name == "config":
            lines.append(
                f"      NAME is one of {', '.join(configs())}; the arg small is known to all but demo"
            )
    blocks = ["\n".join(["Required flags:", *required])] if required else []
    return "\n\n".join([*blocks, "\n".join(["Other flags:" if required else "Flags:", *others])])


def configs() -> list[str]:
    """Returns the names of the shipped configs; `liverjax.config` would import more than help should."""
    folder = _PACKAGE / "_configs" if (_PACKAGE / "_configs").is_dir() else _PACKAGE.parent / "configs"
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "ablations")


def models() -> list[str]:
    """Returns the names of the shipped models; their registry imports jax."""
    return sorted(file.stem for file in (_PACKAGE / "pretrained" / "shipped").glob("*.safetensors"))
