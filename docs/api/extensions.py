"""Griffe extensions of the API reference, which read the library without importing it."""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

import griffe


class LazyNames(griffe.Extension):
    """Gives each package the public names of its call of `lazy.attach`, as aliases of where they are defined."""

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """Adds the names of one module as griffe has read it.

        Args:
          mod: the module, which stays as it is if it does not call `lazy.attach`.
        """
        if not mod.is_init_module:
            return
        names = lazy_names(mod.source)
        for public, target in names.items():
            place = f"{mod.path}.{target}"
            if public not in mod.members:
                mod.set_member(public, griffe.Alias(public, place, runtime=True, parent=mod))
        if names:
            own = [name for name in mod.exports or [] if isinstance(name, str)]
            mod.exports = sorted({*own, *names})


class Docstrings(griffe.Extension):
    """Makes of docstrings, which are written to be read as text, what a page needs."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of one object as griffe has read it.

        Args:
          obj: a module, class, function or attribute.
        """
        if obj.is_attribute and obj.name.isupper() and not obj.docstring:
            obj.docstring = griffe.Docstring(comment_above(obj) or "A constant.", parent=obj)
        if obj.docstring:
            text = re.sub(r"(?<![\w/`])docs/(\w+)\.md", r"[\1](../\1.html)", obj.docstring.value)
            obj.docstring.value = columns_kept(text) if obj.is_module else text


def comment_above(constant: griffe.Object) -> str:
    """Returns what the lines that begin with ``#:`` right above a constant say; "" without any."""
    above: list[str] = []
    for line in reversed(constant.lines_collection[constant.filepath][: (constant.lineno or 1) - 1]):
        if not line.startswith("#:"):
            break
        above.insert(0, line.removeprefix("#:").strip())
    return "\n".join(above)


def columns_kept(text: str) -> str:
    """Returns a docstring in which paragraphs of two columns, names and what they are, are indented, as code is.

    Args:
      text: of a module. In a column of names, two spaces or more stand before what they are.
    """
    paragraphs = text.split("\n\n")
    lists = (bool(re.search(r"^\S.*\S {2,}\S", part, re.MULTILINE)) for part in paragraphs)
    return "\n\n".join(
        textwrap.indent(part, "    ") if is_list else part
        for part, is_list in zip(paragraphs, lists, strict=True)
    )


def lazy_names(source: str) -> dict[str, str]:
    """Returns public name -> place of its definition within the package, such as "overlap.dice".

    Args:
      source: text of a package's `__init__.py`; without a call of `lazy.attach` there are no names.
    """
    found: dict[str, str] = {}
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "lazy.attach"):
            continue
        table = call.args[1]
        assert isinstance(table, ast.Dict)
        for module, names in zip(table.keys, table.values, strict=True):
            assert isinstance(module, ast.Constant)
            for word in (node.value for node in ast.walk(names) if isinstance(node, ast.Constant)):
                own, _, other = str(word).partition(" as ")
                found[other or own] = f"{module.value}.{own}"
    return found
