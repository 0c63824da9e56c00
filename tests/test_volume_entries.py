"""Every public function that takes a `Volume`: what is no scan is refused in a line, and never used in silence."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

import liverjax
from liverjax import options, planning
from liverjax.errors import InputError
from liverjax.inference import Cascade, Networks, Segmenter, plausible
from liverjax.insight import changes, seen
from liverjax.models import build_unet
from liverjax.report import figures
from liverjax.report.figures import response
from liverjax.scans import grid, images, liver_box, nifti, write
from liverjax.studies.calibration import sample
from liverjax.volume import Volume, check_voxels, label_voxels

PACKAGE = pathlib.Path(liverjax.__file__).parent
CONFIG = options.Config(
    target=options.Target(labels=("background", "liver", "tumor")),
    preprocess=options.Preprocess(spacing=(4.0, 4.0, 4.0)),
    batch=options.Batch(patch=(16, 16)),
    model=options.Model(features=(4, 8)),
)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
VOXELS = np.arange(8 * 7 * 6, dtype=np.int16).reshape(8, 7, 6) % 3
SCAN = Volume(VOXELS, AFFINE)
GRID = grid.Grid(SCAN.shape, AFFINE)
SEEN = seen.Seen(SCAN, VOXELS, VOXELS, VOXELS[..., None], GRID, 1, 1.0)


@pytest.fixture(scope="module")
def model() -> Segmenter:
    """Networks that were never trained."""
    network = build_unet(CONFIG.model, 3, accelerator=False)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    return Segmenter(CONFIG, Networks.stack({view: [variables] for view in CONFIG.views}))


# Function and argument -> how it is called with a scan, a model and a folder.
ENTRIES = {
    "inference.segmenter.Segmenter.predict.scan": lambda v, model, folder: model.predict(v),
    "inference.cascade.Cascade.predict.scan": lambda v, model, folder: Cascade(model, model).predict(v),
    "inference.segmenter.Segmenter.network_input.volume": lambda v, model, folder: model.network_input(v),
    "inference.segmenter.Segmenter.view_probabilities.volume": lambda v, model, _: model.view_probabilities(
        v
    ),
    "inference.plausible.evidence.labels": lambda v, model, _: plausible.evidence(
        v, VOXELS, VOXELS > 0, AFFINE, 0.9
    ),
    "scans.images.as_volume.scan": lambda v, model, folder: check_voxels(images.as_volume(v)),
    "scans.images.to_nibabel.volume": lambda v, model, folder: images.to_nibabel(v),
    "scans.images.to_simpleitk.volume": lambda v, model, folder: images.to_simpleitk(v),
    "studies.calibration.sample.scan": lambda v, model, folder: sample(model, v, SCAN),
    "studies.calibration.sample.mask": lambda v, model, folder: sample(model, SCAN, v),
    "scans.nifti.write.volume": lambda v, model, folder: nifti.write(folder / "out.nii.gz", v),
    "scans.nifti.require_same_geometry.a": lambda v, model, folder: nifti.require_same_geometry(v, SCAN),
    "scans.nifti.require_same_geometry.b": lambda v, model, folder: nifti.require_same_geometry(SCAN, v),
    "scans.grid.check_voxel_sizes.volume": lambda v, model, folder: grid.check_voxel_sizes(v),
    "scans.grid.to_canonical.volume": lambda v, model, folder: grid.to_canonical(v),
    "scans.grid.from_canonical.scan": lambda v, model, folder: grid.from_canonical(VOXELS, v),
    "scans.grid.working_grid.volume": lambda v, model, folder: grid.working_grid(v, (4, 4, 4)),
    "scans.grid.box_grid.mask": lambda v, model, folder: grid.box_grid(GRID, v),
    "scans.liver_box.liver_grid.scan": lambda v, model, _: liver_box.liver_grid(v, SCAN, (4, 4, 4), 4.0),
    "scans.liver_box.liver_grid.liver": lambda v, model, _: liver_box.liver_grid(SCAN, v, (4, 4, 4), 4.0),
    "scans.liver_box.liver_distance.liver": lambda v, model, _: liver_box.liver_distance(v, GRID),
    "scans.grid.to_grid.volume": lambda v, model, folder: grid.to_grid(v, (4, 4, 4)),
    "scans.grid.to_grid.volume, labels": lambda v, model, folder: grid.to_grid(v, (4, 4, 4), labels=True),
    "scans.grid.labels_on_scan.scan": lambda v, model, _: grid.labels_on_scan(np.ones((8, 7, 6, 2)), GRID, v),
    "scans.grid.probabilities_on_scan.scan": lambda v, model, _: grid.probabilities_on_scan(
        np.ones((8, 7, 6, 2)), GRID, v
    ),
    "report.figures.slices.preview.image": lambda v, model, folder: figures.preview(v, VOXELS),
    "report.figures.slices.preview.mask": lambda v, model, folder: figures.preview(SCAN, v),
    "report.figures.slices.preview.reference": lambda v, model, _: figures.preview(SCAN, VOXELS, reference=v),
    "report.figures.strips.slice_strips.scan": lambda v, model, _: figures.slice_strips(v, {"a": VOXELS > 0}),
    "report.figures.response.lesion_slice.scan": lambda v, model, folder: response.lesion_slice(
        v, VOXELS == 2, VOXELS > 0, ((0, 0, 2), (3, 0, 2)), ((1, 0, 2), (1, 1, 2)), "lesion"
    ),
    "planning.volumetry.measure.mask": lambda v, model, folder: planning.measure_volumes(v),
    "planning.volumetry.measure.regions": lambda v, model, _: planning.measure_volumes(SCAN, regions=v),
    "planning.territory.perfused.mask": lambda v, model, _: planning.perfused(
        planning.measure_volumes(SCAN), v
    ),
    "insight.seen.look.scan": lambda v, model, _: seen.look(model, v),
    "insight.seen.on_grid.reference": lambda v, model, _: seen.on_grid(SEEN, v),
    "insight.changes.robustness.cases": lambda v, model, _: changes.robustness(model, [("a", v, SCAN)], ()),
    "insight.changes.robustness.cases, reference": lambda v, model, _: changes.robustness(
        model, [("a", SCAN, v)], ()
    ),
    "scans.write.write_labels.mask": lambda v, model, folder: write.write_labels(folder / "labels.nii.gz", v),
    "volume.check_voxels.volume": lambda v, model, folder: check_voxels(v),
    "volume.label_voxels.volume": lambda v, model, folder: label_voxels(v, range(3)),
}
#: They use the geometry alone, or draw a scan as it is (with NaN as 0): voxels may have any value.
ANY_VALUE = {
    "scans.nifti.require_same_geometry.a",
    "scans.nifti.require_same_geometry.b",
    "scans.grid.check_voxel_sizes.volume",
    "scans.grid.to_canonical.volume",
    "scans.grid.from_canonical.scan",
    "scans.grid.working_grid.volume",
    "scans.images.to_nibabel.volume",
    "scans.images.to_simpleitk.volume",
    "scans.liver_box.liver_grid.scan",
    "scans.grid.labels_on_scan.scan",
    "scans.grid.probabilities_on_scan.scan",
    "report.figures.slices.preview.image",
    "report.figures.strips.slice_strips.scan",
    "report.figures.response.lesion_slice.scan",
}
#: None stands for none.
OPTIONAL = {
    "report.figures.slices.preview.reference",
    "planning.volumetry.measure.regions",
    "planning.territory.perfused.mask",
}
#: They take what the functions beside them have just read, or hand it to one that looks.
INTERNAL = {
    "commands.plan_pictures.Pictures.add.mask",
    "commands.plan_pictures.Pictures.add.territory",
    "inference.lesions.accepted.liver",
    "inference.lesions.filtered.liver",
    "inference.segmenter.Segmenter.network_input.liver",
    "inference.devices.warned.scan",
    "planning.companions.only.masks",
    "planning.companions.scan_of.mask",
    "planning.pictures.scan_on.mask",
    "insight.profiles.fields.scans",
    "insight.seen.world_of_voxel.scan",
    "prediction.Prediction.show.reference",
    "scans.dicom_seg.segmentation.mask",
    "scans.nifti.header_for.volume",
    "scans.dicom_source.headers.mask",
    "scans.dicom_source.require_series.volume",
    "scans.rtstruct.structure_set.mask",
    "scans.write.placed_on.mask",
    "scans.write.placed_on.scan",
    "studies.readers.scan_of.mask",
    "viewer.study.Study.describe.scan",
    "viewer.study.Study.read_layer.scan",
    "viewer.study.file_bytes.volume",
    "viewer.study.read_folder.references",
    "viewer.study.shown_volume.volume",
    "viewer.study.window.scan",
}
#: They take whatever holds a scan with its place in the patient.
SCANS = {
    "inference.segmenter.Segmenter.predict.scan",
    "inference.cascade.Cascade.predict.scan",
    "insight.seen.look.scan",
    "scans.images.as_volume.scan",
}
#: A bare array stands for a mask on the grid of its scan.
ARRAYS_TOO = {"report.figures.slices.preview.mask", "report.figures.slices.preview.reference"}


def test_no_function_that_takes_a_volume_is_missing_here():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [("", f) for f in tree.body]
        functions += [(f"{c.name}.", f) for c in tree.body if isinstance(c, ast.ClassDef) for f in c.body]
        for owner, function in functions:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            for argument in [*function.args.args, *function.args.kwonlyargs]:
                names = {n.id for n in ast.walk(argument.annotation or argument) if isinstance(n, ast.Name)}
                if names & {"Volume", "Scan"}:
                    found.add(f"{module}.{owner}{function.name}.{argument.arg}")
    protocol = {"prediction.Predictor.predict.scan"}
    assert found - protocol - INTERNAL == {name.partition(",")[0] for name in ENTRIES}


def with_value(value, dtype=np.float32):
    voxels = VOXELS.astype(dtype)
    voxels[3, 2, 1] = value
    return voxels


def tilted(value):
    affine = AFFINE.copy()
    affine[0, 1] = value
    return affine


FAULTS = {
    "sheared": lambda: Volume(VOXELS, tilted(2)),
    "affine of NaN": lambda: Volume(VOXELS, AFFINE * np.nan),
    "affine of zeros": lambda: Volume(VOXELS, np.zeros((4, 4))),
    "affine (3, 3)": lambda: Volume(VOXELS, AFFINE[:3, :3]),
    "no affine": lambda: Volume(VOXELS, None),
    "two dimensions": lambda: Volume(VOXELS[:, :, 3], AFFINE),
    "a fourth axis": lambda: Volume(VOXELS[..., None], AFFINE),
    "no voxels": lambda: Volume(VOXELS[:0], AFFINE),
    "complex": lambda: Volume(VOXELS.astype(complex), AFFINE),
    "objects": lambda: Volume(VOXELS.astype(object), AFFINE),
    "text": lambda: Volume(VOXELS.astype(str), AFFINE),
    "masked": lambda: Volume(np.ma.masked_equal(VOXELS, 1), AFFINE),
    "image as voxels": lambda: Volume(nib.Nifti1Image(VOXELS, AFFINE), AFFINE),
    "image": lambda: nib.Nifti1Image(VOXELS, AFFINE),
    "number": lambda: 5,
    "nothing": lambda: None,
    "array": lambda: VOXELS,
    "array of NaN": lambda: with_value(np.nan),
}
VALUES = {
    "one NaN": lambda: with_value(np.nan),
    "only NaN": lambda: np.full_like(VOXELS, np.nan, np.float32),
    "infinite": lambda: with_value(np.inf),
    "-infinite": lambda: with_value(-np.inf),
    "1e30": lambda: with_value(1e30),
    "9e18": lambda: with_value(9 * 10**18, np.int64),
}
SOUND = {
    "float64": lambda: Volume(VOXELS.astype(float), AFFINE),
    "float16": lambda: Volume(VOXELS.astype(np.float16), AFFINE),
    "bool": lambda: Volume(VOXELS > 0, AFFINE),
    "Fortran": lambda: Volume(np.asfortranarray(VOXELS), AFFINE),
    "negative strides": lambda: Volume(np.ascontiguousarray(VOXELS[::-1])[::-1], AFFINE),
    "big-endian": lambda: Volume(VOXELS.astype(">i2"), AFFINE),
    "masked nowhere": lambda: Volume(np.ma.MaskedArray(VOXELS), AFFINE),
    "affine as a list": lambda: Volume(VOXELS, AFFINE.tolist()),
    "affine in single precision": lambda: Volume(VOXELS, AFFINE.astype(np.float32)),
    "lists": lambda: Volume(VOXELS.tolist(), AFFINE),
}


def refused(call, model, folder, make):
    with pytest.raises(InputError) as caught:
        call(make(), model, folder)
    assert "\n" not in str(caught.value) and ", expected " in str(caught.value)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_volume(entry, fault, model, tmp_path):
    if fault == "array" and entry in ARRAYS_TOO:
        ENTRIES[entry](VOXELS, model, tmp_path)
    elif fault == "image" and entry in SCANS:
        ENTRIES[entry](FAULTS[fault](), model, tmp_path)
    elif fault == "nothing" and entry in OPTIONAL:
        ENTRIES[entry](None, model, tmp_path)
    else:
        refused(ENTRIES[entry], model, tmp_path, FAULTS[fault])


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("value", VALUES)
def test_values_that_are_no_intensities(entry, value, model, tmp_path, caplog):
    make = VALUES[value]
    if entry in ANY_VALUE:
        ENTRIES[entry](Volume(make(), AFFINE), model, tmp_path)
    else:
        refused(ENTRIES[entry], model, tmp_path, lambda: Volume(make(), AFFINE))
        assert not caplog.messages  # what is refused is not doubted as well


# `sample` runs the networks on the scan before it looks at the mask; all else here takes milliseconds.
@pytest.mark.parametrize("sound", SOUND)
def test_sound_volumes_of_any_kind(sound, model, tmp_path):
    expected = SCAN if sound != "bool" else Volume((VOXELS > 0).astype(np.uint8), AFFINE)
    for call in ENTRIES.values():
        call(SOUND[sound](), model, tmp_path)
    given, plain = (model.network_input(v)[0] for v in (SOUND[sound](), expected))
    assert np.array_equal(given, plain)
    assert np.array_equal(nifti.read(tmp_path / "out.nii.gz").voxels, expected.voxels)


def test_what_a_model_is_given_by_mistake_is_named_with_what_to_do(model):
    for given, what in ((VOXELS, "an array of shape (8, 7, 6)"), (3, "a int"), (VOXELS.tolist(), "a list")):
        with pytest.raises(InputError) as caught:
            model.predict(given)
        without = " without its affine" if given is VOXELS else ""
        assert str(caught.value) == (
            f"{what} was given as a scan{without}, expected a path, a liverjax.Volume, an image of nibabel or "
            "SimpleITK, or an array and its affine: predict(voxels, affine)"
        )
    with pytest.raises(InputError) as caught:
        model.network_input(VOXELS)
    assert str(caught.value) == (
        "an array of shape (8, 7, 6) was given, expected a liverjax.Volume; make one of its voxels and its affine: "
        "liverjax.Volume(voxels, affine)"
    )
    labels = model.predict(SCAN).labels
    assert np.array_equal(model.predict(VOXELS, AFFINE).labels.voxels, labels.voxels)
    assert np.array_equal(model.predict(liverjax.Volume(VOXELS, AFFINE)).labels.voxels, labels.voxels)
