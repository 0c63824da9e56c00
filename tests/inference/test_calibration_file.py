"""The file calibration.json: what is damaged is named in one line, and fitted anew."""

import json

import pytest

from liverjax import options
from liverjax.errors import CheckpointError
from liverjax.inference.calibration import UNCALIBRATED, Calibration, read_calibration, write_calibration

CONFIG = options.Config(views=("axial", "coronal"))
SOUND = Calibration({"axial": 1.5, "coronal": 0.5}, {"axial": (1.0, 2.0), "coronal": (0.5, 1.0)})
CHECKPOINTS = {view: [{"step": 4, "sha256": "5f" * 32}] for view in CONFIG.views}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("", "line 1, column 1"),
        ("[]", "holds [], expected a JSON object"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"temperature": {"axial": NaN}}', "NaN is no number of JSON"),
        (
            {"temperature": {"axial": -1}},
            "temperature is {'axial': -1}, expected for each view a number from 0.01",
        ),
        ({"temperature": {"axial": 1e-300}}, "temperature is {'axial': 1e-300}"),
        ({"temperature": {"axial": "1.5"}}, "temperature is {'axial': '1.5'}"),
        ({"temperature": {"axial": True}}, "temperature is {'axial': True}"),
        ({"temperature": {"oblique": 1}}, "not a calibration of views ('axial', 'coronal')"),
        ({"temperature": None}, "temperature is None"),
        (
            {"weights": {"axial": [1.0]}},
            "weights is {'axial': [1.0]}, expected for each view one number above 0",
        ),
        ({"weights": {"axial": [0, 0]}}, "weights is {'axial': [0, 0]}"),
        ({"weights": {"axial": [1, 1e300]}}, "weights is {'axial': [1, 1e+300]}"),
        ({"members": 0}, "members is 0, expected a whole number from 1"),
        ({"members": 1.5}, "members is 1.5"),
        ({"checkpoints": []}, "checkpoints is [], expected a list for each view"),
        ({"checkpoints": {"axial": 3}}, "checkpoints is {'axial': 3}"),
    ],
)
def test_a_damaged_calibration_is_named_and_may_be_removed(tmp_path, damage, message):
    write_calibration(tmp_path, SOUND, CHECKPOINTS)
    path = tmp_path / "calibration.json"
    assert read_calibration(tmp_path, CONFIG, CHECKPOINTS) == SOUND
    if isinstance(damage, dict):
        damage = json.dumps({**json.loads(path.read_text()), **damage})
    path.write_text(damage)
    with pytest.raises(CheckpointError) as caught:
        read_calibration(tmp_path, CONFIG, CHECKPOINTS)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text
    assert text.endswith("; calibrate the run again, or remove the file")
    path.unlink()
    assert read_calibration(tmp_path, CONFIG, CHECKPOINTS) == UNCALIBRATED
