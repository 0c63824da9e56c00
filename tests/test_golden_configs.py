"""Each shipped config's resolved values, so that a change of a default is seen in review.

`make golden` writes them anew.
"""

import json
import os
import pathlib

import pytest

from liverjax.config import load_config, resolve, to_dict

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHIPPED = ["demo", "ct_liver", "ct_liver:small", "mr_liver", "mr_liver:small"]


@pytest.mark.parametrize("spec", SHIPPED)
def test_a_config_has_the_values_that_were_reviewed(spec):
    path = GOLDEN / f"{spec.replace(':', '_')}.json"
    text = json.dumps(to_dict(resolve(load_config(spec))), indent=1) + "\n"
    if os.environ.get("LIVERJAX_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "`make golden` writes the new values; review them"


def test_every_shipped_config_is_covered():
    names = {path.stem for path in (pathlib.Path(__file__).parent.parent / "configs").glob("*.py")}
    assert names == {spec.partition(":")[0] for spec in SHIPPED}
