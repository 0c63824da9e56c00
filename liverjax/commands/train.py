"""Train the networks of the three views, or resume.

  liverjax train --config=mr_liver:small --store=STORE --workdir=RUN --max_minutes=20

Running the same command again goes on where the last one stopped. SIGTERM and SIGINT (Ctrl-C) save first
and exit with status 75. Started once for each GPU or host of a cluster, the processes train together.
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("config", None, "NAME:arg or FILE.py:arg", flag_values=values)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.DEFINE_string("store", None, "folder that `liverjax prepare` wrote", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_list("views", None, "views to train (default: all of the config)", flag_values=values)
    flags.DEFINE_float("max_minutes", None, "minutes in all, shared by the views", flag_values=values)
    flags.DEFINE_enum(
        "resume", "auto", ["auto", "force"], "force: go on with another config or store", flag_values=values
    )
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "off"],
        "auto: train together with the processes that SLURM, GKE, Cloud TPU or JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID tell of",
        flag_values=values,
    )
    flags.DEFINE_bool("quiet", False, "no progress bars", flag_values=values)
    flags.mark_flags_as_required(["config", "store", "workdir"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.config import load_config, override, resolve
    from liverjax.training.hosts import is_first_process, joined
    from liverjax.training.loop import train

    config = load_config(args.config)
    config.store = args.store
    if args.views:
        config.views = tuple(args.views)
    if args.max_minutes is not None:
        config.max_minutes = args.max_minutes
    config = resolve(override(config, args.override))
    with joined(args.distributed):
        results = train(config, args.workdir, resume=args.resume, quiet=args.quiet)
    if not args.quiet and is_first_process():
        for view, progress in results.items():
            print(
                f"{view}: best validation Dice {progress.best_dice:.3f} at step {progress.best_step} "
                f"of {progress.end_step}, {progress.seconds / 60:.1f} min"
            )
