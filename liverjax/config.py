"""Config files and overrides: from what a user states to the frozen `Config` that the library works with.

The dataclasses of `liverjax.options` hold every default. A config file's ``get_config(arg)`` starts from
`default_config`, states what differs and returns it, a ConfigDict that can be changed field by field. `resolve` turns
it into the `Config`, checking every value; `override` changes single fields as they are typed after ``--config.``.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib.util
import inspect
import itertools
import os
import pathlib
import re
import textwrap
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from liverjax import options, options_training
from liverjax.errors import ConfigError, LiverjaxError, did_you_mean, shown
from liverjax.files import local_path
from liverjax.options import Config

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Options = TypeVar("Options", bound=DataclassInstance)

_PACKAGE = pathlib.Path(__file__).parent
#: The file among the shipped ones that holds ablations, and no config.
ABLATIONS = "ablations"


def default_config() -> ConfigDict:
    """Returns every field with its default, locked: an unknown field is refused with the nearest one."""
    return ConfigDict(to_dict(Config())).lock()


def to_dict(options: DataclassInstance) -> dict[str, Any]:
    """Returns an option dataclass as nested plain dicts; tuples stay tuples."""
    values = ((field.name, getattr(options, field.name)) for field in dataclasses.fields(options))
    return {name: to_dict(value) if _is_group(value) else value for name, value in values}


def resolve(config: Config | ConfigDict | Mapping[str, Any]) -> Config:
    """Returns the frozen, checked `Config` of a ConfigDict or of nested dicts (as JSON gives them).

    Raises:
      ConfigError: a field does not exist, has the wrong type, or its value does not fit.
    """
    if isinstance(config, Config):
        return config
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    if not isinstance(values, Mapping):
        raise ConfigError(f"the config is {shown(values)}, expected a group of fields")
    return _build(Config, values, "")


def _build(cls: type[Options], values: Mapping[str, Any], path: str) -> Options:
    types_ = _types(cls)
    for name in values:
        if name not in types_:
            raise ConfigError(
                f"the config has no field {shown(path + str(name))}{did_you_mean(str(name), types_)}"
            )
    return cls(**{name: _convert(types_[name], value, path + name) for name, value in values.items()})


def _convert(type_: Any, value: Any, path: str) -> Any:
    if _is_group(type_):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {shown(value)}, expected a group of fields")
        return _build(type_, value, path + ".")
    if typing.get_origin(type_) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} is {shown(value)}, expected a list")
        return tuple(_convert(typing.get_args(type_)[0], item, path) for item in value)
    if type_ is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not type_:
        raise ConfigError(f"{path} is {shown(value)}, expected {type_.__name__}")
    return value


def _is_group(value: Any) -> bool:
    """Returns whether a value, or a type, is one of the option dataclasses."""
    return dataclasses.is_dataclass(value)


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    """Returns the type of each field of an option dataclass."""
    return typing.get_type_hints(cls)


def make_small(config: ConfigDict) -> None:
    """Turns a system into one that trains on two CPU cores in minutes: narrow networks on a grid of 3 mm."""
    config.preprocess.spacing = (3.0, 3.0, 3.0)
    config.batch.size = 8
    config.model.features = (16, 32, 64, 128)
    config.model.dropout = 0.2
    config.model.norm_momentum = 0.9  # 0.99 keeps a third of the first statistics after 100 steps.
    config.train.steps = 2000
    config.train.learning_rate = 2e-3
    config.train.validate_every = 250
    config.train.save_every = 250
    config.train.halving_steps = (250, 500, 1000, 2000)


def override(config: Config | ConfigDict, assignments: Iterable[str]) -> Config:
    """Returns ``config`` after assignments such as ``model.dropout=0.2`` or ``views=axial,coronal``.

    Values are checked after all assignments, so that fields that depend on one another can change together.

    Raises:
      ConfigError: a field does not exist, the text does not stand for a value of its type, or the value does not fit.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override {shown(assignment)} is not of the form field=value")
        *groups, name = path.split(".")
        type_, group = Config, changes
        for part in (*groups, name):
            fields = _types(type_) if _is_group(type_) else {}
            if part not in fields:
                raise ConfigError(f"the config has no field {shown(path)}{did_you_mean(part, fields)}")
            type_ = fields[part]
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = _parse(type_, text, path)
    return _replace(resolve(config), changes)


def _replace(options: Options, changes: Mapping[str, Any]) -> Options:
    values = {
        name: _replace(getattr(options, name), value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(options, **values)


def _parse(type_: Any, text: str, path: str) -> Any:
    if _is_group(type_):
        raise ConfigError(f"{path} is a group of fields{did_you_mean(text, typing.get_type_hints(type_))}")
    if typing.get_origin(type_) is tuple:
        items = [item.strip() for item in text.strip("()[] ").split(",")]
        return tuple(_parse(typing.get_args(type_)[0], item, path) for item in items if item)
    if type_ is str:
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if type_ is bool else type_(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{path} is {shown(text)}, expected {type_.__name__}") from None


def _text(value: Any) -> str:
    """Returns the text that `override` reads as this value."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fields(options: DataclassInstance, path: str = "") -> dict[str, Any]:
    """Returns the value of every single field by its path, such as ``model.dropout``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        nested = _is_group(value)
        found |= _fields(value, f"{path}{field.name}.") if nested else {path + field.name: value}
    return found


def assignments(before: Options, after: Options) -> list[str]:
    """Returns the overrides that make ``after`` of ``before``, two option dataclasses of one type."""
    old = _fields(before)
    return [f"{path}={_text(new)}" for path, new in _fields(after).items() if new != old[path]]


def differences(before: Options, after: Options, path: str = "") -> dict[str, str]:
    """Returns the fields in which two option dataclasses of one type differ, as ``path -> "path a, now b"``.

    Args:
      before: the one.
      after: the other.
      path: what the paths of their fields begin with, such as ``preprocess.``.
    """
    old = _fields(before, path)
    return {
        name: f"{name} {old[name]}, now {new}"
        for name, new in _fields(after, path).items()
        if new != old[name]
    }


def meanings() -> dict[str, str]:
    """Returns what each field means, by its path: the ``#:`` comment above it, or above the fields it follows.

    Groups of fields, such as ``model``, have the first line of their docstring; the whole has that of ``""``.
    """
    lines = [line for part in (options_training, options) for line in inspect.getsource(part).splitlines()]
    comments: dict[tuple[str, str], str] = {}
    for cls in ast.parse("\n".join(lines)).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        comment = ""
        for field in (node for node in cls.body if isinstance(node, ast.AnnAssign)):
            first = field.lineno - 1
            while lines[first - 1].lstrip().startswith("#:"):
                first -= 1
            above = [line.strip().removeprefix("#:").strip() for line in lines[first : field.lineno - 1]]
            comment = " ".join(above) or comment
            comments[cls.name, ast.unparse(field.target)] = comment

    def of(cls: Any, path: str) -> dict[str, str]:
        found = {path.removesuffix("."): (inspect.getdoc(cls) or "").partition("\n")[0]}
        for name, type_ in _types(cls).items():
            nested = _is_group(type_)
            found |= of(type_, f"{path}{name}.") if nested else {path + name: comments[cls.__name__, name]}
        return found

    return of(Config, "")


def describe(config: Config) -> str:
    """Returns every field with its value and meaning, as lines of text; a star marks those that are no default."""
    values, defaults = _fields(config), _fields(Config())
    lines = []
    # Fields that share a comment stand together above it.
    for meaning, items in itertools.groupby(meanings().items(), lambda item: item[1]):
        paths = [path for path, _ in items]
        for path in paths:
            if path not in values:
                lines += ["", f"{path}: {meaning}" if path else meaning]
            elif values[path] == defaults[path]:
                lines.append(f"  {path} = {_text(values[path])}")
            else:
                lines.append(f"* {path} = {_text(values[path])}  (default: {_text(defaults[path])})")
        if paths[0] in values:
            lines += textwrap.wrap(meaning, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines[1:])


def config_file(name: str) -> pathlib.Path:
    """Returns the file of a config given by path or by the name of a shipped one."""
    if name.endswith(".py"):
        path = pathlib.Path(name)
        if not path.is_file():
            raise ConfigError(f"config file {name} does not exist")
        return path
    shipped = shipped_files()
    shipped.pop(ABLATIONS, None)
    if name not in shipped:
        raise ConfigError(f"no config is called {name!r}{did_you_mean(name, shipped)}")
    return shipped[name]


def load_config(spec: str) -> ConfigDict:
    """Returns the config that ``NAME:arg``, as in ``mr_liver:small`` or ``my.py:small``, stands for.

    Its fields can be changed; `resolve`, and whatever takes a config, checks them again.

    Raises:
      ConfigError: there is no such config, or its file has a mistake; file, line and field are named.
    """
    name, _, arg = str(local_path(spec, "--config")).partition(":")
    path = config_file(name)
    with mistakes_named(path):
        get_config = getattr(run_file(path), "get_config", None)
        if not callable(get_config):
            raise ConfigError(f"{path} has no function get_config(arg)")
        takes_argument = bool(inspect.signature(get_config).parameters)
        if arg and not takes_argument:
            raise ConfigError(f"{path}: get_config() takes no argument, but {arg!r} was given")
        config = get_config(arg) if takes_argument else get_config()
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"{path}: get_config returned {type(config).__name__}, expected the ConfigDict of default_config()"
        )
    try:
        resolve(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def shipped_files() -> dict[str, pathlib.Path]:
    """Returns the shipped files by name: in a wheel they lie in the package, in a checkout beside it."""
    folder, project = _PACKAGE / "_configs", _PACKAGE.parent / "pyproject.toml"
    # Beside an installed package, a folder "configs" is somebody else's.
    if (
        not folder.is_dir()
        and project.is_file()
        and 'name = "liverjax"' in project.read_text(encoding="utf-8")
    ):
        folder = project.parent / "configs"
    return {path.stem: path for path in folder.glob("*.py")}


def run_file(path: pathlib.Path) -> types.ModuleType:
    """Returns the module of a config file, outside `sys.modules`."""
    spec = importlib.util.spec_from_file_location(f"liverjax_config_{path.stem}", path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def mistakes_named(path: pathlib.Path) -> Iterator[None]:
    """Turns an error that a config file causes into a ConfigError: one line with the file and the line's number."""
    try:
        yield
    except LiverjaxError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # A program that ended here would have done nothing, with status 0.
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            frames.append((error.filename or "", error.lineno))
        numbers = [f":{line}" for name, line in frames if os.path.abspath(name) == os.path.abspath(path)]
        raise ConfigError(f"{path}{''.join(numbers[-1:])}: {_explained(error)}") from error


#: What ml_collections says of a field that does not exist, set or read, and of a value of another type.
_UNKNOWN = re.compile(r"""Key "(\w+)" does not exist|^\W+(\w+)\\*'(?:\\n|\n|"|'|$)""")
_OTHER_TYPE = re.compile(
    r"field '(\w+)'.*?\. (.*) is of original type .* casted to type <class '(.*)'>", re.DOTALL
)


def _explained(error: BaseException) -> str:
    """Returns an error of a config file in one line, one of a field with its path or the nearest one."""
    text = str(error.args[0]) if error.args else ""
    paths = {path.rpartition(".")[2]: path for path in meanings()}
    if unknown := _UNKNOWN.search(text):
        name = unknown[1] or unknown[2]
        near = [paths[match] for match in difflib.get_close_matches(name, paths, n=1)]
        hint = f"did you mean {near[0]!r}?" if near else "`liverjax config NAME` lists them"
        return f"the config has no field {name!r} there; {hint}"
    if other := _OTHER_TYPE.search(text):
        expected = "a group of fields" if other[3].endswith("ConfigDict") else other[3]
        return f"{paths.get(other[1], other[1])} is {other[2]!r}, expected {expected}"
    return f"{type(error).__name__}: {textwrap.shorten(text, 300, placeholder=' ...')}"
