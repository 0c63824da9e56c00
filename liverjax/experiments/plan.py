"""An ablation as a plan: which trainings, predictions and scores its variants need, each once.

What is the same is shared: folders are named by what their content depends on. Variants that differ only in the
prediction (``predict.*``, fewer ``views``) share a training, variants of the same grid and region share a store, and
ablations in one work folder share whatever they have in common, above all their baseline.

    WORKDIR/data.json                                    checksums of the data set's files
    WORKDIR/stores/<key>/                                a store
    WORKDIR/runs/<key>/                                  a training
    WORKDIR/runs/<key>/predictions/<key>/                masks of its test cases
    WORKDIR/runs/<key>/predictions/<key>/scores/METRIC/  and their scores
    WORKDIR/ablations/<name>/                            table, plots, list of trials
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from liverjax import __version__
from liverjax.config import assignments, load_config, override, resolve, to_dict
from liverjax.data.splits import split_cases, usable_cases
from liverjax.data.store import store_identity
from liverjax.datasets.layouts import Case, find_cases
from liverjax.errors import ConfigError
from liverjax.experiments.ablation import Ablation, load_ablation
from liverjax.experiments.runner import Command
from liverjax.files import local_path, sha256, write_json
from liverjax.options import FIELDS_FREE_ON_RESUME, Config, Predict
from liverjax.own import own_functions
from liverjax.scoring import metrics
from liverjax.views import VIEWS


@dataclasses.dataclass(frozen=True)
class Trial:
    """One variant with one fold and one seed.

    Attributes:
      variant: its name.
      fold: which fold is tested.
      seed: of the training.
      config: all values.
      store: folder of the store.
      training: folder of the training.
      masks: folder of the predictions.
      scores: folder of their scores.
      test: ids of the cases that are predicted and scored.
    """

    variant: str
    fold: int
    seed: int
    config: Config
    store: pathlib.Path
    training: pathlib.Path
    masks: pathlib.Path
    scores: pathlib.Path
    test: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All trials of an ablation, and the commands that run them.

    Attributes:
      name: of the ablation.
      title: what it varies.
      overrides: what all variants have in common, beside the config.
      spec: the config that is varied, as ``--config`` takes it.
      base: its values before any override.
      dataset: folder of scans and masks.
      fingerprint: what stands for the content of the data set.
      workdir: folder for everything.
      metric: by which variants are compared.
      patients: patient of each case.
      variants: names, the baseline first.
      trials: every variant with every fold and seed.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    spec: str
    base: Config
    dataset: pathlib.Path
    fingerprint: str
    workdir: pathlib.Path
    metric: str
    patients: dict[str, str]
    variants: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the table."""
        return self.workdir / "ablations" / self.name

    def describe(self) -> str:
        """Returns in a line what is varied, and on which data."""
        seeds, folds = ({getattr(trial, name) for trial in self.trials} for name in ("seed", "fold"))
        words = " ".join([f"--config={self.spec}", *(f"--config.{text}" for text in self.overrides)])
        return f"{self.title} {words}; folds x seeds: {len(folds)} x {len(seeds)}; data: {self.dataset.name}."

    def chains(self) -> list[tuple[Command, ...]]:
        """Returns for each training the commands from store to scores, to be run in order.

        Chains can run at the same time; several may begin with the same command, which makes the store they share.
        """
        groups: dict[pathlib.Path, list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(trial.training, []).append(trial)
        return [tuple(dict.fromkeys(self._chain(trials))) for trials in groups.values()]

    def commands(self) -> list[Command]:
        """Returns the commands of all chains, each once."""
        return list(dict.fromkeys(command for chain in self.chains() for command in chain))

    def _chain(self, trials: Sequence[Trial]) -> list[Command]:
        first, command = trials[0], functools.partial(Command, inputs=self.fingerprint)
        # The training keeps the default prediction, whatever the variants that share it; padded so that its levels fit.
        default = Predict(bucket=max(Predict().bucket, 2 ** (len(first.config.model.features) - 1)))
        trained = dataclasses.replace(
            first.config, views=self.base.views, store=self.base.store, predict=default
        )
        views = [view for view in VIEWS if any(view in trial.config.views for trial in trials)]
        changed = [f"--config.{text}" for text in assignments(self.base, trained)]
        identity = store_identity(first.config.preprocess, first.config.target)
        stored = [text for text in changed if text.removeprefix("--config.").partition("=")[0] in identity]
        config, data = f"--config={self.spec}", f"--input={self.dataset}"
        spacing = f"{' x '.join(map(str, first.config.preprocess.spacing))} mm"
        prepare = ("prepare", data, f"--output={first.store}", config, *stored)
        places = (f"--store={first.store}", f"--workdir={first.training}", f"--views={','.join(views)}")
        train = ("train", config, *changed, *places)
        chain = [command(prepare, first.store, spacing), command(train, first.training, _title(trials))]
        for trial in trials:
            options = [f"--config.predict.{text}" for text in assignments(default, trial.config.predict)]
            model = (f"--model={trial.training}", f"--views={','.join(trial.config.views)}", *options)
            output = (f"--output={trial.masks}", "--subset=test", "--skip_existing")
            chain.append(command(("predict", *model, data, *output), trial.masks, _title([trial])))
            places = (f"--predictions={trial.masks}", f"--references={self.dataset}")
            chosen = (
                f"--output={trial.scores}",
                f"--cases={','.join(trial.test)}",
                f"--metrics={self.metric}",
                f"--regions={'liver,tumor' if 'tumor' in trial.config.labels else 'liver'}",
            )
            chain.append(command(("evaluate", *places, *chosen), trial.scores, _title([trial])))
        return chain


def plan_sweep(
    ablation: str | Ablation,
    spec: str,
    dataset: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    seeds: int = 1,
    folds: Sequence[int | str] = (),
    metric: str = "dice",
    overrides: Sequence[str] = (),
) -> Sweep:
    """Returns what an ablation runs. Nothing is started, and everything is checked.

    Files of the data set are read whole where their checksum is not known yet.

    Args:
      ablation: name of a function of ``configs/ablations.py``, or ``FILE.py:name``, or an ablation itself. It is asked
        anew for each fold and seed, and must give the same names.
      spec: the config that is varied, as for `liverjax.config.load_config`.
      dataset: folder of scans and masks.
      workdir: folder for everything; several ablations of one data set may share it, and their common trials.
      seeds: number of seeds, from the config's own upwards.
      folds: the folds of the split, by default only the config's own. The test cases of each are scored.
      metric: by which variants are compared, one of `liverjax.scoring`.
      overrides: other values of fields, for all variants.

    Raises:
      ConfigError: an ablation, field or value that does not exist or does not fit.
      InputError: the data set cannot be used, or there is no such metric.
    """
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}, expected 1 or more")
    metrics.metric(metric)
    if not metrics.is_tested(metric):
        raise ConfigError(f"metric is {metric!r}, expected one of which it is known whether more is better")
    dataset, workdir = local_path(dataset, "dataset").resolve(), local_path(workdir, "workdir").resolve()
    file, colon, argument = spec.partition(":")
    spec = f"{pathlib.Path(file).resolve() if file.endswith('.py') else file}{colon}{argument}"
    base = resolve(load_config(spec))
    config = override(base, overrides)
    varied = load_ablation(ablation) if isinstance(ablation, str) else ablation
    variants = varied.variants(config)
    if config.split.test_cases and len(folds) > 1:
        raise ConfigError(
            f"folds are {folds}, but split.test_cases names the test cases of all; expected one of the two"
        )
    configs = [
        (name, _checked(override(base, [*overrides, f"split.fold={fold}", f"seed={seed}", *changes])))
        for seed in range(config.seed, config.seed + seeds)
        for fold in dict.fromkeys(folds or (config.split.fold,))
        for name, changes in varied.variants(
            override(base, [*overrides, f"split.fold={fold}", f"seed={seed}"])
        ).items()
    ]
    cases = find_cases(dataset, labelled=True)

    @functools.cache
    def test_cases(labels, split, seed) -> tuple[str, ...]:
        test = split_cases(usable_cases(cases, labels), split, seed).test
        if not test:
            raise ConfigError(f"split.fold is {split.fold}: no case is held out, expected one to be scored")
        return tuple(case.id for case in test)

    tested = [test_cases(config.labels, config.split, config.seed) for _, config in configs]
    fingerprint = _fingerprint(cases, workdir / "data.json")

    def trial(variant: str, config: Config, test: tuple[str, ...]) -> Trial:
        # A store is brought up to date in place; a training of other data, or by another version, is another one.
        store = workdir / "stores" / _key(store_identity(config.preprocess, config.target), str(dataset))
        training = workdir / "runs" / _key(_training_fields(config), fingerprint, __version__)
        masks = training / "predictions" / _key(to_dict(config.predict), config.views)
        scores = masks / "scores" / metric
        return Trial(variant, config.split.fold, config.seed, config, store, training, masks, scores, test)

    return Sweep(
        name=varied.name,
        title=varied.title,
        overrides=tuple(overrides),
        spec=spec,
        base=base,
        dataset=dataset,
        fingerprint=fingerprint,
        workdir=workdir,
        metric=metric,
        patients={case.id: case.patient for case in cases},
        variants=tuple(variants),
        trials=tuple(trial(*named, test) for named, test in zip(configs, tested, strict=True)),
    )


def training_patients(cases: Sequence[Case], config: Config) -> int:
    """Returns how many patients there are to train a config with, whatever its `split.train_share`."""
    whole = dataclasses.replace(config.split, train_share=1.0)
    train = split_cases(usable_cases(cases, config.labels), whole, config.seed).train
    return len({case.patient for case in train})


def _checked(config: Config) -> Config:
    if config.predict.fusion == "weighted":
        raise ConfigError(
            "predict.fusion is 'weighted': its weights are fitted by `liverjax calibrate` to one run, which a "
            "sweep does not do; expected 'mean' or 'majority'"
        )
    return config


def _training_fields(config: Config) -> dict[str, Any]:
    """Returns what a training depends on, as JSON takes it."""
    fields = to_dict(config)
    own = own_functions(config)
    for group in ("loss", "augment"):
        # Another file is another training, the same in another place is not; and none is what it was before there were.
        del fields[group]["own"]
        if one := own.get(f"{group}.own"):
            fields[group]["own"] = (one.name, one.sha256)
    for path in FIELDS_FREE_ON_RESUME:
        *groups, name = path.split(".")
        del functools.reduce(dict.__getitem__, groups, fields)[name]
    if config.max_minutes or config.model.shared:
        # Views share a time limit, so that fewer of them train longer; and a shared network, which then sees others.
        fields |= {"max_minutes": config.max_minutes, "views": config.views}
    return fields


def _key(*values: object) -> str:
    """Returns twelve letters and digits that stand for values as JSON takes them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _fingerprint(cases: Sequence[Case], record: pathlib.Path) -> str:
    """Returns what stands for the cases of a data set: their files' content and what is known of them, not their place.

    Args:
      cases: all of them.
      record: JSON file of checksums by file, with sizes and times of change, so that a file is read once.
    """
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = {}
    known = dict(before)

    def checksum(path: pathlib.Path) -> str:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        state = _key([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        if known.get(str(path), [""])[0] != state:
            known[str(path)] = [state, sha256(path)]
        return known[str(path)][1]

    # Whatever paths a case has, JSON asks for what they are.
    facts = json.dumps([dataclasses.asdict(case) for case in cases], default=checksum)
    if known != before:
        write_json(record, known)
    return hashlib.sha256(facts.encode()).hexdigest()


def _title(trials: Sequence[Trial]) -> str:
    return f"{', '.join(trial.variant for trial in trials)} (fold {trials[0].fold}, seed {trials[0].seed})"
