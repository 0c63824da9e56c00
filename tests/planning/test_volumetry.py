"""Volumes: parts add up, regions, masks of any tool, and intervals from tables of predicted and reference volumes."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from liverjax.errors import ConfigError, InputError
from liverjax.planning import companions, intervals, volumetry
from liverjax.planning.intervals import NO_ERRORS, VolumeErrors, interval, read_volume_errors
from liverjax.scans import nifti
from liverjax.volume import Volume

AFFINE, OTHER = np.diag([0.7, 0.7, 2.5, 1]), np.diag([1.4, 0.7, 2.5, 1])


def _volume(voxels, affine=AFFINE, name="mask.nii.gz"):
    return Volume(np.asarray(voxels, np.uint8), affine, name=name)


def _errors(liver, tumor=()):
    logs = {"liver": liver, "tumor": tumor}
    return VolumeErrors({name: dict(enumerate(values)) for name, values in logs.items()})


def _write(path, voxels, affine=AFFINE):
    nifti.write(path, _volume(voxels, affine))
    return path


MASK = np.zeros((6, 5, 4), np.uint8)
MASK[1:5, 1:4, 1:3] = 1  # 24 voxels of liver,
MASK[1, 1, 1] = MASK[1, 2, 1] = MASK[4, 3, 2] = 2  # of which 3 are tumour, in two lesions.


# --- counting -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    arrays(np.uint8, (4, 3, 5), elements=st.integers(0, 2)),
    arrays(np.uint8, (4, 3, 5), elements=st.integers(0, 4)),
    st.tuples(*[st.floats(0.3, 8)] * 3),
)
def test_parts_add_up_to_the_whole(ids, regions, spacing):
    ids[0, 0, 0], regions[0, 0, 0] = 1, 1
    affine = np.diag([*spacing, 1])
    found = volumetry.measure(_volume(ids, affine), "a", _volume(regions, affine))
    whole = found.whole
    assert whole.liver == np.count_nonzero(ids) and whole.tumor == np.count_nonzero(ids == 2)
    assert sum(found.lesions) == whole.tumor
    assert sum(part.liver for part in found.regions) == whole.liver
    assert sum(part.tumor for part in found.regions) == whole.tumor
    rows = volumetry.rows(found)
    ml = {(row["region"], row["quantity"]): row["value"] for row in rows}
    voxels = {(row["region"], row["quantity"]): row["voxels"] for row in rows}
    for key, count in voxels.items():
        if count is not None:
            assert ml[key] == count * found.voxel_ml  # exactly: one multiplication each
    liver, rest, tumor = (voxels[volumetry.WHOLE, name] for name in ("liver", "liver_without_tumor", "tumor"))
    assert rest + tumor == liver
    assert ml[volumetry.WHOLE, "tumor_load"] == pytest.approx(100 * tumor / liver)


def test_a_mask_counted_by_hand():
    found = volumetry.measure(_volume(MASK), "a")
    assert (found.whole.liver, found.whole.tumor, found.lesions) == (24, 3, (2, 1))
    values = {row["quantity"]: row["value"] for row in volumetry.rows(found)}
    assert values["liver"] == pytest.approx(24 * 0.7 * 0.7 * 2.5 / 1000)
    assert values["tumor_load"] == pytest.approx(12.5)
    assert values["liver_without_tumor"] == pytest.approx(21 * 0.001225)
    # Voxels of an oblique grid have the same volume, and millilitres agree with those of `predict`.
    turned = np.eye(4)
    turned[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] @ AFFINE[:3, :3]
    oblique = volumetry.measure(_volume(MASK, turned), "a")
    assert oblique.voxel_ml == pytest.approx(found.voxel_ml)
    assert _volume(MASK).millilitres(MASK) == pytest.approx(values["liver"])


def test_real_masks_have_the_volumes_that_simpleitk_finds(real_data):
    import SimpleITK as sitk

    path = real_data / "lits" / "segmentation-117.nii.gz"
    ((id, mask),) = volumetry.read_masks(path)
    found = volumetry.measure(mask, id)
    image = sitk.ReadImage(str(path), sitk.sitkUInt8)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(image)
    liver, tumor = (shape.GetPhysicalSize(label) / 1000 for label in (1, 2))
    values = {row["quantity"]: row["value"] for row in volumetry.rows(found)}
    assert values["tumor"] == pytest.approx(tumor, rel=1e-6)
    assert values["liver"] == pytest.approx(liver + tumor, rel=1e-6)
    shape.Execute(sitk.ConnectedComponent(image == 2))
    sizes = sorted(shape.GetNumberOfPixels(label) for label in shape.GetLabels())
    assert sorted(found.lesions) == sizes


def test_regions_have_names_and_what_they_leave_out_is_a_row():
    regions = np.zeros_like(MASK)
    regions[:3], regions[4:] = 7, 2
    found = volumetry.measure(_volume(MASK), "a", _volume(regions, name="r"), {7: "left"})
    assert [(part.name, part.liver, part.tumor) for part in found.regions] == [
        ("region 2", 6, 1),
        ("left", 12, 2),
        (volumetry.REST, 6, 0),
    ]
    assert found.notes == (f"{100 - 18} voxels of the regions lie outside the liver and are not counted",)


def test_regions_that_cannot_be_used_are_refused():
    mask, regions = _volume(MASK), np.zeros_like(MASK)
    with pytest.raises(InputError, match=r"no voxel of its regions lies in the liver"):
        regions[0] = 1
        volumetry.measure(mask, "a", _volume(regions))
    with pytest.raises(InputError, match=r"holds no region 3 to be named, expected numbers of 1"):
        volumetry.measure(mask, "a", _volume(regions), {3: "x"})
    with pytest.raises(InputError, match=r"has shape \(3, 5, 4\) but .* expected the same shape"):
        volumetry.measure(mask, "a", _volume(regions[:3]))
    with pytest.raises(InputError, match=r"lie up to .* mm apart"):
        volumetry.measure(mask, "a", _volume(regions, OTHER))


# --- masks of any tool --------------------------------------------------------------------------------------------


def _read(*args, **settings):
    return list(volumetry.read_masks(*args, **settings))


def test_values_of_other_tools(tmp_path):
    path = _write(tmp_path / "a.nii.gz", np.array([0, 5, 7, 9], np.uint8)[np.where(MASK == 0, 0, MASK)])
    with pytest.raises(InputError, match=r"holds the values 5, 7, which nothing names"):
        _read(path)
    ((id, mask),) = _read(path, liver_labels=(5,), tumor_labels=(7,))
    assert id == "a" and np.array_equal(mask.voxels, MASK)
    # Of what is not named, nothing counts; values of liver alone leave 2 to tumour.
    ((_, mask),) = _read(path, liver_labels=(5, 7))
    assert np.count_nonzero(mask.voxels == 1) == 24
    with pytest.raises(ConfigError, match="5 is a value of liver and of tumour"):
        _read(path, liver_labels=(5,), tumor_labels=(5,))
    with pytest.raises(InputError, match=r"holds no liver, but the values 5, 7; .*--liver_labels=5"):
        _read(path, liver_labels=(4,))
    # A dataset.json beside the masks says what they mean.
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "liver": 5, "tumor": 7}}')
    ((_, mask),) = _read(tmp_path)
    assert np.array_equal(mask.voxels, MASK)


def test_tumours_in_a_file_of_their_own(tmp_path):
    whole = _write(tmp_path / "liver.nii.gz", MASK != 0)
    tumors = _write(tmp_path / "lesions.nii.gz", 3 * (MASK == 2))
    ((_, mask),) = _read(whole, tumor_masks=tumors)
    assert np.array_equal(mask.voxels, MASK)
    with pytest.raises(InputError, match=r"25 voxels of tumour, more than the liver of .* has \(24\)"):
        larger = np.zeros_like(MASK)
        larger.flat[:25] = 1
        _read(whole, tumor_masks=_write(tmp_path / "larger.nii.gz", larger))
    with pytest.raises(InputError, match="expected the same shape"):
        _read(whole, tumor_masks=_write(tmp_path / "other.nii.gz", MASK[:3]))
    with pytest.raises(InputError, match="mm apart"):
        _read(whole, tumor_masks=_write(tmp_path / "moved.nii.gz", MASK, OTHER))


def test_folders_of_masks_and_their_companions(tmp_path):
    for folder in ("masks", "tumors"):
        (tmp_path / folder).mkdir()
    for id in ("p10", "p9"):
        _write(tmp_path / "masks" / f"{id}.nii.gz", MASK != 0)
    _write(tmp_path / "tumors" / "p9.nii.gz", MASK == 2)
    with pytest.raises(InputError, match="no mask of p10, expected files named as the masks"):
        _read(tmp_path / "masks", tumor_masks=tmp_path / "tumors")
    _write(tmp_path / "tumors" / "p10.nii.gz", MASK == 2)
    assert [id for id, _ in _read(tmp_path / "masks", tumor_masks=tmp_path / "tumors")] == ["p9", "p10"]
    with pytest.raises(InputError, match="holds masks of p9 and p10, expected the mask of one patient"):
        companions.only(tmp_path, volumetry.read_masks(tmp_path / "masks"))
    one = tmp_path / "masks" / "p9.nii.gz"
    assert companions.mask_of(one, "any", True).shape == MASK.shape
    assert companions.mask_of(tmp_path / "masks", "p10", False).name.endswith("p10.nii.gz")
    for place, alone in ((one, False), (tmp_path / "masks", True)):
        with pytest.raises(InputError, match="no mask of any"):
            companions.mask_of(place, "any", alone)
    with pytest.raises(InputError, match="no scan of any"):
        companions.scan_of(tmp_path / "masks", "any", True, _volume(MASK))


def test_empty_masks_and_masks_without_liver_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no liver: the mask is empty"):
        _read(_write(tmp_path / "empty.nii.gz", 0 * MASK))
    with pytest.raises(InputError, match="holds no liver, expected the liver beside 3 voxels of tumour"):
        volumetry.measure(_volume(2 * (MASK == 2)), "a")


def test_words_of_flags():
    assert companions.label_values("liver_labels", ["1", "3"]) == (1, 3)
    assert companions.region_names(["1=left lobe", "8=VIII"]) == {1: "left lobe", 8: "VIII"}
    for words in (["0"], ["256"], ["1.0"], ["²"], [""]):
        with pytest.raises(ConfigError, match="expected whole numbers of 1 to 255"):
            companions.label_values("liver_labels", words)
    for words in (["left"], ["1="], ["1=a", "1=b"], ["300=a"]):
        with pytest.raises(ConfigError, match="--region_names has"):
            companions.region_names(words)


# --- intervals ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3)), min_size=20, max_size=60),
    st.integers(1, 60),
    st.integers(0, 60),
)
def test_intervals_contain_the_measured_value(logs, liver, tumor):
    errors = _errors(*zip(*logs, strict=True))
    ids = np.concatenate([np.full(liver, 1), np.full(tumor, 2), [0]]).astype(np.uint8).reshape(-1, 1, 1)
    for row in volumetry.rows(volumetry.measure(_volume(ids), "a"), errors):
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"] and row["interval"] == "90 %"
            assert row["low"] >= 0 and (row["unit"] == "ml" or row["high"] <= 100)
        elif "tumor" in row["quantity"]:
            assert not tumor and row["interval"] == "none: no tumour was found"
        else:
            assert row["quantity"].startswith("lesion") and row["interval"] == ""


def test_ends_are_order_statistics_of_the_ratios():
    """Of 39 scans the 2nd smallest and largest ratio, of 20 the smallest and largest: 5 % of n + 1."""
    ratios = np.linspace(0.8, 1.25, 39)  # V_pred / V_ref
    found = interval(1000.0, 1000 / ratios)
    assert (found.low, found.high) == (pytest.approx(1000 / ratios[-2]), pytest.approx(1000 / ratios[1]))
    found = interval(1000.0, 1000 / ratios[:20])
    assert (found.low, found.high) == (pytest.approx(1000 / ratios[19]), pytest.approx(1000 / ratios[0]))
    # The quantiles are those of log(V_pred / V_ref), as monotone functions keep the order.
    logs = np.sort(np.log(ratios))
    assert interval(1.0, np.exp(-np.log(ratios))).low == pytest.approx(math.exp(-logs[-2]))
    # All predictions were too large: the interval is widened up to what was measured.
    biased = interval(1000.0, np.full(30, 800.0))
    assert (biased.low, biased.high) == (800.0, 1000.0)


def test_a_further_scan_is_covered_as_often_as_stated():
    rng = np.random.default_rng(0)
    true, hits, trials = 1500.0, 0, 3000
    for _ in range(trials):
        logs = rng.standard_t(3, 25) * 0.1 + 0.05
        found = interval(true * math.exp(logs[-1]), true * math.exp(logs[-1]) * np.exp(-logs[:-1]))
        hits += found.low <= true <= found.high
    assert hits / trials >= 0.90 - 3 * math.sqrt(0.9 * 0.1 / trials)


def test_below_twenty_scans_nothing_is_calibrated():
    found = volumetry.measure(_volume(MASK), "a")
    few, enough = _errors([0.1] * 19, [0.1] * 19), _errors([0.1] * 20, [0.1] * 19)
    status = {row["quantity"]: row["interval"] for row in volumetry.rows(found, few)}
    assert {status[name] for name in ("liver", "liver_without_tumor", "tumor", "tumor_load")} == {
        "not calibrated"
    }
    status = {row["quantity"]: row["interval"] for row in volumetry.rows(found, enough)}
    assert status["liver"] == "90 %"
    # What takes the tumours too is not.
    assert {status[name] for name in ("liver_without_tumor", "tumor", "tumor_load")} == {"not calibrated"}
    assert (
        few.summary()[0]
        == "liver: 19 scans, median V_pred / V_ref 1.105: not calibrated, expected 20 or more"
    )
    assert NO_ERRORS.summary()[1] == "tumor: 0 scans: not calibrated, expected 20 or more"


def _table(path, rows, columns=("case", "region", "state", "prediction_ml", "reference_ml")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_tables_of_evaluate_are_read(tmp_path):
    path = _table(
        tmp_path / "cases.csv",
        [
            ("a", "liver", "", 1100, 1000),
            ("a", "tumor", "reference empty", 5, 0),
            ("b", "liver", "", 900, 1000),
            ("b", "tumor", "prediction empty", 0, 5),
            ("c", "liver", "prediction missing", 0, 1000),
            ("c", "tumor", "not labelled", "nan", "nan"),
            ("d", "tumor", "both empty", 0, 0),
        ],
    )
    voxels = ("case", "region", "voxels_prediction", "voxels_reference")
    other = _table(tmp_path / "other.csv", [("e", "liver", 300, 200)], voxels)
    errors = read_volume_errors([tmp_path, other])  # A folder of an evaluation, and a table.
    assert errors.logs["liver"] == pytest.approx({"a": math.log(1.1), "b": math.log(0.9), "e": math.log(1.5)})
    assert errors.logs["tumor"] == {"a": math.inf} and errors.left_out == 1
    assert errors.sources == (str(path), str(other))
    with pytest.raises(InputError, match=r"line 2: case 'a' has a volume of the liver already"):
        read_volume_errors([path, path])


def _sweep(workdir, variants=("base", "wide"), folds=4, seeds=2, cases=6):
    """The folder of a sweep with scores, of which each variant, fold and seed has ratios of its own."""
    rows = []
    for v, name in enumerate(variants):
        for fold in range(folds):
            for seed in range(seeds):
                masks = f"runs/{v}{fold}{seed}/predictions/x"
                (workdir / masks / "scores" / "dice").mkdir(parents=True)
                scores = [
                    (f"c{fold}{i}", "liver", "", 1000 + 100 * v + 10 * seed + i, 1000) for i in range(cases)
                ]
                _table(workdir / masks / "scores" / "dice" / "cases.csv", scores)
                rows.append((name, fold, seed, True, masks))
    folder = workdir / "ablations" / "depth"
    folder.mkdir(parents=True)
    _table(folder / "trials.csv", rows, ("variant", "fold", "seed", "scored", "masks"))
    return folder, rows


def test_the_folder_of_a_sweep_gives_the_scores_of_all_its_folds(tmp_path):
    folder, rows = _sweep(tmp_path)
    errors = read_volume_errors([folder])
    # 4 folds of 6 cases, of the first variant and of seed 0: ratios 1 to 1.005.
    assert len(errors.logs["liver"]) == 24 and len(errors.sources) == 4
    assert sorted(set(errors.logs["liver"].values())) == pytest.approx(
        [math.log(1 + i / 1000) for i in range(6)]
    )
    wide = read_volume_errors([f"{folder}:wide"]).logs["liver"]
    assert min(wide.values()) == pytest.approx(math.log(1.1)) and len(wide) == 24
    # Trials that are not scored yet are left out: 18 scans are too few, and say so.
    unscored = [row if row[1] else (*row[:3], False, row[4]) for row in rows]
    _table(folder / "trials.csv", unscored, ("variant", "fold", "seed", "scored", "masks"))
    assert "18 scans" in read_volume_errors([folder]).summary()[0]
    assert read_volume_errors([folder]).factors("liver") is None


def test_what_a_sweep_lacks_is_named_with_its_remedy(tmp_path):
    folder, rows = _sweep(tmp_path)
    with pytest.raises(InputError, match="no variant 'wise'; did you mean 'wide'"):
        read_volume_errors([f"{folder}:wise"])
    assert read_volume_errors([f"{folder}:wide"]).logs["liver"]
    lost = tmp_path / rows[0][4] / "scores" / "dice" / "cases.csv"
    scores = lost.read_text()
    lost.unlink()
    with pytest.raises(InputError, match="expected the scores of fold 0: run the sweep again"):
        read_volume_errors([folder])
    lost.write_text(scores)  # As the sweep does, which scores what has no scores.
    assert read_volume_errors([folder]).logs["liver"]
    columns = ("variant", "fold", "seed", "scored", "masks")
    _table(folder / "trials.csv", [(*row[:3], False, row[4]) for row in rows], columns)
    with pytest.raises(
        InputError, match="no trial of 'base' is scored, expected one or more: run the sweep again"
    ):
        read_volume_errors([folder])
    _table(folder / "trials.csv", [("a", 1)], ("variant", "fold"))
    with pytest.raises(InputError, match="expected those of `liverjax sweep`"):
        read_volume_errors([folder])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "is no CSV file"),
        (b"", "has the columns '', expected case, region, prediction_ml and reference_ml"),
        (b"case,region,dice\na,liver,1\n", "has the columns 'case, region, dice', expected case"),
        (b"case,region,prediction_ml,reference_ml\na,spleen,1,1\n", "line 2: region is 'spleen'"),
        (
            b"case,region,prediction_ml,reference_ml\na,liver,-1,1\n",
            "line 2: prediction_ml is '-1', expected a number",
        ),
        (
            b"case,region,prediction_ml,reference_ml\na,liver,1,\n",
            "reference_ml is '', expected a number of 0 or more",
        ),
        (b"case,region,prediction_ml,reference_ml\na,liver,1\n", "reference_ml is None"),
        (b"case,region,prediction_ml,reference_ml\na,liver,1,inf\n", "reference_ml is 'inf'"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        read_volume_errors([path])
    assert str(caught.value).startswith(str(path))


def test_false_tumours_make_the_lower_end_zero():
    """Two of 39 scans had no tumour where one was found: so may this one."""
    found = volumetry.measure(_volume(MASK), "a")
    errors = _errors([0.0] * 39, [math.inf] * 2 + [0.0] * 37)
    rows = {row["quantity"]: row for row in volumetry.rows(found, errors)}
    assert rows["tumor"]["low"] == rows["tumor_load"]["low"] == 0
    assert intervals.FEWEST == 20 and rows["tumor"]["high"] == rows["tumor"]["value"]
