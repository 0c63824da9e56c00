"""The reference of the API: every public name on its page, and the examples of all docstrings."""

import doctest
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import types

import pytest

from tests.docs import pages

#: Page -> package.
_FACES = {
    page.stem: re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for page in sorted((pages.ROOT / "docs" / "api").glob("*.md"))
}
_EXAMPLES = [
    path.relative_to(pages.ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in sorted((pages.ROOT / "liverjax").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", _EXAMPLES)
def test_the_examples_of_the_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


def test_every_package_with_a_public_face_has_a_page():
    packages = [path.parent for path in (pages.ROOT / "liverjax").glob("*/__init__.py")]
    public = {
        path.name for path in packages if "lazy.attach" in (path / "__init__.py").read_text(encoding="utf-8")
    } | {"models"}
    assert public - {"checkpoint"} == set(_FACES) - {"index"}
    for page, names in _FACES.items():
        assert names == ["liverjax" if page == "index" else f"liverjax.{page}"]


@pytest.mark.parametrize("page", _FACES)
def test_every_public_name_is_found_and_documented(page, extensions):
    """The reader of the site's builder, which imports nothing, finds what Python finds, where Python finds it."""
    (name,) = _FACES[page]
    package = importlib.import_module(name)
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    found = extensions.lazy_names(pathlib.Path(spec.origin).read_text(encoding="utf-8"))
    public = [one for one in package.__all__ if not inspect.ismodule(getattr(package, one))]
    assert set(public) >= set(found) and (set(found) or page == "models")
    for public_name, place in found.items():
        module, _, own = place.rpartition(".")
        there = importlib.import_module(f"{name}.{module}")
        assert getattr(there, own) is getattr(package, public_name)
    for one in public:
        thing = getattr(package, one)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{one} has no docstring, and is missing on the site"


@pytest.fixture
def extensions(monkeypatch):
    """What reads the library for the site; griffe, which that imports, is not in the environment of the tests."""
    monkeypatch.setitem(sys.modules, "griffe", types.SimpleNamespace(Extension=object))
    path = pages.ROOT / "docs" / "api" / "extensions.py"
    spec = importlib.util.spec_from_file_location("extensions", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_that_the_code_names_exist():
    """Of docstrings the site makes links; error messages name pages, too."""
    sources = [*(pages.ROOT / "liverjax").rglob("*.py"), *(pages.ROOT / "configs").glob("*.py")]
    named = {
        name
        for path in sources
        for name in re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert not [name for name in named if not (pages.ROOT / name).exists()]


def test_lists_of_names_stay_lists(extensions):
    text = "What it is.\n\nread(path)   a scan\nwrite        a mask\n\nMore:\n\n    read      indented before"
    kept = "What it is.\n\n    read(path)   a scan\n    write        a mask\n\nMore:\n\n    read      indented before"
    assert extensions.columns_kept(text) == kept
