"""Train the networks of the three views, or resume.

  liverjax train --config=mr_liver:small --store=STORE --workdir=RUN --max_minutes=20

Running the same command again continues where the last one stopped. SIGTERM and SIGINT (Ctrl-C) save first
and exit with status 75. Started once for each GPU or host of a cluster, the processes train together.
With --init a new run starts from the networks of a trained model; what does not fit starts at random.
"""

from typing import Any

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("config", None, "NAME:arg or FILE.py:arg", **on)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", **on)
    flags.DEFINE_string("store", None, "folder that `liverjax prepare` wrote", **on)
    flags.DEFINE_string("workdir", None, "folder of the run", **on)
    flags.DEFINE_string("init", None, "model to start from: run, bundle, or shipped model", **on)
    flags.DEFINE_list("views", None, "views to train (default: all of the config)", **on)
    flags.DEFINE_float("max_minutes", None, "minutes in all, shared by the views", **on)
    flags.DEFINE_enum(
        "resume", "auto", ["auto", "force"], "force: continue with another config or store", **on
    )
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "off"],
        "auto: train together with the processes named by SLURM, GKE, Cloud TPU or JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID",
        **on,
    )
    flags.DEFINE_bool("quiet", False, "print errors only", **on)
    flags.mark_flags_as_required(["config", "store", "workdir"], **on)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.signals import StopSignals

    with StopSignals():  # From here on: importing jax and joining other processes take long.
        _run(args)


def _run(args: flags.FlagValues) -> None:
    from liverjax.config import load_config, override
    from liverjax.files import local_path
    from liverjax.pretrained.load import load_segmenter
    from liverjax.training.distributed import initialize_distributed, is_first_process
    from liverjax.training.loop import train

    config = load_config(args.config)
    config.store = args.store
    if args.views:
        config.views = tuple(args.views)
    if args.max_minutes is not None:
        config.max_minutes = args.max_minutes
    config, workdir = override(config, args.override), local_path(args.workdir, "--workdir")
    with initialize_distributed(args.distributed):
        init = None
        if args.init:
            model = load_segmenter(args.init)
            views = {name: view for name in config.networks for view in config.views_of(name)[:1]}
            init = {
                name: model.trained(view)[1] for name, view in views.items() if view in model.config.views
            }
        results = train(config, workdir, init=init, resume=args.resume, quiet=args.quiet)
    if not args.quiet and is_first_process():
        # Of tumours in boxes detection counts as well (`training.validation`).
        score = "score" if config.finds_lesions else "Dice"
        for view, progress in results.items():
            print(
                f"{view}: best validation {score} {progress.best_dice:.3f} at step {progress.best_step} "
                f"of {progress.end_step}, {progress.seconds / 60:.1f} min"
            )
