"""A model on scans of all kinds: masks that lie exactly on the scan, phases, odd sizes, no second compilation."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import liverjax
from liverjax import options
from liverjax.errors import CheckpointError, ConfigError, InputError
from liverjax.inference import Devices, Networks, Segmenter
from liverjax.models import build_unet
from liverjax.prediction import Predictor
from liverjax.scans import Reading, nifti
from liverjax.training.loop import train
from liverjax.volume import Volume

OBLIQUE = np.array(sitk.Euler3DTransform((0, 0, 0), 0.25, -0.15, 0.3).GetMatrix()).reshape(3, 3)
CONFIG = options.Config(
    target=options.Target(labels=("background", "liver", "tumor")),
    preprocess=options.Preprocess(spacing=(6.0, 6.0, 6.0)),
    batch=options.Batch(patch=(48, 48)),
    model=options.Model(features=(4, 8)),
    predict=options.Predict(largest_component=False, fill_holes=False, tumor_within_liver=False),
)


@pytest.fixture(scope="module")
def model() -> Segmenter:
    """Networks that were never trained, and so find all classes in any scan."""
    network = build_unet(CONFIG.model, 3, accelerator=False)
    noise = np.random.default_rng(5)

    def init(seed):
        variables = network.init(jax.random.key(seed), jnp.zeros((1, 16, 16, 1)))
        return jax.tree.map(lambda a: a + jnp.asarray(noise.uniform(-0.3, 0.3, a.shape), a.dtype), variables)

    return Segmenter(CONFIG, Networks.stack({view: [init(seed)] for seed, view in enumerate(CONFIG.views)}))


def _scan(shape=(20, 24, 15), affine=None) -> Volume:
    coarse = np.random.default_rng(0).uniform(-200, 300, [n // 5 + 1 for n in shape])
    voxels = np.kron(coarse, np.ones((5, 5, 5)))[tuple(map(slice, shape))]
    return Volume(voxels.astype(np.int16), np.diag([4.0, 5.0, 9.0, 1.0]) if affine is None else affine)


def _orientations():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, order] * signs


@pytest.mark.parametrize("rotation", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_the_mask_has_shape_and_affine_of_the_scan_in_every_orientation(model, rotation, tmp_path):
    for directions in _orientations():
        affine = np.eye(4)
        affine[:3, :3] = rotation @ directions * (7.0, 8.0, 9.0)
        affine[:3, 3] = (-40.0, 25.5, 310.25)
        image = nib.Nifti1Image(_scan((10, 12, 9)).voxels, affine)
        image.set_qform(affine, code=1)
        image.to_filename(tmp_path / "scan.nii.gz")
        prediction = model.predict(tmp_path / "scan.nii.gz")
        nifti.write(tmp_path / "mask.nii.gz", prediction.labels)

        scan, mask = (nib.load(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
        assert np.array_equal(mask.affine, scan.affine)
        for getter in ("get_qform", "get_sform"):
            for one, other in zip(
                getattr(mask, getter)(coded=True), getattr(scan, getter)(coded=True), strict=True
            ):
                assert np.array_equal(one, other)
        scan, mask = (sitk.ReadImage(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        for getter in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, getter)() == getattr(scan, getter)()


def test_the_mask_moves_with_the_patient_not_with_the_order_of_the_voxels(model):
    scan = _scan()
    expected = model.predict(scan).labels.voxels
    assert set(np.unique(expected)) == {0, 1, 2}
    # The same patient, stored with x and z exchanged and y reversed.
    other = np.eye(4)
    other[:3, :3] = scan.affine[:3, :3] @ np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]])
    other[:3, 3] = scan.affine[:3, 3] + scan.affine[:3, 1] * (scan.shape[1] - 1)
    stored = Volume(np.ascontiguousarray(scan.voxels[:, ::-1].transpose(2, 1, 0)), other)
    found = model.predict(stored).labels.voxels.transpose(2, 1, 0)[:, ::-1]
    assert (found != expected).mean() < 1e-3  # rounding in another order of sums, at ties


def test_labels_are_decided_from_the_probabilities_on_the_scan(model):
    by_rule = {rule: model.with_options(decision=rule).predict(_scan()) for rule in ("argmax", "nested")}
    probabilities = by_rule["nested"].probabilities()
    assert probabilities.shape == (20, 24, 15, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    background, liver, tumor = np.moveaxis(probabilities, -1, 0)
    nested = np.where(liver + tumor > background, 1 + (tumor > liver), 0)
    assert np.array_equal(by_rule["nested"].labels.voxels, nested)
    assert np.array_equal(by_rule["argmax"].labels.voxels, probabilities.argmax(-1))
    assert (nested != probabilities.argmax(-1)).any()


def test_a_phase_of_a_dynamic_series_is_segmented_as_if_alone(model, tmp_path):
    phases = [_scan().voxels, np.roll(_scan().voxels, 7, axis=0)]
    nib.Nifti1Image(np.stack(phases, -1), _scan().affine).to_filename(tmp_path / "dce.nii.gz")
    for phase, voxels in ((0, phases[0]), ("last", phases[1])):
        mask = model.predict(tmp_path / "dce.nii.gz", reading=Reading(phase=phase)).labels
        assert np.array_equal(mask.voxels, model.predict(_scan().with_voxels(voxels)).labels.voxels)
        nifti.write(tmp_path / "mask.nii.gz", mask)
        assert nib.load(tmp_path / "mask.nii.gz").shape == (20, 24, 15)
    with pytest.raises(InputError, match=r"dce\.nii\.gz: holds 2 phases and none is chosen"):
        model.predict(tmp_path / "dce.nii.gz")


@pytest.mark.parametrize("shape", [(40, 30, 1), (1, 30, 20), (3, 2, 2), (1, 1, 1)])
def test_single_slices_and_scans_smaller_than_a_patch(model, shape):
    prediction = model.predict(_scan(shape))
    assert prediction.labels.shape == shape
    assert prediction.slice_quality().shape == shape[2:]


def test_uncertainty_leaves_the_mask_alone(model):
    plain = model.predict(_scan())
    with_maps = model.predict(_scan(), uncertainty=True, mc_samples=3)
    assert plain.uncertainty is None
    assert np.array_equal(with_maps.labels.voxels, plain.labels.voxels)
    np.testing.assert_allclose(with_maps.grid_probabilities, plain.grid_probabilities, atol=1e-6)
    on_scan = with_maps.on_scan(with_maps.uncertainty.entropy)
    assert on_scan.shape == plain.labels.shape and 0 <= on_scan.voxels.min() < on_scan.voxels.max() <= 1


def test_a_model_keeps_what_was_trained(model):
    network, variables = model.trained("coronal")
    assert network.norm == "batch" and not network.joined and set(variables) == {"params", "batch_stats"}
    slices = np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32)
    expected = network.apply(variables, slices)
    folded = model.network.apply(model.folded.member("coronal"), slices)
    np.testing.assert_allclose(folded, expected, atol=1e-5 * np.abs(expected).max())


def test_other_options_fold_nothing_again(model):
    other = model.with_options(overrides=["predict.fusion=majority"], decision="argmax")
    assert other.config.predict.fusion == "majority" and model.config.predict.fusion == "mean"
    assert other.folded.variables["axial"] is model.folded.variables["axial"]
    assert isinstance(other, Predictor)


def test_another_backend_computes_the_same_mask(model):
    def backend(view, slices, member):
        logits = model.network.apply(model.folded.member(view, member), slices[..., None])
        return np.asarray(jax.nn.softmax(logits))

    one, other = model.predict(_scan()), model.with_backend(backend).predict(_scan(), uncertainty=True)
    np.testing.assert_allclose(other.grid_probabilities, one.grid_probabilities, atol=1e-5)
    assert (other.labels.voxels != one.labels.voxels).mean() < 1e-3
    with pytest.raises(ConfigError, match="2 samples of dropout need jax"):
        model.with_backend(backend).predict(_scan(), mc_samples=2)
    with pytest.raises(ConfigError, match=r"predict\.ensemble cannot change behind a backend"):
        model.with_backend(backend).with_options(ensemble="best")
    assert (
        model.with_options(ensemble="best").with_backend(backend).predict(_scan()).labels.shape
        == _scan().shape
    )


@pytest.mark.parametrize("fusion", ["mean", "majority"])
def test_quality_and_volumes_are_those_of_the_mask(model, fusion):
    prediction = model.with_options(fusion=fusion, largest_component=True).predict(_scan())
    assert (prediction.other_mean is None) == (fusion == "mean")
    mean = model.predict(_scan()).probabilities()
    liver, mask = 1 - mean[..., 0], prediction.labels.voxels > 0
    shared = (liver * mask).sum((0, 1)) * 20  # mm2 of 4 x 5 mm
    both = (liver.sum((0, 1)) + mask.sum((0, 1))) * 20
    np.testing.assert_allclose(prediction.slice_quality(), (2 * shared + 100) / (both + 100), atol=1e-5)
    volumes = prediction.volumes()
    assert volumes["liver"] == pytest.approx(mask.sum() * 0.18)
    assert volumes["tumor"] == pytest.approx((prediction.labels.voxels == 2).sum() * 0.18)


def test_the_time_of_each_stage_is_noted(model):
    assert set(model.predict(_scan()).seconds) == {"read", "resample", "network", "back"}


def test_devices_give_the_same_mask(model):
    first, second = (model.predict(_scan(), devices=Devices([device])) for device in jax.local_devices())
    assert np.array_equal(first.labels.voxels, second.labels.voxels)


def test_a_run_is_loaded_and_its_damage_named(tiny_config, phantom_scans, tmp_path):
    import dataclasses

    config = dataclasses.replace(tiny_config, views=("axial",))
    train(config, tmp_path / "run", quiet=True)
    model = liverjax.load_model(tmp_path / "run")
    assert set(model.subsets) == {"train", "validation", "test"} and all(model.subsets.values())
    scan = phantom_scans / "imagesTr" / f"{model.subsets['test'][0]}_0000.nii.gz"
    assert model.predict(scan).labels.shape == nib.load(scan).shape

    with pytest.raises(CheckpointError, match=r"run\.json does not exist"):
        liverjax.load_model(tmp_path)
    block = next(path for path in (tmp_path / "run" / "axial" / "best").rglob("d/*") if path.is_file())
    block.write_bytes(bytes([block.read_bytes()[0] ^ 1]) + block.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"axial/best.*checksum"):
        liverjax.load_model(tmp_path / "run")


def test_chosen_views_and_other_prediction_fields(model):
    scan = _scan()
    alone = model.with_options(views=["sagittal"])
    by_view, _ = model.view_probabilities(scan)
    np.testing.assert_array_equal(alone.predict(scan).grid_probabilities, by_view["sagittal"][0])
    # What is left out of the fusion is not lost.
    again = alone.with_options(views=model.config.views)
    np.testing.assert_array_equal(
        again.predict(scan).grid_probabilities, model.predict(scan).grid_probabilities
    )
    changed = model.with_options(overrides=["predict.min_liver_mm3=5", "views=axial"], fusion="majority")
    assert changed.config.predict == dataclasses.replace(CONFIG.predict, min_liver_mm3=5.0, fusion="majority")
    assert changed.config.views == ("axial",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": ["model.dropout=0.1"]}, "model.dropout 0.5, now 0.1: fixed by training"),
        ({"overrides": ["predict.fusoin=mean"]}, "did you mean 'fusion'"),
        ({"views": ["axail"]}, "views is 'axail'; did you mean 'axial'"),
        ({"views": []}, "expected one or more views"),
        ({"fusion": "majorty"}, "did you mean 'majority'"),
    ],
)
def test_options_that_do_not_fit_a_model_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        model.with_options(**options)


def test_a_view_that_was_not_trained_is_refused(model):
    config = dataclasses.replace(CONFIG, views=("axial",))
    only = Segmenter(config, model.networks.select(["axial"]))
    with pytest.raises(ConfigError, match="views names 'coronal', but the model has only axial"):
        only.with_options(views=["axial", "coronal"])


def test_a_model_of_the_livers_box_does_not_segment_a_whole_scan(model):
    target = dataclasses.replace(CONFIG.target, region="reference")
    inside = Segmenter(dataclasses.replace(CONFIG, target=target), model.networks)
    with pytest.raises(ConfigError, match="target.region is 'reference': this model knows only the box"):
        inside.predict(_scan())
