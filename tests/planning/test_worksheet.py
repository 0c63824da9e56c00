"""The worksheet of SIRT: its numbers in place give its results, intervals of volumes carried through, warnings."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax.errors import ConfigError, InputError, LiverjaxError
from liverjax.planning import sirt, volumetry, worksheet
from liverjax.planning.intervals import NO_ERRORS, VolumeErrors
from liverjax.planning.sirt_inputs import Inputs
from liverjax.planning.territory import Territory, perfused
from liverjax.planning.volumetry import Volumes
from liverjax.volume import Volume

ONE_ML = np.diag([10.0, 10, 10, 1])


def _volumes(liver=1500, tumor=150):
    """A liver of that many ml, one voxel each."""
    ids = np.concatenate([np.full(tumor, 2), np.full(liver - tumor, 1), np.zeros(100)]).astype(np.uint8)
    return volumetry.measure(Volume(ids.reshape(-1, 1, 1), ONE_ML, name="mask.nii.gz"), "case")


VOLUMES = _volumes()
FULL = Inputs(
    "resin", 0.12, 0.02, activity_gbq=1.5, dose_gy=60, tumor_dose_gy=150, normal_dose_gy=40, ratio=3, height_m=1.75,
    weight_kg=70, previous_lung_gy=30,
)  # fmt: skip


def _errors(liver, tumor):
    logs = {"liver": liver, "tumor": tumor}
    return VolumeErrors({name: dict(enumerate(values)) for name, values in logs.items()})


def _steps(inputs, volumes=VOLUMES, errors=NO_ERRORS, **territory):
    sheet = worksheet.plan(volumes, perfused(volumes, **territory), inputs, errors)
    return sheet, {(step.section, step.symbol, step.quantity): step for step in sheet.steps}


# --- numbers in place ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(300, 3000), st.floats(0, 0.6), st.floats(0.05, 1), st.floats(0, 0.19), st.floats(0, 0.3),
    st.floats(0.5, 20), st.sampled_from(["resin", "glass", "holmium"]),
)  # fmt: skip
def test_the_numbers_in_place_give_the_results(liver, load, share, shunt, residual, ratio, kind):
    surface = {"height_m": 1.75, "weight_kg": 70} if kind == "resin" else {}
    volumes = _volumes(liver, int(load * share * liver))
    tumors = {"tumor_dose_gy": 150} if volumes.whole.tumor else {}
    inputs = Inputs(
        kind,
        shunt,
        residual,
        activity_gbq=2.0,
        dose_gy=80,
        normal_dose_gy=40,
        ratio=ratio,
        **tumors,
        **surface,
    )
    sheet, _ = _steps(inputs, volumes, share=share)
    for row in worksheet.step_rows(sheet):
        if row["formula"]:
            assert eval(row["numbers"].replace("^", "**")) == pytest.approx(row["value"], rel=2e-4, abs=1e-9)
    # The wanted doses are those of the activities that are for them.
    found = {
        (step.section.removeprefix("Doses of the activity "), step.symbol): step.value for step in sheet.steps
    }
    assert found["for the perfused liver", "D"] == pytest.approx(80, rel=1e-9)
    if volumes.whole.tumor:
        assert found["for tumours", "D_T"] == pytest.approx(150, rel=1e-9)
        assert found["for the liver without tumours", "D_N"] == pytest.approx(40, rel=1e-9)
    else:
        assert found["for the liver without tumours", "D"] == pytest.approx(40, rel=1e-9)


def test_a_worksheet_by_hand():
    """1500 ml with 150 ml of tumour, density 1: 1.5 kg, 0.15 kg, 1.35 kg. 2 GBq, a tenth to the lungs, ratio 4."""
    _, steps = _steps(
        Inputs("glass", 0.1, activity_gbq=2, ratio=4, density_g_per_ml=1.0, dose_gy_kg_per_gbq=50)
    )
    values = {symbol: step.value for (_, symbol, _), step in steps.items()}
    assert (values["load"], values["m"], values["m_T"], values["m_N"]) == pytest.approx((10, 1.5, 0.15, 1.35))
    assert values["D"] == pytest.approx(50 * 2 * 0.9 / 1.5)  # 60 Gy
    assert values["D_N"] == pytest.approx(90 / (4 * 0.15 + 1.35))  # 46.15 Gy
    assert values["D_T"] == pytest.approx(4 * 90 / 1.95)
    assert values["D_L"] == pytest.approx(50 * 2 * 0.1)
    assert values["A_max"] == pytest.approx(30 / (50 * 0.1))


def test_what_is_perfused():
    lobe = np.zeros(VOLUMES.mask.shape, np.uint8)
    lobe[100:700] = 1  # 50 ml of tumour and 550 ml beside it
    lobe[-20:] = 1  # and 20 ml outside the liver
    of_mask = perfused(VOLUMES, Volume(lobe, ONE_ML, name="/data/lobe.nii.gz"))
    assert (of_mask.liver_ml, of_mask.tumor_ml, of_mask.whole_liver_ml) == pytest.approx((600, 50, 1500))
    assert of_mask.name == "lobe.nii.gz" and of_mask.notes[0].startswith(
        "20.0 ml of the territory lie outside"
    )
    of_share = perfused(VOLUMES, share=0.4, tumor_share=1 / 3)
    assert (of_share.liver_ml, of_share.tumor_ml) == pytest.approx((600, 50))
    # All doses are the same, by mask or by share; the whole liver gets less than the perfused part.
    for where in (of_mask, of_share):
        sheet = worksheet.plan(VOLUMES, where, Inputs("glass", 0.05, activity_gbq=2, ratio=3))
        values = {step.symbol: step.value for step in sheet.steps}
        assert values["D"] == pytest.approx(49.67 * 2 * 0.95 / 0.618)
        assert values["D_N_all"] == pytest.approx(values["D_N"] * 550 / 1350)
        assert values["load"] == pytest.approx(10)
    assert perfused(VOLUMES).is_whole and perfused(VOLUMES, share=1.0).is_whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0}, "perfused_share is 0, expected above 0"),
        ({"share": 1.1}, "perfused_share is 1.1"),
        ({"share": 0.5, "tumor_share": -1}, "perfused_tumor_share is -1, expected 0 to 1"),
        ({"tumor_share": 0.5}, "without perfused_share"),
        ({"share": 0.05}, "150.0 ml of tumour are perfused, more than the 75.0 ml of liver"),
        (
            {"mask": np.r_[np.zeros(1500), np.ones(100)]},
            "the territory lies outside the liver of mask.nii.gz: 100",
        ),
        ({"mask": np.zeros(1600)}, "0 voxels, none of them liver"),
        ({"mask": np.ones(10)}, "expected the same shape"),
        ({"mask": np.ones(1600), "share": 0.5}, "expected a mask or a share"),
    ],
)
def test_what_cannot_be_perfused_is_refused(settings, message):
    if "mask" in settings:
        settings |= {
            "mask": Volume(settings["mask"].astype(np.uint8).reshape(-1, 1, 1), ONE_ML, name="t.nii.gz")
        }
    with pytest.raises(InputError, match=message):
        perfused(VOLUMES, **settings)
    if message.startswith("150.0"):  # As the message says.
        assert perfused(VOLUMES, share=0.05, tumor_share=0.5).tumor_ml == pytest.approx(75)
        assert perfused(VOLUMES, share=0.2).tumor_ml == pytest.approx(150)


# --- intervals ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-3, 3)), min_size=20, max_size=40), st.floats(0.15, 1))
def test_intervals_of_every_result_contain_it(logs, share):
    sheet, _ = _steps(FULL, errors=_errors(*zip(*logs, strict=True)), share=share)
    for step in sheet.steps:
        if step.where.low is not None:
            assert step.where.low <= step.value <= step.where.high and math.isfinite(step.where.high)
    # Even where the true tumours may be all of the liver, or none.
    sheet, _ = _steps(FULL, errors=_errors([0.0] * 20, [math.inf, -9] * 10), share=share)
    for step in sheet.steps:
        assert step.where.high is None or (math.isfinite(step.where.high) and step.where.low >= 0)


def test_intervals_are_carried_through_the_formulas():
    """Of 39 ratios, the interval of the liver is from V / r_38 to V / r_2; that of the dose is turned upside down."""
    ratios = np.linspace(0.8, 1.25, 39)
    errors = _errors(np.log(ratios), np.log(ratios[::-1]))
    _, steps = _steps(Inputs("glass", 0.1, activity_gbq=2, dose_gy=60), errors=errors)
    by = {(section.split()[-1], symbol): step for (section, symbol, _), step in steps.items()}
    mass = by["liver", "m"]
    assert mass.where.low == pytest.approx(mass.value / ratios[-2])
    assert mass.where.high == pytest.approx(mass.value / ratios[1])
    dose = by["stated", "D"]
    assert dose.where.low == pytest.approx(dose.value * ratios[1])
    assert dose.where.high == pytest.approx(dose.value * ratios[-2])
    # The activity for a dose has the interval of the mass; the dose of that one activity that of its inverse.
    wanted = next(
        step for (_, _, quantity), step in steps.items() if quantity == "activity for the perfused liver"
    )
    assert wanted.where.high / wanted.value == pytest.approx(1 / ratios[1])
    # Tumour and liver of one scan go together: the load of scan i is load r_liver / r_tumor.
    load = by["liver", "load"]
    both = np.sort(load.value * ratios / ratios[::-1])
    assert (load.where.low, load.where.high) == pytest.approx((both[1], both[-2]))


def test_what_depends_on_a_volume_without_errors_is_not_calibrated():
    inputs = Inputs("glass", 0.1, activity_gbq=2, ratio=3)
    sheet, steps = _steps(inputs, errors=_errors([0.1] * 30, [0.1] * 19))
    status = {symbol: step.where.status for (_, symbol, _), step in steps.items()}
    assert status == {
        "load": "not calibrated", "m": "90 %", "m_T": "not calibrated", "m_N": "not calibrated", "A_max": "", "A": "",
        "D": "90 %", "D_N": "not calibrated", "D_T": "not calibrated", "D_L": "",
    }  # fmt: skip
    text = worksheet.table(sheet)
    assert "not calibrated" in text and "1.398 to 1.545 (90 %)" in text


# --- warnings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "warnings"),
    [
        (Inputs("glass", 0.05, activity_gbq=2), []),
        (Inputs("glass", 0.2, activity_gbq=3.1), ["30.8 Gy of the lungs are more than the usual 30 Gy"]),
        (
            Inputs("glass", 0.2, activity_gbq=2.2, previous_lung_gy=35),
            ["21.9 Gy of the lungs are more than the usual 15 Gy"],
        ),
        (
            Inputs("glass", 0.0, activity_gbq=5),
            ["160.7 Gy of the perfused liver, mean are more than the usual 150 Gy"],
        ),
        (
            Inputs("holmium", 0.0, activity_gbq=6.5),
            ["66.8 Gy of the perfused liver, mean are more than the usual 60"],
        ),
        (
            Inputs("glass", 0.0, activity_gbq=2, ratio=2),
            ["116.9 Gy of the tumours are less than the usual 205 Gy"],
        ),
        (
            Inputs("resin", 0.21, activity_gbq=0.5),
            ["a lung shunt of 21 % is above 20 %: usually no resin microspheres are given"],
        ),
        (
            Inputs("glass", 0.1, activity_gbq=1, previous_lung_gy=50),
            ["had 50 Gy already", "more than the usual 0 Gy"],
        ),
    ],
)
def test_warnings_beyond_usual_limits(inputs, warnings):
    sheet, _ = _steps(inputs)
    assert len(sheet.warnings) == len(warnings), sheet.warnings
    for found, expected in zip(sheet.warnings, warnings, strict=True):
        assert expected in found
    for kind in sirt.MICROSPHERES.values():  # Every limit says where it is from.
        for limit in (kind.perfused_gy, kind.normal_gy, kind.tumor_gy, kind.largest_lung_shunt):
            assert limit.value is None or limit.source


def test_limits_of_livers_without_tumours_and_of_unknown_ratios():
    """58 Gy of a whole liver without tumours are above 40 Gy of resin; with tumours and no ratio nobody knows."""
    volumes = _volumes(1500, 0)
    sheet, _ = _steps(Inputs("resin", 0.0, activity_gbq=1.8), volumes)
    (warning,) = sheet.warnings
    assert "57.9 Gy of the perfused liver, mean are more than the usual 40 Gy" in warning
    # Of glass, the limit is of the whole liver: half of it gets 115.7 Gy, all of it 57.9 Gy.
    sheet, steps = _steps(Inputs("glass", 0.0, activity_gbq=1.8), volumes, share=0.5)
    values = {symbol: step.value for (_, symbol, _), step in steps.items()}
    assert (values["D"], values["D_N_all"]) == pytest.approx(
        (115.74, 57.87), abs=0.005
    ) and not sheet.warnings
    sheet, steps = _steps(Inputs("glass", 0.0, activity_gbq=1.8), share=0.5)
    assert (
        not [symbol for _, symbol, _ in steps if symbol in ("D_N", "D_T", "D_N_all")] and not sheet.warnings
    )
    assert sheet.notes[-1].startswith("no tumour-to-normal ratio is stated")


def test_an_interval_that_reaches_a_limit_is_a_warning():
    sheet, _ = _steps(Inputs("glass", 0.0, activity_gbq=4.3), errors=_errors(np.linspace(-0.3, 0.3, 39), []))
    (warning,) = sheet.warnings
    assert (
        "the interval of the perfused liver, mean reaches" in warning and "above the usual 150 Gy" in warning
    )


def test_body_surface_is_reduced_by_the_lung_shunt():
    for shunt, share in ((0.05, 1.0), (0.12, 0.8), (0.2, 0.6), (0.25, 0.0)):
        _, steps = _steps(Inputs("resin", shunt, height_m=1.75, weight_kg=70))
        (activity,) = (step.value for (_, symbol, _), step in steps.items() if symbol == "A")
        assert activity == pytest.approx(share * (sirt.body_surface_m2(1.75, 70) - 0.2 + 0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"microspheres": "glas"}, "microspheres is 'glas'; did you mean 'glass'"),
        ({"lung_shunt": 1.0}, "lung_shunt is 1, expected"),
        ({"lung_shunt": -0.01}, "lung_shunt is -0.01, expected"),
        ({"residual": 1.0}, "residual is 1, expected"),
        ({"activity_gbq": 0.0}, "activity_gbq is 0.0, expected a number above 0"),
        ({"activity_gbq": -1.0}, "activity_gbq is -1.0"),
        ({"activity_gbq": math.nan}, "activity_gbq is nan"),
        ({"dose_gy": 0.0}, "dose_gy is 0.0"),
        ({"ratio": 0.0}, "ratio is 0.0"),
        ({"lung_mass_kg": 0.0}, "lung_mass_kg is 0.0"),
        ({"density_g_per_ml": -1.0}, "density_g_per_ml is -1.0"),
        ({"previous_lung_gy": -1.0}, "previous_lung_gy is -1, expected 0 or more"),
        ({"weight_kg": 70.0}, "height_m is missing, expected height_m and weight_kg"),
        ({"height_m": 1.7}, "weight_kg is missing"),
        ({"height_m": 1.7, "weight_kg": -70.0}, "weight is -70 kg"),
        ({"height_m": 170.0, "weight_kg": 70.0}, "height is 170 m"),
        ({"height_m": 1.7, "weight_kg": 70.0}, "with glass microspheres, expected resin"),
        ({"activity_gbq": None}, "nothing is asked for"),
        ({"tumor_dose_gy": 120.0}, "ratio is missing"),
    ],
)
def test_inputs_out_of_range_are_refused(settings, message):
    with pytest.raises(LiverjaxError, match=message):
        Inputs(**{"microspheres": "glass", "lung_shunt": 0.05, "activity_gbq": 1.0} | settings)


def test_a_dose_of_tumours_needs_tumours():
    inputs = Inputs("glass", 0.05, tumor_dose_gy=200, ratio=3)
    with pytest.raises(ConfigError, match=r"no tumour is perfused; expected --dose_gy"):
        _steps(inputs, _volumes(1500, 0))
    sheet, steps = _steps(dataclasses.replace(inputs, tumor_dose_gy=None, dose_gy=100), _volumes(1500, 0))
    assert not [symbol for _, symbol, _ in steps if symbol in ("m_T", "D_T", "D_N")]
    assert "no tumour is perfused: doses are those of one compartment" in sheet.notes


def test_all_is_written_and_says_what_it_is_for(tmp_path):
    sheet, _ = _steps(FULL, errors=_errors([0.1] * 30, [0.2] * 30))
    worksheet.save(tmp_path / "out", sheet)
    document = json.loads((tmp_path / "out" / "sirt.json").read_text())
    assert document["use"] == "Research use only, not for treatment" and len(document["steps"]) == len(
        sheet.steps
    )
    lines = (tmp_path / "out" / "sirt.csv").read_text().splitlines()
    assert len(lines) == len(sheet.steps) + 1 and all("not for treatment" in line for line in lines[1:])
    inputs = {row["symbol"]: row for row in worksheet.input_rows(sheet)}
    assert {
        "V",
        "V_T",
        "V_all",
        "V_T_all",
        "LSF",
        "R",
        "TNR",
        "A",
        "D",
        "D_T",
        "D_N",
        "h",
        "w",
        "D_max",
        "m_L",
    } <= set(inputs)
    assert inputs["D_max"]["value"] == 20 and all(row["from"] for row in inputs.values())
    assert isinstance(sheet.volumes, Volumes) and isinstance(sheet.territory, Territory)
