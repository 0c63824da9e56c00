"""Every command with every kind of wrong input: one line that names the flag or file, a status, and nothing written.

The commands and their flags are those of the program itself: a new one fails here until a row says what it takes.
"""

import importlib
import os
import re
import shutil
import tempfile

import numpy as np
import pytest
from absl import flags

from liverjax.commands import plan_flags
from liverjax.commands.dispatch import COMMANDS, main
from liverjax.scans import nifti
from liverjax.volume import Volume

#: What is right, so that one flag at a time can be wrong; paths lie in the folder `world`.
RIGHT: dict[str, dict[str, str]] = {
    "demo": {"output": "out"},
    "config": {"config": "demo"},
    "check": {"input": "scans"},
    "prepare": {"input": "scans", "output": "out", "config": "small.py"},
    "train": {"config": "small.py", "store": "store", "workdir": "out"},
    "predict": {"model": "run", "input": "scans", "output": "out"},
    "convert": {"input": "lesion.nii.gz", "scan": "series", "output": "out.dcm"},
    "view": {"show": "scans"},
    "models": {"name": "any_liver"},
    "completion": {"shell": "bash"},
    "evaluate": {"predictions": "scans/labelsTr", "references": "scans", "output": "out"},
    "calibrate": {"workdir": "run", "input": "scans"},
    "quality": {"models": "run", "input": "scans"},
    "sweep": {"ablation": "norm", "config": "small.py", "dataset": "scans", "workdir": "out"},
    "bundle": {"workdir": "run", "output": "out.safetensors", "licence": "CC0-1.0"},
    "export": {"model": "run", "output": "out"},
    "bench": {"config": "small.py", "store": "store", "output": "out.json"},
    "plan": {"task": "volumetry", "input": "scans/labelsTr", "output": "out"},
    "plan volumetry": {"input": "lesion.nii.gz", "output": "out"},
    "plan sirt": {
        "input": "lesion.nii.gz",
        "output": "out",
        "microspheres": "resin",
        "lung_shunt": "0.05",
        "dose_gy": "60",
        "ratio": "3",
        "height_m": "1.7",
        "weight_kg": "60",
    },
    "recist": {"time_points": "lesion.nii.gz", "output": "out"},
    "train-filter": {"predictions": "predicted", "references": "scans", "output": "out"},
    "study": {"kind": "observers", "readers": "A=scans/labelsTr,B=scans/labelsTr", "output": "out"},
    "explain": {"task": "field", "model": "run", "input": "scans", "output": "out"},
}
#: Wrong values of these are tried where they are tested: they need a DICOM series or a browser, or are several.
ELSEWHERE = {"convert", "view", "study", "explain"}
_PATHS = ("missing", "missing/deep", "empty", "notes.txt", "pipe", "gs://bucket/x")
_DATA = (*_PATHS, "notes.nii.gz", "run", "store", "piped")
_MODEL = (*_PATHS, "notes.safetensors", "scans", "store", "piped")
_STORE = (*_PATHS, "scans", "run", "piped")
_RUN = (*_PATHS, "scans", "store", "piped")
_MASKS = (*_PATHS, "notes.nii.gz", "run")
_CONFIG = (*_PATHS, "no_config.py", "broken.py", "nonsense", "small.py/deep")
#: An output: below a file; in the place of a file, if it is a folder, or of a folder, if it is a file.
_FOLDER = ("notes.txt/out", "notes.txt", "gs://bucket/out")
_FILE = ("notes.txt/out", "empty", "gs://bucket/out")
_READING = {
    "phase": ("nonsense", "-1", "1.5", "nan"),
    "series": (),
    "spacing": ("1,2", "1,2,x", "0,1,1", "-1,1,1", "nan,1,1", "inf,1,1"),
}
_PLAN = {
    "input": _MASKS, "output": _FOLDER, "liver_labels": ("nonsense", "0", "256"),
    "tumor_labels": ("nonsense", "-1", "1.5"), "tumor_masks": _MASKS, "scans": _DATA,
    "calibration": (*_PATHS, "lesion.nii.gz", "run"),
}  # fmt: skip
#: Wrong values of each flag that takes text; those of the other flags follow from what they are.
WRONG = {
    "demo": {"output": _FOLDER},
    "config": {"config": _CONFIG},
    "check": {"input": _DATA, "layout": ("nonsense",), **_READING},
    "prepare": {
        "input": _DATA, "output": _FOLDER, "config": _CONFIG, "layout": ("nonsense",), "livers": _MASKS,
        **_READING,
    },
    "train": {
        "config": _CONFIG, "store": _STORE, "workdir": _FOLDER, "init": _MODEL,
        "views": ("nonsense", "axial,axial"),
    },
    "predict": {
        "model": _MODEL, "input": _DATA, "output": _FOLDER, "shard": ("nonsense", "0/2", "3/2", "-1/2", "nan/2"),
        "views": ("nonsense", "axial,axial"), "tumor_model": _MODEL, "lesion_filter": _MODEL, **_READING,
    },
    "models": {"name": ("nonsense", "run", "gs://bucket/x")},
    "evaluate": {
        "predictions": _MASKS, "references": _MASKS, "output": _FOLDER, "compare": _MASKS,
        "model": (*_RUN, "notes.safetensors"), "regions": ("nonsense",), "metrics": ("nonsense",),
        "cases": ("nonsense",), "primary": ("nonsense",),
    },
    "calibrate": {"workdir": _RUN, "input": _DATA, **_READING},
    "quality": {"models": (*_MODEL, "run,empty", "run,run", "run,scans/../run"), "input": _DATA, **_READING},
    "sweep": {
        "ablation": (*_PATHS, "nonsense", "no_config.py:norm", "broken.py:norm"), "config": _CONFIG,
        "dataset": _DATA, "workdir": _FOLDER, "folds": ("nonsense", "-2", "9", "nan"), "metric": ("nonsense",),
        "devices": (), "slurm": (), "task": ("nonsense", "-1", "999", "nan"),
    },
    "bundle": {
        "workdir": _RUN, "output": _FILE, "licence": (), "credit": (), "scores": (*_PATHS, "store/index.json"),
        "card": (*_PATHS, "store/index.json"), "held_out": ("missing", "near=missing"),
        "tumor_model": _MODEL, "lesion_filter": _MODEL,
    },
    "export": {"model": _MODEL, "output": _FOLDER},
    "bench": {"config": _CONFIG, "store": _STORE, "output": _FILE, "view": ("nonsense",)},
    "plan volumetry": {
        **_PLAN, "regions": (*_MASKS, "lesion.nii.gz,x"), "region_names": ("nonsense", "1=", "0=x", "1=a,1=b", "300=x"),
    },
    "plan sirt": {**_PLAN, "territory": _MASKS, "territory_labels": ("nonsense", "0", "256")},
    "recist": {
        "time_points": (*_MASKS, "lesion.nii.gz,missing", "lesion.nii.gz,empty"), "output": _FOLDER,
        "raters": (*_PATHS, "run", "notes.txt,notes.nii.gz", "lesion.nii.gz"), "scans": _DATA, "viable": _MASKS,
        "transforms": _PATHS, "dates": ("nonsense", "2024-13-01", "2024-01-01,2024-02-01"), "targets": (*_PATHS, "9"),
        "tumor_labels": ("nonsense", "0", "256", "-1", "9"), "elsewhere": (*_PATHS, "lesion.nii.gz"),
    },
    "train-filter": {
        "predictions": (*_PATHS, "run", "scans/labelsTr", "predicted,predicted"), "references": _DATA,
        "output": _FOLDER,
    },
}  # fmt: skip
#: `plan` is two commands; each flag belongs to one of its tasks, or to both.
_OTHER_TASK = {"plan volumetry": plan_flags.SIRT, "plan sirt": plan_flags.VOLUMETRY}
#: Flags that may be given without a value, and commands that take fields of a config.
MAY_BE_EMPTY = {"slurm", "folds", "devices", "credit"}
OVERRIDES = {"demo", "config", "prepare", "train", "predict", "sweep", "bench"}
#: Numbers that are right although 0.
_ZERO = {
    ("train", "max_minutes"), ("predict", "mc_samples"),
    *(("plan sirt", name) for name in ("lung_shunt", "residual", "previous_lung_gy")),
    *(("train-filter", name) for name in ("seed", "margin_mm", "threshold")),
    *(("recist", name) for name in ("near_mm", "too_small_mm", "new_mm", "error_mm", "bias_mm")),
    ("recist", "seed"), ("recist", "simulate_raters"),
    ("predict", "lesion_probability"), ("bundle", "lesion_probability"),
}  # fmt: skip
#: What is written all the same: the report on the scans that failed, and the checksums of a data set.
_WRITTEN = {
    ("predict", "input"): {"out", "out/manifest.json", "out/labels.json"},
    ("sweep", "task"): {"out", "out/data.json"},
}
_FIELDS = (
    "train.steps=-1", "train.steps=many", "train.learning_rate=nan", "train.nonsense=1", "train.steps",
    "preprocess.spacing=0,0,0", "split.folds=1", "=", "",
)  # fmt: skip


def _flags(command):
    """Flag name -> flag; those that override fields of a config have names of their own."""
    values = flags.FlagValues()
    module, _, task = command.partition(" ")
    importlib.import_module(f"liverjax.commands.{module.replace('-', '_')}").define(values)
    left_out = {"override", *(["task", *_OTHER_TASK[command]] if task else [])}
    return {name: values[name] for name in values if values[name].name == name and name not in left_out}


def _wrong(command, name, flag):
    if isinstance(flag, flags.EnumFlag):
        return ["nonsense", ""]
    if isinstance(flag, flags.BooleanFlag):
        return ["nonsense"]
    if isinstance(flag.parser, flags.IntegerParser | flags.FloatParser):
        return ["-1", "nan", "inf", "many", ""] + ["0"] * ((command, name) not in _ZERO)
    # A KeyError: the row of a new command or flag is missing.
    return [*WRONG[command][name], *([] if name in MAY_BE_EMPTY else [""])]


_CELLS = [
    (command, name, value)
    for command in [name for name in COMMANDS if name not in {"plan", *ELSEWHERE}] + list(_OTHER_TASK)
    for name, flag in _flags(command).items()
    for value in _wrong(command, name, flag)
]


@pytest.fixture(scope="module")
def world(phantom_scans, tiny_run, tiny_config, tmp_path_factory):
    """A folder with a data set, a run and a store, and what is none of them; no test may change it."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(phantom_scans, folder / "scans")
    shutil.copytree(tiny_run, folder / "run")
    shutil.copytree(tiny_config.store, folder / "store")
    for name in ("empty", "piped", "temporary"):
        (folder / name).mkdir()
    shutil.copytree(phantom_scans / "imagesTr", folder / "piped" / "imagesTr")
    for name in ("pipe", *(f"piped/{stem}.json" for stem in ("run", "index", "dataset", "cases"))):
        os.mkfifo(folder / name)
    for name in ("notes.txt", "notes.nii.gz", "notes.safetensors"):
        (folder / name).write_text("Notes on the scans.\n")
    _predicted(folder / "predicted", phantom_scans)
    lesion = np.ones((24, 24, 12), np.uint8)
    lesion[4:16, 4:16, 4:8] = 2
    nifti.write(folder / "lesion.nii.gz", Volume(lesion, np.diag([3.0, 3, 3, 1])))
    (folder / "no_config.py").write_text("")
    (folder / "broken.py").write_text("def get_config(arg=''):\n    return (\n")
    (folder / "small.py").write_text(_SMALL)
    return folder


def _predicted(folder, scans):
    """Masks with maps of the tumour's probability, as `predict --save_probabilities` writes them."""
    (folder / "probabilities").mkdir(parents=True)
    for path in sorted((scans / "labelsTr").iterdir()):
        shutil.copy(path, folder / path.name)
        mask = nifti.read_mask(path, labels=range(3))
        map = mask.with_voxels((mask.voxels == 2).astype(np.float32))
        nifti.write(folder / "probabilities" / path.name.replace(".nii.gz", "_tumor.nii.gz"), map)


_SMALL = """
from liverjax.config import default_config

def get_config(arg):
    config = default_config()
    config.preprocess.spacing = (8.0, 8.0, 8.0)
    config.target.labels = ("background", "liver", "tumor")
    return config
"""


def _tree(folder):
    """Every file with the time of its last change, and every folder."""
    places = folder.rglob("*")
    return {
        str(place.relative_to(folder)): not place.is_dir() and place.lstat().st_mtime_ns for place in places
    }


@pytest.fixture
def call(world, monkeypatch, capsys):
    """Function that calls a command in the world: status, output, errors, and the files that are new or changed."""
    monkeypatch.chdir(world)
    monkeypatch.setattr(tempfile, "tempdir", str(world / "temporary"))

    def called(command, *words):
        before = _tree(world)
        status = main([*command.split(), *words])
        after = _tree(world)
        changed = {name for name in after if after[name] != before.get(name)}
        for name in sorted(after.keys() - before.keys(), reverse=True):
            (os.rmdir if os.path.isdir(name) else os.unlink)(name)
        return status, *capsys.readouterr(), changed

    return called


def _words(command, right):
    """The command's words, of which the wrong one is the last."""
    silent = ["--quiet"] if "quiet" in _flags(command) else []
    return [*silent, *(f"--{name}={value}" for name, value in right.items())]


@pytest.mark.parametrize(("command", "flag", "value"), _CELLS)
def test_a_wrong_value_is_one_line_that_names_it(call, command, flag, value):
    if command == "train-filter":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'lesions')")
    apart = {"raters": "time_points"}.get(flag)  # What goes with the other alone.
    right = {name: given for name, given in RIGHT[command].items() if name not in (flag, apart)}
    if flag == "region_names":
        right["regions"] = "lesion.nii.gz"
    if flag == "livers":
        right["config.target.region"] = "predicted"
    if flag.startswith("lesion_"):
        right["tumor_model"] = "run"
    if command == "sweep" and flag not in ("workdir", "task"):
        right["dry_run"] = "true"
    status, printed, errors, changed = call(command, *_words(command, {**right, flag: value}))
    if command == "check" and not errors:  # Findings are what it prints.
        assert "1 errors" in printed.splitlines()[-1]
        errors = f"liverjax: error: {printed.splitlines()[0]}\n"
    assert status in (1, 2) and errors.count("\n") == 1
    assert errors.startswith("liverjax: error: " if status == 1 else "liverjax: ")
    assert "Traceback" not in errors and "Error(" not in errors
    if status == 2:
        assert f"--{flag}" in errors and f"see 'liverjax {command.split()[0]} --help'" in errors
    assert any(part.removesuffix(".nii.gz") in errors for part in (value, *re.split("[,:]", value)))
    assert changed <= _WRITTEN.get((command, flag), set())


@pytest.mark.parametrize("field", _FIELDS)
@pytest.mark.parametrize("command", [name for name in COMMANDS if name in OVERRIDES])
def test_a_wrong_field_of_the_config_is_one_line_that_names_it(call, command, field):
    words = _words(command, RIGHT[command])
    status, _, errors, changed = call(command, *words, f"--config.{field}")
    assert status in (1, 2) and errors.count("\n") == 1 and errors.startswith("liverjax: ")
    assert field.split("=")[0] in errors and "Traceback" not in errors
    assert changed <= {"out"}  # Of the demo, which makes its folder first.


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_named_with_the_nearest(call, command):
    status, printed, errors, changed = call(command, *_words(command, RIGHT[command]), "--verbos")
    assert (status, printed, changed) == (2, "", set())
    assert errors.count("\n") == 1 and "--verbos;" in errors and "--verbose?" in errors


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_call_without_words(call, command):
    status, printed, errors, _ = call(command, "--help")
    required = [
        line.split(":")[0].split(",")[0].strip() for line in printed.splitlines() if "(required)" in line
    ]
    assert (status, errors) == (0, "") and set(_flags(command)) <= set(re.findall(r"--(\w+)[:,]", printed))
    for left_out in [None, *required] if required else []:
        words = [w for w in _words(command, RIGHT[command]) if left_out and not w.startswith(f"{left_out}=")]
        status, printed, errors, changed = call(command, *words)
        assert (status, printed, changed) == (2, "", set())
        assert errors.count("\n") == 1 and "required" in errors
        assert all(name in errors for name in ([left_out] if left_out else required))
