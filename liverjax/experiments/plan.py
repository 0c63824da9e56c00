"""An ablation as a plan: which trainings, predictions and scores its variants need, each once.

What is the same is shared: runs lie in folders named by what their training depends on. Variants that differ in the
prediction alone (``predict.*``, fewer ``views``) share one training, those of the same preprocessing one store, and
ablations in one work folder whatever they have in common, their baseline above all.

    WORKDIR/stores/<key>/                       a store
    WORKDIR/runs/<key>/                         a training
    WORKDIR/runs/<key>/predictions/<key>/       masks of its test cases, and scores/
    WORKDIR/ablations/<name>/                   table, plot, list of runs
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

from liverjax.config import assignments, load_ablation, load_config, override, resolve, to_dict
from liverjax.data.splits import split_cases, usable_cases
from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError
from liverjax.experiments.runner import Command
from liverjax.options import FIELDS_FREE_ON_RESUME, Config, Predict
from liverjax.views import VIEWS


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant with one fold and seed.

    Attributes:
      variant: its name.
      fold: which fold is tested.
      seed: of the training.
      config: all values.
      store: folder of the store.
      training: folder of the training.
      masks: folder of the predictions.
      test: ids of the cases that are predicted and scored.
    """

    variant: str
    fold: int
    seed: int
    config: Config
    store: pathlib.Path
    training: pathlib.Path
    masks: pathlib.Path
    test: tuple[str, ...]

    @property
    def scores(self) -> pathlib.Path:
        """Folder of the scores."""
        return self.masks / "scores"


@dataclasses.dataclass(frozen=True)
class Study:
    """What an ablation runs.

    Attributes:
      name: of the ablation.
      about: what it varies, its docstring's first line.
      overrides: what all variants have in common, beside the config.
      spec: the config that is varied, as ``--config`` takes it.
      base: its values before any override.
      dataset: folder of scans and masks.
      workdir: folder for everything.
      patients: patient of each case.
      variants: names, the baseline first.
      runs: every variant with every fold and seed.
    """

    name: str
    about: str
    overrides: tuple[str, ...]
    spec: str
    base: Config
    dataset: pathlib.Path
    workdir: pathlib.Path
    patients: dict[str, str]
    variants: tuple[str, ...]
    runs: tuple[Run, ...]

    def __str__(self) -> str:
        seeds, folds = ({getattr(run, name) for run in self.runs} for name in ("seed", "fold"))
        words = " ".join([f"--config={self.spec}", *(f"--config.{text}" for text in self.overrides)])
        return f"{self.about} {words}; {len(folds)} x {len(seeds)} folds and seeds of {self.dataset.name}."

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the table."""
        return self.workdir / "ablations" / self.name

    def units(self) -> list[tuple[Command, ...]]:
        """Returns for each training the commands from store to scores, to be run in order.

        Units can run at the same time; they may begin with the same command, that of a shared store.
        """
        groups: dict[pathlib.Path, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.training, []).append(run)
        return [tuple(dict.fromkeys(self._commands(runs))) for runs in groups.values()]

    def commands(self) -> list[Command]:
        """Returns the commands of all units, each once."""
        return list(dict.fromkeys(command for unit in self.units() for command in unit))

    def _commands(self, runs: Sequence[Run]) -> list[Command]:
        first = runs[0]
        # The run itself keeps the default prediction, whatever the variants that share it.
        trained = dataclasses.replace(
            first.config, views=self.base.views, store=self.base.store, predict=Predict()
        )
        views = [view for view in VIEWS if any(view in run.config.views for run in runs)]
        changed = [f"--config.{text}" for text in assignments(self.base, trained)]
        stored = [text for text in changed if text.startswith("--config.preprocess.")]
        config = f"--config={self.spec}"
        prepare = ("prepare", f"--input={self.dataset}", f"--output={first.store}", config, *stored)
        places = (f"--store={first.store}", f"--workdir={first.training}", f"--views={','.join(views)}")
        train = ("train", config, *changed, *places)
        title = _title(runs)
        of_store = f"{' x '.join(map(str, first.config.preprocess.spacing))} mm"
        commands = [Command(prepare, first.store, of_store), Command(train, first.training, title)]
        for run in runs:
            title = _title([run])
            options = [f"--config.predict.{text}" for text in assignments(Predict(), run.config.predict)]
            model = (f"--model={run.training}", f"--views={','.join(run.config.views)}", *options)
            places = (f"--input={self.dataset}", f"--output={run.masks}", "--subset=test", "--skip_existing")
            commands.append(Command(("predict", *model, *places), run.masks, title))
            places = (f"--predictions={run.masks}", f"--references={self.dataset}", f"--output={run.scores}")
            chosen = (f"--cases={','.join(run.test)}", "--metrics=dice")
            commands.append(Command(("evaluate", *places, *chosen), run.masks, title))
        return commands


def plan(
    ablation: str,
    spec: str,
    dataset: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    seeds: int = 1,
    folds: Sequence[int | str] = (),
    overrides: Sequence[str] = (),
) -> Study:
    """Returns what an ablation runs. Nothing is started, and everything is checked.

    Args:
      ablation: name of a function of ``configs/ablations.py``, or ``FILE.py:name``.
      spec: the config that is varied, as for `liverjax.config.load_config`.
      dataset: folder of scans and masks.
      workdir: folder for everything; several ablations of one data set may share it, and their common runs.
      seeds: number of seeds, from the config's own upwards.
      folds: the folds of the split; by default the config's own alone. The test part of each is scored.
      overrides: other values of fields, for all variants.

    Raises:
      ConfigError: an ablation, field or value that does not exist or does not fit.
      InputError: the data set cannot be used.
    """
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}, expected 1 or more")
    dataset, workdir = pathlib.Path(dataset).resolve(), pathlib.Path(workdir).resolve()
    file, colon, argument = spec.partition(":")
    spec = f"{pathlib.Path(file).resolve() if file.endswith('.py') else file}{colon}{argument}"
    template = load_config(spec)
    base = resolve(template)
    config = resolve(override(template, overrides))
    vary = load_ablation(ablation)
    variants = dict(vary(config))
    if not variants:
        raise ConfigError(f"the ablation {ablation!r} yields no variants, expected two or more")
    if config.split.test_cases and len(folds) > 1:
        raise ConfigError(
            f"folds are {folds}, but split.test_cases names the test part of all; expected one of the two"
        )
    wanted = [
        (name, [*overrides, f"split.fold={fold}", f"seed={seed}", *changes])
        for seed in range(config.seed, config.seed + seeds)
        for fold in dict.fromkeys(folds or (config.split.fold,))
        for name, changes in variants.items()
    ]
    checked = [(name, _checked(override(template, texts))) for name, texts in wanted]
    cases = find_cases(dataset, labelled=True)

    @functools.cache
    def test_part(labels, split, seed):
        test = split_cases(usable_cases(cases, labels), split, seed).test
        if not test:
            raise ConfigError(f"split.fold is {split.fold}: no case is held out, expected one to be scored")
        return tuple(case.id for case in test)

    def run(variant: str, config: Config) -> Run:
        store = workdir / "stores" / _key(config.preprocess, str(dataset))
        training = workdir / "runs" / _key(_training_fields(config), store.name)
        masks = training / "predictions" / _key(config.predict, *config.views)
        test = test_part(config.labels, config.split, config.seed)
        return Run(variant, config.split.fold, config.seed, config, store, training, masks, test)

    return Study(
        name=ablation.rpartition(":")[2],
        about=(vary.__doc__ or "").strip().partition("\n")[0],
        overrides=tuple(overrides),
        spec=spec,
        base=base,
        dataset=dataset,
        workdir=workdir,
        patients={case.id: case.patient for case in cases},
        variants=tuple(variants),
        runs=tuple(run(variant, config) for variant, config in checked),
    )


def _checked(config) -> Config:
    config = resolve(config)
    if config.predict.fusion == "weighted":
        raise ConfigError(
            "predict.fusion is 'weighted': its weights are fitted by `liverjax calibrate` to one run, which a "
            "sweep does not do; expected 'mean' or 'majority'"
        )
    return config


def _training_fields(config: Config) -> dict:
    """Returns what a training depends on, as JSON takes it."""
    fields = to_dict(config)
    for path in FIELDS_FREE_ON_RESUME:
        *groups, name = path.split(".")
        del functools.reduce(dict.__getitem__, groups, fields)[name]
    if config.max_minutes or config.model.shared:
        # A time limit is shared by the views, so that fewer of them train longer; a network, so that it sees others.
        fields |= {"max_minutes": config.max_minutes, "views": config.views}
    return fields


def _key(*values: object) -> str:
    """Returns twelve letters and digits that stand for values as JSON takes them, and for option dataclasses."""
    plain = [dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value for value in values]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _title(runs: Sequence[Run]) -> str:
    return f"{', '.join(run.variant for run in runs)}; fold {runs[0].fold}, seed {runs[0].seed}"
