"""Turn a folder of scans and masks into a store for training.

  liverjax prepare -i DATASET -o STORE --config=mr_liver:small

The scans are resampled to the config's grid and written as slices of each view. Cases that are in the
store already are kept, so that an interrupted call goes on.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("input", None, "folder of scans and masks", short_name="i", flag_values=values)
    flags.DEFINE_string("output", None, "folder of the store", short_name="o", flag_values=values)
    flags.DEFINE_string("config", None, "NAME:arg or FILE.py:arg", flag_values=values)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.DEFINE_string(
        "layout", "auto", "how the folder is laid out: auto, plain, nnunet, ...", flag_values=values
    )
    flags.DEFINE_string("phase", None, "of 4D scans, the phase: an index from 0, or last", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no progress bar", flag_values=values)
    flags.mark_flags_as_required(["input", "output", "config"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.config import load_config, override, resolve
    from liverjax.data.store import prepare

    config = resolve(override(load_config(args.config), args.override))
    store = prepare(args.input, args.output, config, layout=args.layout, phase=args.phase, quiet=args.quiet)
    if not args.quiet:
        print(
            f"{args.output}: {len(store.cases)} cases at {' x '.join(map(str, config.preprocess.spacing))} mm"
        )
