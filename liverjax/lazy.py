"""The public names of a package, imported on first use: ``import liverjax`` alone pulls in no jax."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
      package: its ``__name__``.
      names: for each module of the package, as "overlap" or "phantom.anatomy", the public names that it defines, such
        as "read", or "read as read_scan" for another name in public. A module without any is public itself.
    """
    where = {}
    for module, public in names.items():
        for name in public:
            own, _, other = name.partition(" as ")
            where[other or own] = module, own
        if not public:
            where[module] = module, ""

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = where[name]
        found = importlib.import_module(f"{package}.{module}")
        return getattr(found, own) if own else found

    return __getattr__, lambda: sorted(where), sorted(where)
