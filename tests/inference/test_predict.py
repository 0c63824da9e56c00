"""Many cases: what is written, skipped, shared between jobs and reported."""

import json
import pathlib
import threading

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError, InputError
from liverjax.inference import outputs, predict
from liverjax.inference.network import Networks
from liverjax.inference.predict import Extras, predict_cases
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet


@pytest.fixture(scope="module")
def model(tiny_config) -> Segmenter:
    """Networks that were never trained."""
    network = build_unet(tiny_config.model, 3, accelerator=False)
    variables = {
        view: [network.init(jax.random.key(seed), jnp.zeros((1, 16, 16, 1)))]
        for seed, view in enumerate(tiny_config.views)
    }
    return Segmenter(tiny_config, Networks.stack(variables))


@pytest.fixture
def three_with_one_damaged(phantom_scans, tmp_path) -> pathlib.Path:
    """Folder of three scans, the second of which ends too early."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for index in range(3):
        content = (phantom_scans / "imagesTr" / f"phantom_00{index}_0000.nii.gz").read_bytes()
        (folder / f"case_{index}.nii.gz").write_bytes(content[: len(content) // 2] if index == 1 else content)
    return folder


def _files(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_case_is_reported_and_the_others_go_on(model, three_with_one_damaged, tmp_path):
    cases = find_cases(three_with_one_damaged)
    outcomes = list(predict_cases(model, cases, tmp_path / "out"))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert [outcome.case for outcome in outcomes] == cases
    assert "case_1.nii.gz" in str(outcomes[1].error)
    assert _files(tmp_path / "out") == {"case_0.nii.gz", "case_2.nii.gz"}
    for case in (cases[0], cases[2]):
        mask, scan = nib.load(tmp_path / "out" / f"{case.id}.nii.gz"), nib.load(case.image)
        assert np.array_equal(mask.dataobj, model.predict(case.image).labels.voxels)
        assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)


def test_whatever_stops_a_case_stops_no_other(model, phantom_scans, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "phantom_001.nii.gz").mkdir()  # a folder where the mask should go
    outcomes = list(predict_cases(model, find_cases(phantom_scans)[:3], tmp_path / "out"))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert _files(tmp_path / "out") == {"phantom_000.nii.gz", "phantom_002.nii.gz"}


def test_existing_masks_are_left_alone(model, phantom_scans, tmp_path):
    cases = find_cases(phantom_scans)[:2]
    (tmp_path / "phantom_000.nii.gz").write_bytes(b"mine")
    outcomes = list(predict_cases(model, cases, tmp_path, skip_existing=True))
    assert [outcome.status for outcome in outcomes] == ["skipped", "done"]
    assert (tmp_path / "phantom_000.nii.gz").read_bytes() == b"mine"


def test_several_devices_share_the_cases_and_agree(model, phantom_scans, tmp_path):
    cases = find_cases(phantom_scans)[:5]
    devices = jax.local_devices()
    assert len(devices) == 2
    for name, some in (("one", devices[:1]), ("two", devices)):
        assert not any(o.error for o in predict_cases(model, cases, tmp_path / name, devices=some))
    for case in cases:
        one, two = (nib.load(tmp_path / name / f"{case.id}.nii.gz") for name in ("one", "two"))
        assert np.array_equal(one.dataobj, two.dataobj)


def test_stopping_early_leaves_whole_masks_only(model, phantom_scans, tmp_path):
    cases = find_cases(phantom_scans)
    outcomes = predict_cases(model, cases, tmp_path)
    next(outcomes)
    outcomes.close()
    written = sorted(tmp_path.iterdir())
    assert 1 <= len(written) < len(cases)
    for path in written:
        assert np.asarray(nib.load(path).dataobj).shape == (48, 40, 36)
    for thread in threading.enumerate():
        if thread.name.startswith("liverjax-case"):
            thread.join(timeout=30)
            assert not thread.is_alive()  # it would keep Python from ending


def test_extras_lie_on_the_scan(model, phantom_scans, tmp_path):
    case = find_cases(phantom_scans)[0]
    (outcome,) = predict_cases(model, [case], tmp_path, extras=Extras(True, True, mc_samples=2))
    maps = {
        "probabilities/phantom_000_liver.nii.gz",
        "probabilities/phantom_000_tumor.nii.gz",
        "uncertainty/phantom_000_entropy.nii.gz",
        "uncertainty/phantom_000_mutual_information.nii.gz",
    }
    assert _files(tmp_path) == {"phantom_000.nii.gz", "uncertainty/phantom_000_quality.csv", *maps}
    scan = nib.load(case.image)
    for name in maps:
        image = nib.load(tmp_path / name)
        assert image.shape == scan.shape and np.array_equal(image.affine, scan.affine)
        assert 0 <= np.min(image.dataobj) <= np.max(image.dataobj) <= 1
    liver = np.asarray(nib.load(tmp_path / "probabilities/phantom_000_liver.nii.gz").dataobj)
    np.testing.assert_allclose(liver, outcome.prediction.probabilities()[..., 1], atol=2**-11 + 1e-6)
    header, *rows = (
        (tmp_path / "uncertainty/phantom_000_quality.csv").read_text(encoding="utf-8").splitlines()
    )
    slices, quality = zip(*(row.split(",") for row in rows), strict=True)
    assert header == "slice,expected_dice" and sorted(map(int, slices)) == list(range(36))
    assert (
        list(quality) == sorted(quality)
        and list(map(int, slices)) == np.argsort(outcome.prediction.slice_quality(), kind="stable").tolist()
    )


def test_shards_are_all_cases_once(phantom_scans):
    cases = find_cases(phantom_scans)
    shards = [predict.shard(cases, f"{index}/3") for index in (1, 2, 3)]
    assert sorted(map(len, shards)) == [2, 3, 3]
    assert {case.id for part in shards for case in part} == {case.id for case in cases}
    for wrong in ("0/3", "4/3", "3", "a/b", "-1/3", "1/0"):
        with pytest.raises(InputError, match="expected i/n"):
            predict.shard(cases, wrong)


def test_the_output_is_never_the_scan_nor_one_file_for_several(phantom_scans, tmp_path):
    cases = find_cases(phantom_scans)
    with pytest.raises(InputError, match=r"mask\.nii\.gz names one file for 8 cases"):
        outputs.mask_paths(cases, tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="take the place of the scan"):
        outputs.mask_paths(cases[:1], cases[0].image)


def test_the_manifest_lists_every_case(model, three_with_one_damaged, tmp_path):
    cases = find_cases(three_with_one_damaged)
    records = [outcome.record() for outcome in predict_cases(model, cases, tmp_path / "out")]
    line = outputs.write_manifest(tmp_path / "out", "2/4", model, records, "RUN")
    facts = json.loads((tmp_path / "out" / "manifest_2_of_4.json").read_text(encoding="utf-8"))
    assert [case["status"] for case in facts["cases"]] == ["done", "failed", "done"]
    assert "case_1" in facts["cases"][1]["error"]
    stages = ["read", "resample", "network", "back", "write"]
    assert all(list(case["seconds"]) == stages for case in facts["cases"][::2])
    for stage in stages:
        assert facts["seconds"][stage] == pytest.approx(
            sum(c["seconds"].get(stage, 0) for c in facts["cases"])
        )
        assert stage in line
    assert (
        facts["config"]["target"]["labels"] == ["background", "liver", "tumor"] and facts["versions"]["jax"]
    )


def test_options_that_cannot_be_used_stop_everything_before_it_starts(model, phantom_scans, tmp_path):
    weighted = model.with_options(fusion="weighted")
    with pytest.raises(ConfigError, match="liverjax calibrate"):
        next(predict_cases(weighted, find_cases(phantom_scans), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_ahead_is_described_before_it_starts(model, three_with_one_damaged):
    line = predict.describe(model, find_cases(three_with_one_damaged))
    assert line.startswith("3 cases on 1 x ") and "GiB of memory" in line


@pytest.mark.parametrize(("unit", "size"), [("meter", 0.008), ("micron", 8000.0)])
def test_what_is_ahead_counts_voxels_of_any_unit(model, three_with_one_damaged, tmp_path, unit, size):
    (case, *_) = find_cases(three_with_one_damaged)
    image = nib.Nifti1Image(np.asarray(nib.load(case.image).dataobj), np.diag([size, size, size, 1]))
    image.header.set_xyzt_units(unit)
    (tmp_path / "other").mkdir()
    nib.save(image, tmp_path / "other" / "a.nii.gz")
    (other,) = find_cases(tmp_path / "other")
    # The geometry of the headers, from which the line is made: of 8 mm, as the scan of the fixture has.
    np.testing.assert_allclose(np.abs(predict._geometry(other)[1][:3, :3]), np.diag([8.0] * 3), rtol=1e-6)
    assert predict.describe(model, [other]) == predict.describe(model, [case])
    (outcome,) = predict_cases(model, [other], tmp_path / "out")
    assert outcome.prediction.grid.shape == (48, 40, 36)


def test_numbers_without_end_are_refused(model, phantom_scans):
    for spec in ("0/0", "1/" + "9" * 5000):
        with pytest.raises(InputError, match="expected i/n") as error:
            predict.shard([], spec)
        assert len(str(error.value)) < 200
    with pytest.raises(ConfigError, match="expected 0 to 1000 draws"):
        model.plan(samples=10**9)
    with pytest.raises(ConfigError, match=r"predict\.bucket is 65536, expected 8 to 256"):
        model.with_options(bucket=65536)


def test_doubts_and_volumes_stand_in_the_record(model, phantom_scans, tmp_path, caplog):
    image = nib.load(find_cases(phantom_scans)[0].image)
    nib.save(nib.Nifti1Image(np.full(image.shape, 40, np.int16), image.affine), tmp_path / "flat.nii.gz")
    (outcome,) = predict_cases(model, find_cases(tmp_path / "flat.nii.gz"), tmp_path / "out")
    record = outcome.record()
    assert record["doubts"][0] == "every voxel is 40" and "every voxel is 40" in caplog.text
    mask = np.asarray(nib.load(tmp_path / "out" / "flat.nii.gz").dataobj)
    assert record["millilitres"]["liver"] == pytest.approx(np.count_nonzero(mask) * 0.512, abs=1e-2)


def test_of_many_cases_some_headers_tell_the_memory(model, phantom_scans, monkeypatch):
    cases = find_cases(phantom_scans)
    whole = predict.describe(model, cases)
    monkeypatch.setattr(predict, "_MOST_HEADERS", 3)
    read, geometry = [], predict._geometry
    monkeypatch.setattr(predict, "_geometry", lambda case: read.append(case.id) or geometry(case))
    assert predict.describe(model, cases) == f"{whole} (by 3 of them)"
    assert read == ["phantom_000", "phantom_003", "phantom_006"]
    assert predict.describe(model, []).startswith("0 cases on ")
