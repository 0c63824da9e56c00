"""Functions of a user's own files that a config names: a loss, an augmentation, without a fork."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import pathlib
import types
from collections.abc import Callable
from typing import Any

from liverjax.config import mistakes_named
from liverjax.errors import ConfigError, did_you_mean, shown
from liverjax.options import Config


@dataclasses.dataclass(frozen=True)
class OwnFunction:
    """A function of a user's own file that takes part in training. Equal are those of one name in files of equal text.

    Attributes:
      field: of the config that names it.
      path: the file.
      name: of the function.
      sha256: of the file; of what that imports nothing is known.
      function: the function.
    """

    field: str
    path: pathlib.Path = dataclasses.field(compare=False)
    name: str
    sha256: str
    function: Callable[..., Any] = dataclasses.field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.field} ({self.path}:{self.name})"

    def __call__(self, *arguments: Any) -> Any:
        """Calls it; what it raises becomes a `ConfigError` with file and line."""
        with mistakes_named(self.path):
            return self.function(*arguments)


def own_functions(config: Config) -> dict[str, OwnFunction]:
    """Returns the functions of own files that a config names, by its field: "loss.own", "augment.own".

    Raises:
      ConfigError: there is no such file or function, or the file has a mistake.
    """
    found = {}
    for field, text in (("loss.own", config.loss.own), ("augment.own", config.augment.own)):
        if not text:
            continue
        file, _, name = text.rpartition(":")
        path, module = pathlib.Path(file), types.ModuleType(f"liverjax_own_{pathlib.Path(file).stem}")
        try:
            source = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{field} is {shown(text)}, but {path.absolute()} cannot be read ({error.strerror}), expected "
                "FILE.py:function with a path from the working directory"
            ) from None
        module.__file__ = str(path)
        with mistakes_named(path):
            # Compiled here: Python's cache of compiled files takes a quick change of the same length for none.
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        own = {key: value for key, value in vars(module).items() if inspect.isfunction(value)}
        function = vars(module).get(name)
        if not callable(function):
            raise ConfigError(
                f"{path}: has no function {name!r}, as {field} names it{did_you_mean(name, own) if own else ''}"
            )
        found[field] = OwnFunction(field, path, name, hashlib.sha256(source).hexdigest(), function)
    return found
