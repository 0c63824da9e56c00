"""The contact sheet's content, and the command that writes it."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from liverjax.commands.dispatch import main
from liverjax.data.augment import AIR
from liverjax.data.preview import augmented_slices
from liverjax.data.store import open_store
from liverjax.options import Augment, Target
from liverjax.scans import intensity


@pytest.fixture(scope="module")
def cases(tiny_config):
    return open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target).cases


def _with(config, **ranges):
    off = {field.name: 0.0 for field in dataclasses.fields(Augment) if field.name != "own"}
    return dataclasses.replace(config, augment=Augment(**{**off, **ranges}))


def test_rows_begin_with_the_slice_as_stored_and_go_on_with_changes_of_it(tiny_config, cases):
    sheet = augmented_slices(cases[:3], "coronal", tiny_config, rows=2, steps=3)
    assert sheet.images.shape == sheet.labels.shape == (2, 4, 48, 48)
    # Of three cases in two rows, those at 1/4 and 3/4 of the way.
    for row, case in enumerate((cases[0], cases[2])):
        amount = case.counts["coronal"]
        index = amount[:, 1].argmax() if amount[:, 1].any() else amount[:, 0].argmax()
        assert sheet.rows[row] == f"{case.id}\nslice {index}"
        # 36 x 48 in a patch of 48 x 48.
        expected = intensity.normalise(case.image("coronal")[index] * case.scale, *case.window)
        np.testing.assert_allclose(sheet.images[row, 0, 6:42], expected, atol=1e-6)
        np.testing.assert_array_equal(sheet.labels[row, 0, 6:42], case.labels("coronal")[index])
        assert (sheet.images[row, 0, :6] == AIR).all()
    for a in range(4):
        for b in range(a):
            assert np.abs(sheet.images[:, a] - sheet.images[:, b]).max() > 0.1
    assert sheet.columns == ["as stored", "step 0", "step 1", "step 2"]
    assert "coronal" in sheet.title and "rotation 15" in sheet.title and "elastic" not in sheet.title


def test_tumours_are_shown_as_such_by_a_network_without_a_class_for_the_liver(tiny_config, cases):
    target = Target(labels=("background", "tumor"), region="reference")
    sheet = augmented_slices(cases[1:2], "axial", dataclasses.replace(tiny_config, target=target), steps=1)
    assert set(np.unique(sheet.labels)) == {0, 2}


def test_without_augmentation_all_columns_are_the_first(tiny_config, cases):
    sheet = augmented_slices(cases, "axial", _with(tiny_config), steps=2)
    np.testing.assert_allclose(sheet.images[:, 1:], sheet.images[:, :1].repeat(2, axis=1), atol=1e-6)
    np.testing.assert_array_equal(sheet.labels[:, 1:], sheet.labels[:, :1].repeat(2, axis=1))


def test_labels_are_those_of_the_images_after_strong_deformation(tiny_config, cases, tmp_path):
    """Cases whose scan is their mask: wherever an image is certain, the label beside it says the same."""
    painted = []
    for case in cases[:4]:
        folder = tmp_path / case.id
        folder.mkdir()
        labels = np.array(case.labels("axial"))
        np.save(folder / "axial_labels.npy", labels)
        np.save(folder / "axial.npy", np.where(labels, 1000, -1000).astype(np.int16))
        painted.append(
            dataclasses.replace(case, folder=folder, scale=1.0, window=intensity.Window(-1000.0, 1000.0))
        )
    config = _with(tiny_config, rotation=40.0, scale=0.3, shift=6.0, elastic=6.0, flip=0.5)
    sheet = augmented_slices(painted, "axial", config)
    certain = np.abs(sheet.images) > 0.98
    assert certain.mean() > 0.8
    np.testing.assert_array_equal(sheet.labels[certain] > 0, sheet.images[certain] > 0)
    assert (sheet.labels[:, 1:] != sheet.labels[:, :1]).any()


def _prepare(scans, store, *flags):
    return ["prepare", "-i", str(scans), "-o", str(store), "--config=demo", "--quiet", *flags]


def test_the_command_writes_a_sheet_for_each_view(phantom_scans, tmp_path, capsys):
    store = tmp_path / "store"
    command = _prepare(phantom_scans, store, "--preview", "--config.views=axial,sagittal")
    assert main([*command, "--config.preprocess.spacing=8,8,8"]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in (store / "preview").iterdir()) == ["axial.png", "sagittal.png"]
    assert imread(store / "preview" / "axial.png")[..., :3].std() > 0.1


def test_a_sheet_that_cannot_be_written_leaves_nothing(phantom_scans, tmp_path, capsys):
    store = tmp_path / "store"
    (store / "preview" / "axial.png").mkdir(parents=True)
    command = _prepare(phantom_scans, store, "--preview", "--config.views=axial")
    assert main([*command, "--config.preprocess.spacing=8,8,8"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("liverjax: error: ") and "axial.png" in printed and printed.count("\n") == 1
    assert [path.name for path in (store / "preview").iterdir()] == ["axial.png"]


def test_without_a_sheet_prepare_needs_no_jax(phantom_scans, tmp_path):
    command = [*_prepare(phantom_scans, tmp_path / "store"), "--config.preprocess.spacing=8,8,8"]
    code = f"import sys; from liverjax.commands.dispatch import main; assert main({command!r}) == 0; "
    code += "assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
