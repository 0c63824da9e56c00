"""Turn a folder of scans and masks into a store for training.

  liverjax prepare -i DATASET -o STORE --config=mr_liver:small [--preview]

The scans are resampled to the config's grid and written as slices of each view; with --config.target.region=reference
the box around the liver alone. Cases that are in the store already are kept, and damaged ones made again: the same call
continues an interrupted one. --preview also writes STORE/preview/VIEW.png: slices with their labels, and their
augmentations by the config.
"""

from absl import flags

from liverjax.commands import reading


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("input", None, "folder of scans and masks", short_name="i", flag_values=values)
    flags.DEFINE_string("output", None, "folder of the store", short_name="o", flag_values=values)
    flags.DEFINE_string("config", None, "NAME:arg or FILE.py:arg", flag_values=values)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.DEFINE_string(
        "layout", "auto", "how the folder is laid out: auto, plain, nnunet, ...", flag_values=values
    )
    reading.define(values)
    flags.DEFINE_bool("preview", False, "write pictures of augmented slices", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no progress bar", flag_values=values)
    flags.mark_flags_as_required(["input", "output", "config"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.config import load_config, override
    from liverjax.data.store import prepare

    config = override(load_config(args.config), args.override)
    store = prepare(
        args.input, args.output, config, layout=args.layout, reading=reading.reading(args), quiet=args.quiet
    )
    if not args.quiet:
        spacing, region = " x ".join(map(str, config.preprocess.spacing)), config.target.region
        print(f"{args.output}: {len(store.cases)} cases at {spacing} mm, region {region}")
    if args.preview:
        from liverjax.data.preview import augmented_slices
        from liverjax.report.figures import contact_sheet

        for view in config.views:
            sheet = augmented_slices(store.cases, view, config)
            path = store.folder / "preview" / f"{view}.png"
            contact_sheet(
                sheet.images, sheet.labels, sheet.rows, sheet.columns, path, view=view, title=sheet.title
            )
            if not args.quiet:
                print(path)
