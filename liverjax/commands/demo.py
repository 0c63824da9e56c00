"""Run everything on phantoms: scans, store, three networks, masks, scores, a report.

  liverjax demo -o demo_output

Makes synthetic abdomens, trains a small network per view, segments the held-out ones, scores them, and writes
report.html with pictures: some minutes on two CPU cores. At the end a model that comes with the library, trained on
real scans alone, segments one of them too. The same command resumes after a stop.
"""

from absl import flags

_PATIENTS = range(16)
_SCANNER = {"shape": (96, 80, 72), "spacing": (4.0, 4.0, 4.0)}


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("output", "demo_output", "folder for everything", short_name="o", flag_values=values)
    flags.DEFINE_multi_string("override", [], "another value for a field of the config", flag_values=values)
    flags.DEFINE_bool("quiet", False, "no progress bars, no table", flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.checkpoint.restarts import kept_folders
    from liverjax.config import load_config, override
    from liverjax.data.store import prepare
    from liverjax.datasets.layouts import find_cases
    from liverjax.datasets.phantom import write_dataset
    from liverjax.inference.predict import predict_cases
    from liverjax.pretrained.load import load_model
    from liverjax.pretrained.registry import best_for
    from liverjax.report.evaluation import evaluation_report
    from liverjax.scoring.cohort import evaluate
    from liverjax.scoring.summary import make_folder
    from liverjax.training.logs import read_log
    from liverjax.training.loop import train

    folder = make_folder(args.output)
    config = load_config("demo")
    config.store = str(folder / "store")
    config = override(config, args.override)
    if not (folder / "scans" / "dataset.json").exists():
        write_dataset(folder / "scans", _PATIENTS, **_SCANNER)
    prepare(folder / "scans", config.store, config, quiet=args.quiet)
    train(config, folder / "run", quiet=args.quiet)

    model = load_model(folder / "run")
    held_out = [case for case in find_cases(folder / "scans") if case.id in model.subsets["test"]]
    for outcome in predict_cases(model, held_out, folder / "masks"):
        if outcome.error:
            raise outcome.error
    best = {name: kept_folders(folder / "run" / name, config.train.restarts)[0] for name in config.networks}
    scores = evaluate(
        folder / "masks", folder / "scans", folder / "scores", cases=model.subsets["test"], quiet=args.quiet
    )
    rows = scores.report_rows()
    rows["facts"] = {"Model": f"run {folder / 'run'}", **rows["facts"]}
    report = evaluation_report(
        folder / "report.html",
        "liverjax demo: held-out phantoms",
        curves={view: read_log(start / "log.jsonl") for view, start in best.items()},
        **rows,
    )
    if not args.quiet:
        print(f"{scores.table()}\nreport: {report}")
    shipped, one = best_for("ct"), held_out[:1]
    for outcome in predict_cases(load_model(shipped), one, folder / "shipped"):
        if outcome.error:
            raise outcome.error
    places = folder / "shipped", folder / "scans", folder / "shipped_scores"
    found = evaluate(*places, cases=[one[0].id], regions=["liver"], metrics=["dice"], quiet=True)
    if not args.quiet:
        dice = found.summary["scores"]["liver"]["dice_per_case"]
        print(f"shipped model {shipped}, trained on real scans alone: liver Dice {dice:.3f} of {one[0].id}")
