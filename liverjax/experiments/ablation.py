"""Ablations by name: the functions of ``configs/ablations.py``, or of a file of one's own."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Iterator

from liverjax.config import ABLATIONS, config_file, mistakes_named, run_file, shipped_files
from liverjax.errors import ConfigError, did_you_mean
from liverjax.files import local_path
from liverjax.options import Config


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A function that yields variants of a config, each a name and overrides; the first is the baseline.

    Attributes:
      name: of the function.
      title: first line of its docstring.
      file: where it is defined.
      vary: the function itself.
    """

    name: str
    title: str
    file: pathlib.Path
    vary: Callable[[Config], Iterator[tuple[str, tuple[str, ...]]]]

    def variants(self, config: Config) -> dict[str, tuple[str, ...]]:
        """Returns the overrides of each variant by its name.

        Raises:
          ConfigError: the function fails, yields nothing or something else, or gives two variants one name.
        """
        found: dict[str, tuple[str, ...]] = {}
        with mistakes_named(self.file):
            for name, overrides in self.vary(config):
                if name in found:
                    raise ConfigError(
                        f"{self.file}: the ablation {self.name!r} yields two variants called {name!r}, expected "
                        "another name for each"
                    )
                if isinstance(overrides, str):
                    raise ConfigError(
                        f"{self.file}: the ablation {self.name!r} yields {overrides!r} for {name!r}, expected a list "
                        f"of overrides: [{overrides!r}]"
                    )
                found[name] = tuple(overrides)
        if not found:
            raise ConfigError(
                f"{self.file}: the ablation {self.name!r} yields no variants, expected two or more"
            )
        return found


def load_ablation(spec: str) -> Ablation:
    """Returns the shipped ablation of a name, or that of ``FILE.py:name``: a function of this name in the file.

    Raises:
      ConfigError: there is no such file or function, or the file has a mistake.
      InputError: it is an address.
    """
    local_path(spec, "--ablation")
    file, _, name = spec.rpartition(":")
    path = config_file(file) if file else shipped_files()[ABLATIONS]
    with mistakes_named(path):
        functions = {
            key: value
            for key, value in vars(run_file(path)).items()
            if inspect.isgeneratorfunction(value) and not key.startswith("_")
        }
    if file and not functions:
        raise ConfigError(
            f"{path}: has no ablation, expected a function {name}(config) that yields its variants"
        )
    if name not in functions:
        raise ConfigError(f"no ablation is called {name!r}{did_you_mean(name, functions)}")
    return Ablation(name, (inspect.getdoc(functions[name]) or "").partition("\n")[0], path, functions[name])
