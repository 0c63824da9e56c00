"""Liver, then tumours in the box around it: masks counted by hand, what both models' maps become, what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from liverjax import objects, options
from liverjax.errors import ConfigError, InputError
from liverjax.inference import Cascade, Networks, Segmenter
from liverjax.labels import decide
from liverjax.models import build_unet
from liverjax.objects import features, forest
from liverjax.prediction import Predictor
from liverjax.volume import Volume

SPACING = (2.0, 3.0, 4.0)
# Intensities in HU, and as the networks see them in the window of -160 to 240.
AIR, LIVER, TUMOR = -160, 140, 40
LIVER_CONFIG = options.Config(
    name="liver",
    preprocess=options.Preprocess(spacing=SPACING),
    model=options.Model(features=(4, 8)),
    batch=options.Batch(patch=(32, 32)),
)
TUMOR_CONFIG = dataclasses.replace(
    LIVER_CONFIG,
    target=options.Target(labels=("background", "tumor"), region="reference", margin_mm=8.0, dilation_mm=6.0),
)


@functools.cache
def _variables():
    network = build_unet(LIVER_CONFIG.model, 2, accelerator=False)
    return network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


def _segmenter(config, backend=None, subsets=None) -> Segmenter:
    model = Segmenter(config, Networks.stack({view: [_variables()] for view in config.views}), subsets)
    return model.with_backend(backend) if backend else model


def _softmax(chance):
    chance = np.asarray(chance, np.float32)
    return np.stack([1 - chance, chance], -1)


def _of_liver(view, slices, member=0):
    """Is sure of the liver's intensity (0.5 as the networks see it), and takes tumours for background."""
    return _softmax(np.where(slices > 0.25, 0.875, 0.0))


def _of_tumors(view, slices, member=0):
    """Finds the tumours' intensity (0); one view is less sure."""
    chance = 0.75 if view != "coronal" else 0.4375
    return _softmax(np.where((slices > -0.25) & (slices < 0.25), chance, 0.125))


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade(_segmenter(LIVER_CONFIG, _of_liver), _segmenter(TUMOR_CONFIG, _of_tumors))


def _scan() -> tuple[Volume, dict[str, tuple[slice, ...]]]:
    """A block of liver with a tumour inside, one that bulges out of it, and one far away; on the working grid."""
    voxels = np.full((40, 34, 26), AIR, np.int16)
    places = {
        "liver": np.s_[8:28, 6:22, 6:18],
        "inner": np.s_[12:15, 10:12, 9:11],
        "bulge": np.s_[25:34, 12:15, 10:12],
        "far": np.s_[12:15, 28:31, 9:11],
    }
    for name, place in places.items():
        voxels[place] = LIVER if name == "liver" else TUMOR
    return Volume(voxels, np.diag([*SPACING, 1.0])), places


def _expected(dilation_mm=6.0):
    """Labels by SciPy's distances; the liver model leaves the bulge out and its clean-up fills the inner hole."""
    scan, _ = _scan()
    tumor = scan.voxels == TUMOR
    liver = ndimage.binary_fill_holes(scan.voxels == LIVER)
    distance = ndimage.distance_transform_edt(~liver, sampling=SPACING)
    return np.where(tumor & (distance <= dilation_mm), 2, liver).astype(np.uint8)


def test_tumours_within_the_dilated_liver_are_united_with_it(cascade):
    scan, places = _scan()
    found = cascade.predict(scan)
    assert isinstance(cascade, Predictor) and np.array_equal(found.labels.voxels, _expected())
    # By hand: the bulge is no liver to the liver model, whose last voxels beside it lie at 27 along x. At 29 the
    # farthest of its voxels is sqrt(4^2 + 4^2) = 5.7 mm from one of them, at 30 the nearest sqrt(6^2 + 3^2) = 6.7 mm.
    assert (found.labels.voxels[25:30, 12:15, 10:12] == 2).all()
    assert not found.labels.voxels[30:].any() and not found.labels.voxels[places["far"]].any()
    assert (found.labels.voxels[places["inner"]] == 2).all()
    mm3 = 2 * 3 * 4
    assert found.volumes()["tumor"] == pytest.approx((3 * 2 * 2 + 5 * 3 * 2) * mm3 / 1000)
    assert sorted(one.ml for one in found.tumors.lesions) == pytest.approx([12 * mm3 / 1000, 30 * mm3 / 1000])
    inner = min(found.tumors.lesions, key=lambda one: one.ml)
    assert inner.centre_mm == pytest.approx((13 * 2, 10.5 * 3, 9.5 * 4)) and inner.kept
    assert inner.probability is None


@pytest.mark.parametrize("dilation", [0.0, 2.0, 4.0, 8.0])
def test_how_far_a_tumour_may_reach_is_the_configs(dilation):
    target = dataclasses.replace(TUMOR_CONFIG.target, dilation_mm=dilation)
    tumor = _segmenter(dataclasses.replace(TUMOR_CONFIG, target=target), _of_tumors)
    found = Cascade(_segmenter(LIVER_CONFIG, _of_liver), tumor).predict(_scan()[0])
    assert np.array_equal(found.labels.voxels, _expected(dilation))


def test_order_and_direction_of_axes_change_nothing(cascade):
    scan, _ = _scan()
    expected = cascade.predict(scan)
    for order, signs in (((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, -1, 1))):
        turned = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), np.column_stack([order, signs])
        )
        voxels = nib.orientations.apply_orientation(scan.voxels, turned)
        affine = scan.affine @ nib.orientations.inv_ornt_aff(turned, scan.shape)
        found = cascade.predict(Volume(voxels, affine))
        assert np.array_equal(
            found.labels.voxels, nib.orientations.apply_orientation(expected.labels.voxels, turned)
        )
        centres = [sorted(one.centre_mm for one in p.tumors.lesions) for p in (found, expected)]
        np.testing.assert_allclose(*centres, atol=1e-9)


def test_probabilities_are_those_of_the_nested_regions(cascade):
    scan, places = _scan()
    found = cascade.predict(scan, uncertainty=True, views=True)
    probabilities = found.probabilities()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    assert probabilities.min() >= 0
    # The mean of 0.75, 0.4375 and 0.75; the liver model's 0.875 elsewhere in the liver, of which 0.125 are tumour.
    tumor = (0.75 + 0.4375 + 0.75) / 3
    np.testing.assert_allclose(probabilities[13, 11, 10], (1 - tumor, 0, tumor), atol=1e-6)
    np.testing.assert_allclose(probabilities[20, 8, 8], (0.125, 0.75, 0.125), atol=1e-6)
    assert not probabilities[places["far"]][..., 1:].any()
    np.testing.assert_allclose(found.grid_probabilities, probabilities, atol=1e-6)
    # Before clean-up, the decision of these probabilities is the mask.
    labels = decide(list(np.moveaxis(probabilities, -1, 0)))
    assert np.array_equal(labels, found.labels.voxels)
    # expected Dice = 2 sum_M p / (|M| + sum p): nothing lies between the mask and probability 0 but the dilated rim.
    liver = 1 - probabilities[..., 0].astype(float)
    mask = liver >= 0.5
    assert found.expected_dice() == pytest.approx(
        2 * liver[mask].sum() / (mask.sum() + liver.sum()), rel=1e-5
    )
    assert found.slice_quality().shape == (26,) and found.slice_quality()[:4].min() == 1
    assert list(found.tumors.views) == list(TUMOR_CONFIG.views)
    maps = dict(found.tumor_maps())
    assert maps["coronal"][13, 11, 10] == pytest.approx(0.4375) and maps["axial"][13, 11, 10] == 0.75
    assert not maps["axial"][places["far"]].any()
    # Views disagree about tumours, and nowhere about the liver.
    assert found.uncertainty.mutual_information[13, 11, 10] > 0.05
    assert found.uncertainty.mutual_information[20, 8, 8] == pytest.approx(0, abs=1e-6)
    assert not found.uncertainty.entropy[places["far"]].any()
    alone = cascade.predict(scan)
    assert np.array_equal(alone.labels.voxels, found.labels.voxels) and not alone.tumors.views


def _filter(column="p_max", threshold=0.6, views=(), **candidates):
    names = features.feature_names(bool(views))
    arrays = {
        "roots": [0],
        "children": [[1, 2], [-1, -1], [-1, -1]],
        "feature": [names.index(column), 0, 0],
        "threshold": [threshold, 0, 0],
        "value": [0.4, 0.1, 0.8],
        "impurity": np.eye(len(names))[names.index(column)],
    }
    grown = forest.Forest(names, **{n: np.array(arrays[n], kind) for n, kind in forest.ARRAYS.items()})
    return objects.LesionFilter(
        grown, 0.5, objects.CandidateOptions(**{"threshold": 0.3, **candidates}), views
    )


def test_a_lesion_filter_drops_candidates_and_lists_them(cascade):
    scan, places = _scan()
    least = _filter("volume_ml", 0.5)  # The inner one has 0.288 ml, the bulge 0.72.
    found = Cascade(cascade.liver, cascade.tumor, least).predict(scan)
    expected = _expected()
    expected[places["inner"]] = 1
    assert np.array_equal(found.labels.voxels, expected)
    one, other = sorted(found.tumors.lesions, key=lambda lesion: lesion.candidate_ml)
    assert (one.probability, one.kept, one.ml) == (0.1, False, 0) and one.candidate_ml == pytest.approx(0.288)
    assert (other.probability, other.kept) == (0.8, True) and other.ml == pytest.approx(0.72)
    assert one.centre_mm == pytest.approx((26, 31.5, 38)) and other.centre_mm[0] == pytest.approx(27 * 2)
    moved = dataclasses.replace(least, lesion_probability=0.05)
    everything = Cascade(cascade.liver, cascade.tumor, moved).predict(scan)
    assert np.array_equal(everything.labels.voxels, _expected())
    # Views: the coronal one alone is below 0.5.
    of_views = _filter("view_lowest", 0.4, views=TUMOR_CONFIG.views)
    assert all(
        one.kept for one in Cascade(cascade.liver, cascade.tumor, of_views).predict(scan).tumors.lesions
    )


def test_of_a_candidate_that_is_kept_without_a_decision_all_is_tumour(cascade):
    def unsure(view, slices, member=0):
        return _softmax(np.where((slices > -0.25) & (slices < 0.25), 0.375, 0.0))

    tumor = _segmenter(TUMOR_CONFIG, unsure)
    scan, _ = _scan()
    assert not (Cascade(cascade.liver, tumor).predict(scan).labels.voxels == 2).any()
    kept = Cascade(cascade.liver, tumor, _filter("p_max", 0.3)).predict(scan).labels.voxels
    # The bulge is outside of the liver that the filter is given, beside which it allows 3 mm: in the notch that the
    # bulge makes in the liver one voxel along y at both sides, three along x, and one along x at its end; two slices.
    assert np.count_nonzero(kept == 2) == 12 + (2 * 3 + 1) * 2


def test_without_a_liver_nothing_is_sought(cascade, caplog):
    voxels = np.full((30, 30, 20), AIR, np.int16)
    voxels[5:20, 5:20, 5:15] = TUMOR
    found = cascade.predict(Volume(voxels, np.diag([*SPACING, 1.0])), uncertainty=True, views=True)
    assert not found.labels.voxels.any() and found.tumors is None
    assert "no liver is found" in found.doubts and "no liver is found" in caplog.text
    assert found.probabilities().shape == (30, 30, 20, 3) and found.volumes() == {"liver": 0, "tumor": 0}


def test_a_tumour_that_covers_the_liver_stays():
    def everything(view, slices, member=0):
        return _softmax(np.full(slices.shape, 0.75))

    found = Cascade(_segmenter(LIVER_CONFIG, _of_liver), _segmenter(TUMOR_CONFIG, everything)).predict(
        _scan()[0]
    )
    assert (found.labels.voxels[8:28, 6:22, 6:18] == 2).all()


@pytest.mark.parametrize(
    ("liver", "tumor", "message"),
    [
        (TUMOR_CONFIG, LIVER_CONFIG, "the liver model knows only the box .* are the two swapped?"),
        (
            LIVER_CONFIG,
            LIVER_CONFIG,
            "the tumour model knows only background, liver, no tumour; expected a model",
        ),
        (
            LIVER_CONFIG,
            dataclasses.replace(
                TUMOR_CONFIG, preprocess=dataclasses.replace(TUMOR_CONFIG.preprocess, modality="mr")
            ),
            "the liver model is for CT, the tumour model for MR; expected both for one modality, or one for any",
        ),
    ],
)
def test_models_that_do_not_go_together_are_refused(liver, tumor, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Cascade(_segmenter(liver), _segmenter(tumor))
    assert "\n" not in str(caught.value)


def test_models_for_any_modality_go_with_all():
    anything = dataclasses.replace(LIVER_CONFIG.preprocess, modality="any")
    Cascade(_segmenter(dataclasses.replace(LIVER_CONFIG, preprocess=anything)), _segmenter(TUMOR_CONFIG))
    mr = dataclasses.replace(TUMOR_CONFIG.preprocess, modality="mr")
    liver = _segmenter(dataclasses.replace(LIVER_CONFIG, preprocess=mr))
    Cascade(liver, _segmenter(dataclasses.replace(TUMOR_CONFIG, preprocess=anything)))


def test_a_filter_of_views_that_the_tumour_model_lacks_is_refused(cascade):
    axial = _segmenter(dataclasses.replace(TUMOR_CONFIG, views=("axial",)), _of_tumors)
    with pytest.raises(
        ConfigError, match="of the coronal view, but the tumour model has only axial; .*--noviews"
    ):
        Cascade(cascade.liver, axial, _filter("view_sd", views=("axial", "coronal")))
    assert Cascade(cascade.liver, axial, _filter()).predict(_scan()[0]).tumors.lesions


def test_options_are_for_both_models_or_for_one(cascade):
    changed = cascade.with_options(None, ["predict.min_tumor_mm3=300"], accumulator="host")
    assert {m.config.predict.min_tumor_mm3 for m in (changed.liver, changed.tumor)} == {300}
    assert {m.config.predict.accumulator for m in (changed.liver, changed.tumor)} == {"host"}
    # The inner tumour has 288 mm3.
    inner = _scan()[1]["inner"]
    assert (changed.predict(_scan()[0]).labels.voxels[inner] == 1).all()
    one = cascade.with_options(None, ["tumor.predict.min_tumor_mm3=300", "liver.predict.fill_holes=false"])
    assert (one.liver.config.predict.min_tumor_mm3, one.tumor.config.predict.min_tumor_mm3) == (0, 300)
    assert (one.liver.config.predict.fill_holes, one.tumor.config.predict.fill_holes) == (False, True)
    with pytest.raises(ConfigError, match=r"target.margin_mm .*: fixed by training"):
        cascade.with_options(None, ["target.margin_mm=3"])
    only = cascade.with_options(["axial"])
    assert only.liver.config.views == only.tumor.config.views == ("axial",)


def test_test_cases_are_those_that_neither_model_has_seen():
    subsets = {"train": ["a"], "validation": ["b"], "test": ["c", "d"]}
    tumor = _segmenter(TUMOR_CONFIG, subsets=subsets)
    other = _segmenter(LIVER_CONFIG, subsets={"train": ["d"], "validation": [], "test": ["c"]})
    both = Cascade(other, tumor)
    assert both.subset("test") == ["c"] and both.subset("train") == ["a"]
    assert Cascade(_segmenter(LIVER_CONFIG), tumor).subset("test") == ["c", "d"]
    with pytest.raises(InputError, match="all 2 test cases of the tumour model trained the liver model"):
        Cascade(_segmenter(LIVER_CONFIG, subsets={"train": ["c", "d"]}), tumor).subset("test")


def test_another_liver_within_the_raster_compiles_nothing(cascade):
    """Networks that jax computes; the sizes of the boxes differ along every axis, and are padded alike."""
    model = Cascade(cascade.liver, _segmenter(TUMOR_CONFIG), _filter("view_sd", views=TUMOR_CONFIG.views))
    affine = np.diag([*SPACING, 1.0])
    large, small = (np.full((60, 50, 40), AIR, np.int16) for _ in range(2))
    large[8:30, 6:26, 6:26] = LIVER
    small[20:33, 22:33, 9:21] = LIVER
    shapes, events, listening = [], [], True

    def note(event, _, **__):
        if listening and event.startswith("/jax/core/compile"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for voxels in (large, small):
            found = model.predict(Volume(voxels, affine), uncertainty=True, views=True)
            shapes.append((found.tumors.grid.shape, len(events)))
    finally:
        listening = False  # jax 0.7 has no public way to take a listener away.
    # Liver and 8 mm on each side: 22 and 4 + 4 voxels of 2 mm, 20 and 3 + 3 of 3 mm, 20 and 2 + 2 of 4 mm.
    assert shapes[0] == ((30, 26, 24), shapes[1][1]) and shapes[1][0] == (21, 17, 16) and events


def test_memory_is_that_of_the_larger_stage(cascade):
    affine = np.diag([0.8, 0.8, 2.0, 1.0])
    need, alone = (model.memory((512, 512, 130), affine) for model in (cascade, cascade.liver))
    assert need.slab >= alone.slab and need.accumulator >= alone.accumulator
    assert need.scan - alone.scan == 8 * 512 * 512 * 130
    # The box of a large liver, not the scan: 310 + 16 of 410 mm, 245 + 16 of 410 mm, and all 260 mm.
    box = cascade.tumor.memory((512, 512, 130), affine)
    assert box.accumulator < 0.8 * alone.accumulator
