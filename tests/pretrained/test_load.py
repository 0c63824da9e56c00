"""Loading: the views that are used, from runs whose other views are not trained yet, too."""

import shutil

import jax
import numpy as np
import pytest

import liverjax
from liverjax.errors import CheckpointError, ConfigError


def test_a_run_is_loaded_with_the_views_that_it_has(tiny_run, phantom_scans, tmp_path):
    whole = liverjax.load_model(tiny_run)
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("sagittal", "coronal"))
    with pytest.raises(CheckpointError, match="coronal.* does not exist; train this view first"):
        liverjax.load_model(tmp_path / "run")
    axial = liverjax.load_model(tmp_path / "run", views=["axial"])
    assert axial.config.views == axial.networks.views == ("axial",)
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    one, other = (model.predict(scan) for model in (axial, whole.with_options(views=["axial"])))
    np.testing.assert_array_equal(one.grid_probabilities, other.grid_probabilities)
    with pytest.raises(
        ConfigError, match="views names 'oblique', but the model has only axial, coronal, sagittal"
    ):
        liverjax.load_model(tmp_path / "run", views=["oblique"])


def test_views_come_in_the_order_in_which_they_are_named(tiny_run):
    model = liverjax.load_model(tiny_run, views=["sagittal", "axial"])
    whole = liverjax.load_model(tiny_run)
    assert model.networks.views == ("sagittal", "axial")
    jax.tree.map(
        np.testing.assert_array_equal, model.networks.member("axial"), whole.networks.member("axial")
    )
    assert set(model.about["checkpoints"]) == {"sagittal", "axial"}
