"""The public faces of the packages that hold scans and data."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["scans", "datasets", "data"])
def test_every_public_name_exists_and_is_in_the_docstring(name):
    package = importlib.import_module(f"liverjax.{name}")
    assert set(package.__all__) == set(dir(package))
    for public in package.__all__:
        assert getattr(package, public).__name__ == public
        assert public in package.__doc__
    with pytest.raises(AttributeError, match=f"module 'liverjax.{name}' has no attribute 'red'"):
        _ = package.red


def test_the_faces_alone_import_nothing_heavy():
    code = "import sys, liverjax.scans, liverjax.datasets, liverjax.data; "
    code += "assert not {'jax', 'nibabel', 'scipy', 'pydicom', 'grain'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
