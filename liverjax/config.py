"""Config files: from the frozen option dataclasses to a locked ConfigDict and back.

The dataclasses of `liverjax.options` hold every default. A config file's ``get_config(arg)`` starts from
`default_config`, states what differs and returns it; flags may override single fields of it. `resolve`
turns the result into the dataclass that the library works with, checking every value.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import pathlib
import types
import typing

from ml_collections import ConfigDict

from liverjax.errors import ConfigError, did_you_mean
from liverjax.options import Config

_PACKAGE = pathlib.Path(__file__).parent
#: Where configs ship: in a wheel beside the library, in a checkout beside the package.
_SHIPPED = (_PACKAGE / "_configs", _PACKAGE.parent / "configs")
#: The file among them that holds no config.
_ABLATIONS = "ablations"

#: From a config to the variants of an ablation, each a name and overrides; the first is the baseline.
Ablation = typing.Callable[[Config], typing.Iterator[tuple[str, tuple[str, ...]]]]


def default_config() -> ConfigDict:
    """Returns every field with its default, locked: an unknown field is refused with the nearest one."""
    return ConfigDict(to_dict(Config())).lock()


def to_dict(options: object) -> dict:
    """Returns an option dataclass as nested plain dicts; tuples stay tuples."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(options)
        for value in (getattr(options, field.name),)
    }


def resolve(config: Config | ConfigDict | dict) -> Config:
    """Returns the frozen, checked `Config` of a ConfigDict or of nested dicts (as JSON gives them).

    Raises:
      ConfigError: a field does not exist, has the wrong type, or its value does not fit.
    """
    if isinstance(config, Config):
        return config
    return _build(Config, config.to_dict() if isinstance(config, ConfigDict) else config, "")


def _build(cls: type, values: dict, path: str):
    types_ = typing.get_type_hints(cls)
    for name in values:
        if name not in types_:
            raise ConfigError(f"the config has no field {path + name!r}{did_you_mean(name, types_)}")
    return cls(**{name: _convert(types_[name], value, path + name) for name, value in values.items()})


def _convert(type_: type, value: object, path: str):
    if dataclasses.is_dataclass(type_):
        if not isinstance(value, dict):
            raise ConfigError(f"{path} is {value!r}, expected a group of fields")
        return _build(type_, value, path + ".")
    if typing.get_origin(type_) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} is {value!r}, expected a list")
        return tuple(_convert(typing.get_args(type_)[0], item, path) for item in value)
    if type_ is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type_:
        raise ConfigError(f"{path} is {value!r}, expected {type_.__name__}")
    return value


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


def config_file(name: str) -> pathlib.Path:
    """Returns the file of a config given by path or by the name of a shipped one."""
    if name.endswith(".py"):
        path = pathlib.Path(name)
        if not path.is_file():
            raise ConfigError(f"config file {name} does not exist")
        return path
    shipped = _shipped()
    shipped.pop(_ABLATIONS, None)
    if name not in shipped:
        raise ConfigError(f"no config is called {name!r}{did_you_mean(name, shipped)}")
    return shipped[name]


def load_config(spec: str) -> ConfigDict:
    """Returns the config that ``NAME:arg``, as in ``mr_liver:small`` or ``my.py:small``, stands for."""
    name, _, arg = spec.partition(":")
    path = config_file(name)
    module = _run(path)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} has no function get_config(arg)")
    return module.get_config(arg)


def load_ablation(spec: str) -> Ablation:
    """Returns the shipped ablation of a name, or that of ``FILE.py:name``: a function of this name in the file.

    Raises:
      ConfigError: there is no such file or function.
    """
    file, _, name = spec.rpartition(":")
    path = config_file(file) if file else _shipped()[_ABLATIONS]
    module = _run(path)
    functions = {
        key: value
        for key, value in vars(module).items()
        if inspect.isgeneratorfunction(value) and not key.startswith("_")
    }
    if name not in functions:
        raise ConfigError(f"no ablation is called {name!r}{did_you_mean(name, functions)}")
    return functions[name]


def _shipped() -> dict[str, pathlib.Path]:
    return {path.stem: path for folder in _SHIPPED if folder.is_dir() for path in folder.glob("*.py")}


def _run(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"liverjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def override(config: ConfigDict, assignments: typing.Iterable[str]) -> ConfigDict:
    """Returns ``config`` after assignments such as ``model.dropout=0.2`` or ``views=axial,coronal``.

    Raises:
      ConfigError: a field does not exist, or the text does not stand for a value of its type.
    """
    config = config.copy_and_resolve_references().lock()
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override {assignment!r} is not of the form field=value")
        *groups, name = path.split(".")
        node, type_ = config, Config
        for part in (*groups, name):
            fields = typing.get_type_hints(type_) if dataclasses.is_dataclass(type_) else {}
            if part not in fields:
                raise ConfigError(f"the config has no field {path!r}{did_you_mean(part, fields)}")
            type_ = fields[part]
            node = node[part] if part is not name else node
        node[name] = _parse(type_, text, path)
    return config


def _parse(type_: type, text: str, path: str):
    if dataclasses.is_dataclass(type_):
        raise ConfigError(f"{path} is a group of fields{did_you_mean(text, typing.get_type_hints(type_))}")
    if typing.get_origin(type_) is tuple:
        items = text.strip("()[] ")
        return tuple(
            _parse(typing.get_args(type_)[0], item.strip(), path) for item in items.split(",") if item
        )
    if type_ is str:
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if type_ is bool else type_(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{path} is {text!r}, expected {type_.__name__}") from None


def assignments(before: object, after: object, path: str = "") -> list[str]:
    """Returns the overrides that make ``after`` of ``before``, two option dataclasses of one type."""
    found = []
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if dataclasses.is_dataclass(old):
            found += assignments(old, new, f"{path}{field.name}.")
        elif old != new:
            text = ",".join(map(str, new)) if isinstance(new, tuple) else str(new)
            found.append(f"{path}{field.name}={text}")
    return found


def differences(before: object, after: object, path: str = "") -> dict[str, str]:
    """Returns the fields in which two option dataclasses of one type differ, as ``path -> "path a, now b"``."""
    found = {}
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if dataclasses.is_dataclass(old):
            found |= differences(old, new, f"{path}{field.name}.")
        elif old != new:
            found[path + field.name] = f"{path}{field.name} {old}, now {new}"
    return found
