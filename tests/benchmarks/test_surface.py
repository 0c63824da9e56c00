"""Surface metrics of a 512x512x100 liver, side by side with outside tools: CPU seconds of one thread.

  python -m pytest -m slow -s tests/benchmarks/test_surface.py

For each tool first the values must agree, then ours must take at most the stated share of its time for what
that tool computes: medians of repeated runs that take turns, so that a busy machine slows both.
"""

import importlib
import importlib.util
import pathlib
import statistics
import time

import numpy as np
import pytest
from scipy import ndimage

from liverjax.scoring import surface

SPACING = (0.75, 0.75, 2.0)
TOLERANCE = 2.5


def _oracles():
    path = pathlib.Path(__file__).parent.parent / "scoring" / "oracle_values.py"
    spec = importlib.util.spec_from_file_location("oracle_values", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def livers():
    """Prediction and reference of about 2.5 l with a Dice of 0.97, in the memory order of NIfTI files."""
    shape = (512, 512, 100)

    def bumps(seed, smooth):
        coarse = np.random.default_rng(seed).normal(size=(32, 32, 25)).astype(np.float32)
        coarse = ndimage.gaussian_filter(coarse, smooth)
        return ndimage.zoom(coarse / coarse.std(), 16, order=1)[:, :, :400:4]

    x, y, z = np.ogrid[tuple(slice(0, size) for size in shape)]
    distance = ((x - 190) / 120) ** 2 + ((y - 260) / 100) ** 2 + ((z - 50) / 40) ** 2 + 0.25 * bumps(1, 2)
    prediction, reference = distance + 0.08 * bumps(2, 1) < 1, distance < 1
    return np.asfortranarray(prediction), np.asfortranarray(reference)


def _voxels(prediction, reference):
    distances = surface.between_voxels(prediction, reference, SPACING, neighbours=6)
    return {
        "assd": distances.assd,
        "rmsd": distances.rmsd,
        "hausdorff": distances.hausdorff,
        "hd95": distances.hd95,
        "hd95_max_of_directed": distances.hd95_max_of_directed,
    }


def _elements(prediction, reference):
    distances = surface.between_elements(prediction, reference, SPACING)
    return {
        "hd95_area_weighted": distances.hd95_area_weighted,
        "nsd_2.5mm": distances.nsd(TOLERANCE),
        "prediction_area": distances.prediction_areas.sum(),
        "reference_area": distances.reference_areas.sum(),
    }


def _everything(prediction, reference):
    return _voxels(prediction, reference) | _elements(prediction, reference)


def _cpu_seconds(function, *arguments):
    start = time.process_time()
    values = function(*arguments)
    return time.process_time() - start, values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "ours", "bar", "repeats"),
    [("surface_distance", _elements, 3, 3), ("monai", _everything, 6, 3), ("medpy", _voxels, 60, 1)],
    ids=["surface-distance", "MONAI", "medpy"],
)
def test_time_against(tool, ours, bar, repeats, livers, duel):
    oracles = _oracles()
    oracles.TOLERANCES = (TOLERANCE,)
    compute, package = oracles.TOOLS[tool]
    pytest.importorskip(package.replace("-", "_"), reason=f"{package} is not installed (extra 'oracles')")
    if tool == "monai":
        importlib.import_module("torch").set_num_threads(1)

    _, values = _cpu_seconds(ours, *livers)
    times = {"ours": [], "theirs": []}
    for _ in range(repeats):
        seconds, theirs = _cpu_seconds(compute, *livers, SPACING)
        times["theirs"].append(seconds)
        times["ours"] += [_cpu_seconds(ours, *livers)[0] for _ in range(3)]
    shared = {name: value for name, value in theirs.items() if name in values}
    assert len(shared) >= 3
    assert {name: values[name] for name in shared} == pytest.approx(shared, rel=5e-6)
    mine, other = (statistics.median(times[who]) for who in ("ours", "theirs"))
    off = max(abs(values[name] - value) / max(abs(value), 1e-12) for name, value in shared.items())
    duel(
        f"{', '.join(shared)} of a 512 x 512 x 100 liver",
        package,
        ours=mine,
        theirs=other,
        unit="CPU s",
        of=f"medians of {3 * repeats} and {repeats}",
        parity=f"values within {off:.0e}",
        aim=1 / bar,
    )
    assert other / mine >= bar
