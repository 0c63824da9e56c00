"""One network for the slices of all views."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from liverjax.data.pipeline import train_batches, validation_batches
from liverjax.data.sampling import Sampler
from liverjax.data.store import open_store
from liverjax.datasets.layouts import find_cases
from liverjax.errors import CheckpointError
from liverjax.pretrained.load import load_model
from liverjax.training.loop import train
from liverjax.views import SHARED, VIEWS


@pytest.fixture(scope="module")
def shared_run(tiny_config, tmp_path_factory):
    """Config and folder of a finished run of two steps."""
    model = dataclasses.replace(tiny_config.model, shared=True)
    options = dataclasses.replace(tiny_config.train, steps=2)
    config = dataclasses.replace(tiny_config, model=model, train=options)
    workdir = tmp_path_factory.mktemp("shared")
    assert list(train(config, workdir, quiet=True)) == [SHARED]
    return config, workdir


def test_its_batches_hold_slices_of_all_views(shared_run):
    config, _ = shared_run
    cases = open_store(config.store, config.preprocess, config.target).cases
    settings = {"first_step": 0, "last_step": 6, "process": 0, "processes": 1}
    sampler = Sampler(cases, VIEWS, config.batch, config.seed)
    seen = set()
    for step, batch in enumerate(train_batches(cases, SHARED, config, **settings)):
        for row in range(config.batch.size):
            draw = sampler.draw(step, row)
            seen.add(draw.view)
            reference = cases[draw.case].labels(draw.view)[draw.slice]
            # Slices are centred in the patch of 48 x 48.
            corner = [(48 - size) // 2 for size in reference.shape]
            inside = tuple(slice(c, c + size) for c, size in zip(corner, reference.shape, strict=True))
            np.testing.assert_array_equal(batch["label"][row][inside], reference)
    assert seen == set(VIEWS)

    options = dataclasses.replace(config.train, validation_slices=10_000)
    batches = validation_batches(cases[:1], SHARED, dataclasses.replace(config, train=options))
    assert sum(batch["weight"].sum() for batch in batches) == 36 + 40 + 48


def test_one_network_is_trained_and_predicts_all_views(shared_run, phantom_scans):
    _, workdir = shared_run
    assert {path.name for path in workdir.iterdir()} == {".lock", "report.html", "run.json", SHARED}
    model = load_model(workdir)
    assert model.networks.views == VIEWS
    for view in VIEWS[1:]:
        jax.tree.map(
            np.testing.assert_array_equal, model.networks.variables["axial"], model.networks.variables[view]
        )
    scan = find_cases(phantom_scans)[0].image
    whole, alone = model.predict(scan), model.with_options(views=["coronal"]).predict(scan)
    assert np.abs(whole.grid_probabilities - alone.grid_probabilities).max() > 1e-4


def test_other_views_are_another_training(shared_run):
    config, workdir = shared_run
    before = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    with pytest.raises(CheckpointError, match="differs in: views"):
        train(dataclasses.replace(config, views=("axial",)), workdir, quiet=True)
    assert json.loads((workdir / "run.json").read_text(encoding="utf-8")) == before
