"""Who may import whom; file sizes; and names that say nothing."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "liverjax"
MODULES = {
    *(
        "errors",
        "labels",
        "views",
        "options",
        "options_training",
        "config",
        "files",
        "lazy",
        "own",
        "progress",
        "remote",
        "sealed",
        "signals",
    ),
    "volume",
}
SCANS = MODULES | {"scans"}
DATASETS = SCANS | {"datasets"}
OBJECTS = SCANS | {"objects"}
SCORING = DATASETS | OBJECTS | {"scoring"}
INFERENCE = DATASETS | OBJECTS | {"prediction", "models", "checkpoint"}
#: What each room may import, beside itself.
ROOMS = {
    **dict.fromkeys(MODULES, MODULES),
    "scans": MODULES,
    "prediction": SCANS | {"viewer"},
    "datasets": SCANS,
    "objects": SCANS,
    "data": DATASETS | OBJECTS,
    "models": MODULES,
    "checkpoint": MODULES | {"models"},
    "training": DATASETS | OBJECTS | {"data", "models", "checkpoint", "report"},
    "inference": INFERENCE,
    "pretrained": INFERENCE | {"inference"},
    "scoring": DATASETS | OBJECTS,
    "planning": SCORING,
    "insight": SCORING | INFERENCE | {"inference"},
    "experiments": SCORING | {"data"},
    "studies": SCORING | INFERENCE | {"inference", "pretrained", "experiments"},
    "report": SCANS,
    "viewer": SCANS | {"objects"},
}
#: Rooms whose results come from plain arrays, on any laptop.
WITHOUT_JAX = {
    *MODULES,
    "prediction",
    "scans",
    "datasets",
    "objects",
    "scoring",
    "planning",
    "experiments",
    "report",
    "viewer",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_rooms(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "liverjax" and room in ROOMS and parts[1:] and parts[1] != "__version__":
            assert parts[1] in ROOMS[room] | {room}, f"{path.name} of {room} imports {name}"
        if room in WITHOUT_JAX:
            assert parts[0] not in ("jax", "flax", "optax", "orbax", "grain"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_named_for_what_they_hold(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= (80 if path.parent.name == "commands" and path.stem != "dispatch" else 400)
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}
