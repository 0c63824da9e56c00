"""Stores of boxes around the liver: distances, lesions, predicted livers, weights of pixels, and what is refused."""

import dataclasses
import json
import logging
import types

import nibabel as nib
import numpy as np
import pytest

from liverjax.config import override
from liverjax.data.pipeline import PixelWeights, pixel_weights, train_batches, validation_batches
from liverjax.data.sampling import Sampler
from liverjax.data.store import open_store, prepare
from liverjax.errors import ConfigError, InputError
from liverjax.objects import components
from liverjax.options import Batch
from liverjax.views import VIEWS, from_stack

BOXES = ("target.region=reference", "target.labels=background,tumor", "target.margin_mm=24")


@pytest.fixture(scope="module")
def boxed(tiny_config, phantom_scans, made_once):
    config = override(tiny_config, BOXES)
    store = made_once("tumor_boxes", lambda folder: prepare(phantom_scans, folder, config, quiet=True))
    return dataclasses.replace(config, store=str(store))


@pytest.fixture(scope="module")
def cases(boxed):
    return open_store(boxed.store, boxed.preprocess, boxed.target).cases


def test_all_views_hold_the_same_distances_and_lesions(cases):
    for case in cases:
        whole = {
            name: from_stack(np.asarray(getattr(case, name)("axial")), "axial")
            for name in ("labels", "distance", "lesions")
        }
        for view in VIEWS[1:]:
            for name, volume in whole.items():
                stack = np.asarray(getattr(case, name)(view))
                np.testing.assert_array_equal(from_stack(stack, view), volume)
        assert ((whole["distance"] == 0) == (whole["labels"] > 0)).all()
        ids = components.label(whole["labels"] == 2)
        np.testing.assert_array_equal(whole["lesions"], ids)
        volumes = [lesion.volume_ml * 1000 for lesion in components.lesions(ids, (8.0, 8.0, 8.0))]
        np.testing.assert_allclose(case.lesions_mm3, volumes)


def test_weights_of_lesions_have_the_stated_formula_and_a_mean_of_one(boxed):
    config = override(boxed, ("loss.lesion_power=0.5", "loss.lesion_floor_mm3=100"))
    made = [types.SimpleNamespace(lesions_mm3=volumes) for volumes in ((25.0, 400.0), (), (10_000.0,))]
    weights = pixel_weights(made, config)
    # Raw: 100**-.5, 400**-.5, 10000**-.5 = 0.1, 0.05, 0.01; the mean over voxels is (2.5 + 20 + 100) / 10425.
    mean = 122.5 / 10425
    np.testing.assert_allclose(weights[0].lesions, [1, 0.1 / mean, 0.05 / mean], rtol=1e-6)
    np.testing.assert_allclose(weights[2].lesions, [1, 0.01 / mean], rtol=1e-6)
    assert weights[1].lesions.tolist() == [1]
    total = sum(
        (np.array(case.lesions_mm3) * w.lesions[1:]).sum() for case, w in zip(made, weights, strict=True)
    )
    assert total == pytest.approx(10425, rel=1e-6)
    # Without power all count alike.
    assert all((w.lesions == 1).all() for w in pixel_weights(made, boxed))


def test_what_is_beyond_the_dilated_liver_does_not_count():
    weights = PixelWeights(5.0, np.float32([1, 3]))
    found = weights.of(np.uint8([[0, 5, 6], [0, 2, 255]]), np.uint16([[1, 0, 0], [0, 1, 1]]))
    np.testing.assert_array_equal(found, [[3, 1, 0], [1, 3, 0]])


def test_batches_have_their_share_of_slices_with_tumour_and_show_some_of_it(boxed, cases):
    stratified = (
        "batch.stratified=true",
        "batch.tumor_share=0.5",
        "batch.patch=16,16",
        "batch.liver_share=0",
    )
    config = override(boxed, stratified)
    settings = {"first_step": 0, "last_step": 12, "process": 0, "processes": 1}
    for batch in train_batches(cases, "axial", config, **settings):
        assert set(np.unique(batch["label"])) <= {0, 1}
        assert ((batch["label"] == 1) & (batch["pixel_weight"] > 0)).any((1, 2))[:2].all()
    # The draw says of which rows: those of the first half, in each batch.
    sampler = Sampler(cases, ["axial"], config.batch, config.seed)
    assert all(
        (sampler.draw(step, row).tumor is not None) == (row < 2) for step in range(20) for row in range(4)
    )


def test_each_batch_has_the_shares_rounded_if_they_are_stratified(cases):
    options = Batch(size=8, tumor_share=0.25, liver_share=0.5, empty_share=0.25, stratified=True)
    sampler = Sampler(cases, ["axial"], options, seed=1)
    for step in range(30):
        draws = [sampler.draw(step, row) for row in range(8)]
        liver, tumor = np.array([cases[d.case].counts["axial"][d.slice] for d in draws]).T
        assert (tumor[:2] > 0).all() and (liver[2:6] > 0).all() and (liver[6:] == 0).all()


def test_validation_slices_count_within_the_dilated_liver_and_number_their_lesions(boxed, cases):
    batches = validation_batches(cases[:3], "axial", override(boxed, ("train.validation_slices=200",)))
    number = {}
    for batch in batches:
        tumor = batch["label"] == 1
        assert ((batch["lesion"] > 0) == tumor).all() and set(np.unique(batch["pixel_weight"])) <= {0, 1}
        for case, lesions in zip(batch["case"], batch["lesion"], strict=True):
            for lesion in np.unique(lesions[lesions > 0]):
                assert number.setdefault(int(lesion), int(case)) == case  # A lesion is of one case.
    assert len(number) == sum(len(case.lesions_mm3) for case in cases[:3])


# --- predicted livers ---------------------------------------------------------------------------------------


def _predictions(scans, folder, shift=0):
    folder.mkdir()
    for path in (scans / "labelsTr").iterdir():
        mask = nib.load(path)
        liver = np.roll((np.asarray(mask.dataobj) > 0).astype(np.uint8), shift, axis=0)
        nib.save(nib.Nifti1Image(liver, mask.affine), folder / path.name)
    return folder


def test_boxes_around_predicted_livers(two_scans, tiny_config, tmp_path, caplog):
    reference = override(tiny_config, BOXES)
    predicted = override(reference, ("target.region=predicted",))
    with pytest.raises(ConfigError, match="give --livers=FOLDER"):
        prepare(two_scans, tmp_path / "none", predicted, quiet=True)
    same = prepare(
        two_scans, tmp_path / "a", predicted, livers=_predictions(two_scans, tmp_path / "l"), quiet=True
    )
    by_mask = prepare(two_scans, tmp_path / "b", reference, quiet=True)
    for one, other in zip(same.cases, by_mask.cases, strict=True):
        for view in VIEWS:
            for name in ("image", "labels", "distance", "lesions"):
                np.testing.assert_array_equal(getattr(one, name)(view), getattr(other, name)(view))
        assert one.fingerprint[:2] == other.fingerprint and len(one.fingerprint) == 3
    assert not [record for record in caplog.records if "lie outside" in record.message]
    # A liver in another place: its tumours keep the reference's place, and the doubt says what is lost.
    elsewhere = _predictions(two_scans, tmp_path / "m", shift=9)
    moved = prepare(two_scans, tmp_path / "c", predicted, livers=elsewhere, quiet=True)
    assert any(
        "of tumours lie outside the liver of" in doubt for case in moved.cases for doubt in case.doubts
    )
    assert all(a.fingerprint[2] != b.fingerprint[2] for a, b in zip(moved.cases, same.cases, strict=True))
    # Which livers it was is part of the store's identity and of each case's.
    with pytest.raises(ConfigError, match="target.region predicted, now reference"):
        open_store(tmp_path / "c", reference.preprocess, reference.target)


def test_livers_for_another_region_and_missing_ones_are_refused_and_the_remedies_work(
    two_scans, tiny_config, tmp_path
):
    reference = override(tiny_config, BOXES)
    livers = _predictions(two_scans, tmp_path / "livers")
    with pytest.raises(
        ConfigError, match="expected 'predicted' with a folder of predicted livers; set target.reg"
    ):
        prepare(two_scans, tmp_path / "store", reference, livers=livers, quiet=True)
    predicted = override(reference, ("target.region=predicted",))
    path = livers / "phantom_002.nii.gz"
    mask = nib.load(path)
    voxels = np.asarray(mask.dataobj)
    path.unlink()
    with pytest.raises(
        InputError, match=r"no mask of 1 of 2 cases, the first phantom_002.nii.gz; run `liverjax pred"
    ):
        prepare(two_scans, tmp_path / "store", predicted, livers=livers, quiet=True)
    nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)
    with pytest.raises(InputError, match=r"livers/phantom_002.nii.gz: holds no liver, expected one"):
        prepare(two_scans, tmp_path / "store", predicted, livers=livers, quiet=True)
    nib.save(nib.Nifti1Image(voxels, mask.affine), path)
    assert len(prepare(two_scans, tmp_path / "store", predicted, livers=livers, quiet=True).cases) == 2
    assert len(prepare(two_scans, tmp_path / "other", reference, quiet=True).cases) == 2


# --- doubts -------------------------------------------------------------------------------------------------


def test_a_tumour_outside_the_liver_is_doubted(two_scans, tiny_config, tmp_path):
    path = two_scans / "labelsTr" / "phantom_001.nii.gz"
    mask = nib.load(path)
    voxels = np.asarray(mask.dataobj).astype(np.uint8)
    assert not voxels[:3, :3, :3].any()
    voxels[:2, :2, :2] = 2
    nib.save(nib.Nifti1Image(voxels, mask.affine), path)
    cases = prepare(two_scans, tmp_path / "store", override(tiny_config, BOXES), quiet=True).cases
    # 8 voxels of 512 mm3.
    assert (
        "tumours outside the liver, one of 4.1 ml at" in cases[0].doubts[-1]
        and "verify" in cases[0].doubts[-1]
    )
    assert not cases[1].doubts


def test_masks_without_a_value_for_tumours_are_warned_of(two_scans, tiny_config, tmp_path, caplog):
    facts = two_scans / "dataset.json"
    facts.write_text(facts.read_text(encoding="utf-8").replace('"tumor"', '"spleen"'), encoding="utf-8")
    config, words = override(tiny_config, BOXES), "2 cases, the first phantom_001, have masks without a label"
    with caplog.at_level(logging.WARNING, "liverjax"):
        prepare(two_scans, tmp_path / "store", config, quiet=True)
        assert words in caplog.text
        # The remedy: they are listed, and no longer warned of; a training would leave them out.
        caplog.clear()
        (two_scans / "cases.json").write_text(
            '{"liver_only": ["phantom_001", "phantom_002"]}', encoding="utf-8"
        )
        cases = prepare(two_scans, tmp_path / "store", config, quiet=True).cases
    assert words not in caplog.text and all(case.liver_only for case in cases)


def test_what_is_missing_or_damaged_of_a_box_is_made_again(two_scans, tiny_config, tmp_path, contents):
    config, store = override(tiny_config, BOXES), tmp_path / "store"
    prepare(two_scans, store, config, quiet=True)
    fresh = contents(store)
    assert len(fresh) == 1 + 2 * 13
    case = store / "cases" / "phantom_001"
    (case / "coronal_distance.npy").unlink()
    content = bytearray((case / "axial_lesions.npy").read_bytes())
    content[-1] ^= 1
    (case / "axial_lesions.npy").write_bytes(content)
    opened = open_store(store, config.preprocess, config.target).cases[0]
    with pytest.raises(
        InputError, match=r"coronal_distance.npy: not readable .* run `liverjax prepare` again"
    ):
        opened.distance("coronal")
    prepare(two_scans, store, config, quiet=True)
    assert contents(store) == fresh
    facts = json.loads((case / "case.json").read_text(encoding="utf-8"))
    (case / "case.json").write_text(json.dumps({**facts, "lesions_mm3": [-1.0]}), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"case.json: lesions_mm3 is \[-1.0\], expected volumes above 0; run"
    ):
        open_store(store, config.preprocess, config.target)
    prepare(two_scans, store, config, quiet=True)
    assert contents(store) == fresh
