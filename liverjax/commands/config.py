"""Print a config field by field, with what each means.

  liverjax config mr_liver:small
  liverjax config my.py --config.model.dropout=0.2

A star marks what differs from the default, which stands behind it. Any field is changed by --config.FIELD=VALUE, here
and in the commands that take a config.
"""

from absl import flags

#: The flag that the command's first word sets.
POSITIONAL = "config"


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "config", None, "NAME:arg or FILE.py:arg; may be typed without --config=", flag_values=values
    )
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.mark_flags_as_required(["config"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.config import describe, load_config, override

    print(describe(override(load_config(args.config), args.override)))
