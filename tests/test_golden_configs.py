"""Each shipped config's resolved values, so that a change of a default is seen in review.

`make golden` writes them anew.
"""

import json
import os
import pathlib
import re

import pytest

from liverjax.config import load_config, resolve, to_dict

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHIPPED = ["any_liver", "any_liver:small", "demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]
SHIPPED += ["ct_tumor", "ct_tumor:small", "mr_tumor", "mr_tumor:small"]


@pytest.mark.parametrize("spec", SHIPPED)
def test_a_config_has_the_values_that_were_reviewed(spec):
    path = GOLDEN / f"{spec.replace(':', '_')}.json"
    text = json.dumps(to_dict(resolve(load_config(spec))), indent=1) + "\n"
    if os.environ.get("LIVERJAX_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "`make golden` writes the new values; review them"


def test_every_shipped_config_is_covered_with_its_arguments():
    folder = pathlib.Path(__file__).parent.parent / "configs"
    specs = set()
    for path in set(folder.glob("*.py")) - {folder / "ablations.py"}:
        arguments = re.findall(r'Argument "(\w+)"', path.read_text(encoding="utf-8"))
        specs |= {path.stem, *(f"{path.stem}:{argument}" for argument in arguments)}
    assert specs == set(SHIPPED)
