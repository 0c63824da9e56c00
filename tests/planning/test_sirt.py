"""SIRT: published numbers, a second implementation, inverses, units of other scales, and what is out of range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverjax.errors import InputError
from liverjax.planning import sirt

POSITIVE = st.floats(1e-3, 1e3)
SHARE = st.just(0.0) | st.floats(1e-6, 0.95)
RATIO = st.floats(0.1, 50)


# --- published numbers --------------------------------------------------------------------------------------------


def test_a_gigabecquerel_in_a_kilogram_gives_fifty_gray():
    """Sirtex, dosimetry: "1 GBq of yttrium-90/kg of tissue provides the equivalent of 50 Gy"; and the physics of it."""
    assert sirt.one_compartment_dose(1.0, 1.0, dose_gy_kg_per_gbq=50) == 50
    assert sirt.one_compartment_dose(1.0, 1.0) == pytest.approx(50, rel=0.01)
    # Half-life 64.1 h, mean energy of the betas 0.9267 to 0.9367 MeV: energy of 1e9 Bq until all has decayed, in J.
    for mev in (0.9267, 0.9367):
        joule = 1e9 * mev * 1.602176634e-13 * 64.1 * 3600 / math.log(2)
        assert sirt.Y90.dose_gy_kg_per_gbq == pytest.approx(joule, rel=0.01)


def test_holmium_of_3780_mbq_per_kilogram_gives_60_gray():
    """Van Roekel, thesis, p. 30: activity (MBq) = liver mass (kg) * 3780, for 60 Gy of the whole liver."""
    dose = sirt.one_compartment_dose(3.78 * 1.7, 1.7, dose_gy_kg_per_gbq=sirt.HO166.dose_gy_kg_per_gbq)
    assert dose == pytest.approx(60, rel=1e-3)


def test_partition_model_as_published():
    """Van Roekel, thesis, p. 30: A (GBq) = D_normal * (TN * M_tumour (g) + M_normal (g)) / (49 670 * (1 - shunt))."""
    tumor_g, normal_g, ratio, shunt, normal_gy = 180.0, 1420.0, 4.2, 0.07, 40.0
    published = normal_gy * (ratio * tumor_g + normal_g) / (49_670 * (1 - shunt))
    masses = tumor_g / 1000, normal_g / 1000
    ours = sirt.partition_activity(*masses, ratio, normal_gy=normal_gy, lung_shunt=shunt)
    assert ours == pytest.approx(published, rel=1e-12)
    # Kao 2013: each compartment gets D = 50 A / m of its own activity, and all activity is somewhere.
    tumor, normal = sirt.partition_doses(ours, *masses, ratio, shunt)
    lungs = sirt.lung_dose(ours, shunt)
    somewhere = (tumor * masses[0] + normal * masses[1] + lungs * 1.0) / 49.67
    assert somewhere == pytest.approx(ours, rel=1e-12)
    assert tumor / normal == pytest.approx(ratio, rel=1e-12)


@given(st.floats(1e-3, 3), st.floats(0.1, 3), st.floats(0.05, 20), st.floats(0, 0.5), st.floats(10, 500))
def test_the_equations_of_kao_2013(tumor_kg, normal_kg, activities, shunt, tumor_gy):
    """Kao 2013, equations 1 to 3, with the activity ratio R = A_T / A_N and the shunt A_L / (A_T + A_L) of tumours.

    From the wanted dose of tumours D_T = 50 A_T / m_T follow A_T, A_N = A_T / R, A_L, their sum and the other doses.
    In our terms TNR = R m_N / m_T, and the lung shunt is A_L of all activity.
    """
    in_tumor = tumor_gy * tumor_kg / 50
    in_normal, in_lungs = in_tumor / activities, in_tumor * shunt / (1 - shunt)
    total = in_tumor + in_normal + in_lungs
    model = (tumor_kg, normal_kg, activities * normal_kg / tumor_kg)
    lost = {"lung_shunt": in_lungs / total, "dose_gy_kg_per_gbq": 50.0}
    assert sirt.partition_activity(*model, tumor_gy=tumor_gy, **lost) == pytest.approx(total, rel=1e-9)
    doses = sirt.partition_doses(total, *model, **lost)
    assert doses == pytest.approx((tumor_gy, 50 * in_normal / normal_kg), rel=1e-9)
    assert sirt.lung_dose(total, **lost) == pytest.approx(50 * in_lungs, rel=1e-9, abs=1e-12)


def test_body_surface_as_published():
    """Larizza 2018, recomputed in public: 1.818 m, 70.7 kg have 1.907961 m2. Van Roekel, p. 30: BSA - 0.2 + share."""
    assert sirt.body_surface_m2(1.818, 70.7) == pytest.approx(1.907961, abs=5e-7)
    # Du Bois' own constant, for centimetres: another scale of the same formula.
    assert pytest.approx(sirt.body_surface_m2(1.818, 70.7), rel=2e-4) == 0.007184 * 181.8**0.725 * 70.7**0.425
    whole = sirt.body_surface_activity(1.907961, tumor_ml=150, treated_ml=1500, liver_ml=1500)
    assert whole == pytest.approx(1.907961 - 0.2 + 150 / (150 + 1350), rel=1e-12)
    # A lobe of 900 ml with 90 ml of tumour: (BSA - 0.2 + V_T / V_lobe) V_lobe / V_liver, as package inserts have it.
    lobe = sirt.body_surface_activity(1.907961, tumor_ml=90, treated_ml=900, liver_ml=1500)
    assert lobe == pytest.approx((1.907961 - 0.2 + 90 / 900) * 900 / 1500, rel=1e-12)
    # Backwards to the surface.
    assert (lobe * 1500 - 90) / 900 + 0.2 == pytest.approx(1.907961, rel=1e-9)


def test_lung_dose_as_published():
    """30 Gy are 0.61 GBq in lungs of 1 kg (instructions of glass microspheres, k = 49.38): within 2 % at k = 49.67."""
    assert sirt.lung_activity(30, 0.1, dose_gy_kg_per_gbq=49.38) * 0.1 == pytest.approx(0.61, abs=0.005)
    assert sirt.lung_activity(30, 0.1) * 0.1 == pytest.approx(0.61, rel=0.02)


@pytest.mark.parametrize(
    ("shunt", "factor"),
    [(0, 1), (0.0999, 1), (0.10, 0.8), (0.1499, 0.8), (0.15, 0.6), (0.20, 0.6), (0.2001, 0), (0.5, 0)],
)
def test_reduction_by_lung_shunt(shunt, factor):
    """Van Roekel, thesis, p. 41: reductions of 20 %, 40 % and 100 % beyond 10 %, 15 % and 20 %."""
    assert sirt.lung_shunt_factor(shunt) == factor


# --- a second implementation --------------------------------------------------------------------------------------


def test_agrees_with_radulator():
    """Numbers of the tests of the calculator momomojo/Radulator (Y90RadiationSegmentectomy), as it rounds them."""
    mass = sirt.mass(1000.0)
    assert mass * 100 == pytest.approx(103.0, abs=0.05)  # "Required Energy" for 100 Gy, in J
    activity = sirt.one_compartment_activity(100.0, mass, 0.10)
    assert activity == pytest.approx(2.30, abs=0.005)
    assert sirt.lung_dose(activity, 0.10) == pytest.approx(11.4, abs=0.05)
    # A residual of 10 % raises what is drawn, not what is injected.
    drawn = sirt.one_compartment_activity(100.0, mass, 0.10, 0.10)
    assert drawn == pytest.approx(2.56, abs=0.005)
    assert sirt.lung_dose(drawn, 0.10, 0.10) == pytest.approx(11.4, abs=0.05)
    assert sirt.one_compartment_activity(800.0, sirt.mass(2000.0), 0.5) == pytest.approx(66.36, abs=0.005)
    # Partition: 200 ml of tumour in 1000 ml, 300 Gy wanted, TNR 3 and 1.
    tumor, normal = sirt.mass(200.0), sirt.mass(800.0)
    for ratio, gbq, normal_gy, mean_gy in ((3, 3.23, 100.0, 140.0), (1, 6.91, 300.0, 300.0)):
        activity = sirt.partition_activity(tumor, normal, ratio, tumor_gy=300.0, lung_shunt=0.10)
        assert activity == pytest.approx(gbq, abs=0.005)
        assert sirt.partition_doses(activity, tumor, normal, ratio, 0.10)[1] == pytest.approx(
            normal_gy, rel=1e-9
        )
        assert sirt.one_compartment_dose(activity, mass, 0.10) == pytest.approx(mean_gy, rel=1e-9)
    assert sirt.lung_dose(3.2261, 0.10) == pytest.approx(16.0, abs=0.05)
    # Its limit of 30 Gy for the lungs lies between these two doses of 1000 ml at a shunt of 20 %.
    lungs = [sirt.lung_dose(sirt.one_compartment_activity(gy, mass, 0.2), 0.2) for gy in (116.5, 116.51)]
    assert lungs[0] <= 30 < lungs[1]
    assert sirt.body_surface_m2(1.75, 70) == pytest.approx(1.84, abs=0.01)  # by another formula (Mosteller)


def test_agrees_with_taranis():
    """Numbers of the tests of 4burakfe/SlicerRadioembolizationDosimetry (TaranisLib/lsf): 2 GBq, 10 %, 1 kg."""
    assert sirt.lung_dose(2.0, 0.10, lung_kg=1.0) == pytest.approx(49.67 * 0.2)
    assert sirt.lung_dose(1.0, 0.10, lung_kg=0.5) == pytest.approx(49.67 * 0.2)
    assert sirt.lung_dose(8.0, 0.08) == pytest.approx(31.8, abs=0.05)


def test_agrees_with_a_partition_calculator():
    """mfr234/Partition-Model, which takes volumes in ml as grams, 49.7, and percent: re-derived from its one line."""
    dose, tumor, normal, ratio, shunt = 120.0, 250.0, 1300.0, 2.5, 8.0
    theirs = dose * (tumor * ratio + normal) * 100 / (49.7 * ratio * (100 - shunt)) / 1000
    masses = sirt.mass(tumor, 1.0), sirt.mass(normal, 1.0)
    ours = sirt.partition_activity(*masses, ratio, tumor_gy=dose, lung_shunt=0.08, dose_gy_kg_per_gbq=49.7)
    assert ours == pytest.approx(theirs, rel=1e-12)


# --- properties ---------------------------------------------------------------------------------------------------


@given(POSITIVE, POSITIVE, SHARE, SHARE, st.floats(1, 100))
def test_one_compartment_there_and_back(dose, mass, shunt, residual, k):
    activity = sirt.one_compartment_activity(dose, mass, shunt, residual, k)
    assert sirt.one_compartment_dose(activity, mass, shunt, residual, k) == pytest.approx(dose, rel=1e-9)


@given(POSITIVE, POSITIVE, POSITIVE, RATIO, SHARE, SHARE)
def test_partition_there_and_back(dose, tumor, normal, ratio, shunt, residual):
    lost = {"lung_shunt": shunt, "residual": residual}
    for index, wanted in enumerate(("tumor_gy", "normal_gy")):
        activity = sirt.partition_activity(tumor, normal, ratio, **{wanted: dose}, **lost)
        found = sirt.partition_doses(activity, tumor, normal, ratio, **lost)
        assert found[index] == pytest.approx(dose, rel=1e-9)
        # The mean over the perfused mass is that of one compartment.
        mean = (found[0] * tumor + found[1] * normal) / (tumor + normal)
        assert mean == pytest.approx(sirt.one_compartment_dose(activity, tumor + normal, **lost), rel=1e-9)
    if shunt:
        activity = sirt.lung_activity(dose, shunt, residual)
        assert sirt.lung_dose(activity, shunt, residual) == pytest.approx(dose, rel=1e-9)


@given(POSITIVE, POSITIVE, POSITIVE, RATIO, SHARE, SHARE, st.floats(0.01, 100), st.floats(0.01, 100))
def test_units_of_another_scale_give_the_same_dose(activity, tumor, normal, ratio, shunt, residual, a, m):
    """Activities times a, masses times m: the constant in Gy mass / activity is k m / a. MBq and g: the same number."""
    k = sirt.Y90.dose_gy_kg_per_gbq
    assert k * 1000 / 1000 == k
    lost = {"lung_shunt": shunt, "residual": residual}
    scale = {"dose_gy_kg_per_gbq": k * m / a}

    def same(first, second):
        assert second == pytest.approx(first, rel=1e-9)

    same(
        sirt.one_compartment_dose(activity, normal, **lost),
        sirt.one_compartment_dose(a * activity, m * normal, **lost, **scale),
    )
    same(
        sirt.partition_doses(activity, tumor, normal, ratio, **lost),
        sirt.partition_doses(a * activity, m * tumor, m * normal, ratio, **lost, **scale),
    )
    same(
        sirt.lung_dose(activity, shunt, residual, normal),
        sirt.lung_dose(a * activity, shunt, residual, m * normal, **scale),
    )
    # The inverses give an activity in the other unit.
    dose = 1 + activity
    same(
        a * sirt.one_compartment_activity(dose, normal, **lost),
        sirt.one_compartment_activity(dose, m * normal, **lost, **scale),
    )
    same(
        a * sirt.partition_activity(tumor, normal, ratio, tumor_gy=dose, **lost),
        sirt.partition_activity(m * tumor, m * normal, ratio, tumor_gy=dose, **lost, **scale),
    )
    if shunt:
        other = sirt.lung_activity(dose, shunt, residual, m * normal, **scale)
        same(a * sirt.lung_activity(dose, shunt, residual, normal), other)
    # Volumes of the body surface method enter as shares only: ml or l.
    surface = sirt.body_surface_activity(1.9, 0.1 * normal, 0.5 * normal, normal)
    same(surface, sirt.body_surface_activity(1.9, 0.1 * m * normal, 0.5 * m * normal, m * normal))
    # A density in g / ml makes kg of ml; in kg / l of l.
    same(sirt.mass(1000 * normal, 1.03), 1.03 * normal)


@given(POSITIVE, POSITIVE, POSITIVE, RATIO, SHARE, st.floats(1.01, 10))
def test_doses_rise_with_activity_and_fall_with_mass_shunt_and_residual(
    activity, tumor, normal, ratio, share, more
):
    dose = sirt.one_compartment_dose(activity, normal, share, share)
    assert sirt.one_compartment_dose(more * activity, normal, share, share) > dose
    assert sirt.one_compartment_dose(activity, more * normal, share, share) < dose
    higher = share + (1 - share) / 2
    assert sirt.one_compartment_dose(activity, normal, higher, share) < dose
    assert sirt.one_compartment_dose(activity, normal, share, higher) < dose
    both = np.array(sirt.partition_doses(activity, tumor, normal, ratio, share))
    assert (np.array(sirt.partition_doses(more * activity, tumor, normal, ratio, share)) > both).all()
    assert (np.array(sirt.partition_doses(activity, more * tumor, normal, ratio, share)) < both).all()
    assert (np.array(sirt.partition_doses(activity, tumor, more * normal, ratio, share)) < both).all()
    # A higher ratio moves dose from the liver to the tumours.
    tumor_gy, normal_gy = sirt.partition_doses(activity, tumor, normal, more * ratio, share)
    assert tumor_gy > both[0] and normal_gy < both[1]
    assert sirt.lung_dose(more * activity, higher) > sirt.lung_dose(activity, share)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5), RATIO, SHARE)
def test_arrays_of_samples_are_computed_one_by_one(pairs, ratio, shunt):
    tumor, normal = np.array(pairs).T
    for both in (sirt.partition_doses(2.0, tumor, normal, ratio, shunt),):
        each = [sirt.partition_doses(2.0, t, n, ratio, shunt) for t, n in pairs]
        assert pytest.approx(np.array(each), rel=1e-12) == np.array(both).T


# --- out of range -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sirt.one_compartment_dose(1.0, 1.0, 1.0),
            r"lung_shunt is 1, expected at least 0 and less than 1",
        ),
        (lambda: sirt.one_compartment_dose(1.0, 1.0, -0.1), r"lung_shunt is -0.1, expected at least 0"),
        (lambda: sirt.one_compartment_dose(1.0, 1.0, 5.0), r"\(a fraction: 5 % are 0.05\)"),
        (lambda: sirt.one_compartment_dose(1.0, 1.0, math.nan), r"lung_shunt is nan"),
        (lambda: sirt.one_compartment_dose(1.0, 1.0, 0, 1.0), r"residual is 1, expected"),
        (lambda: sirt.one_compartment_dose(1.0, 0.0), r"mass_kg is 0.0, expected a number above 0"),
        (lambda: sirt.one_compartment_dose(-1.0, 1.0), r"activity_gbq is -1.0, expected 0 GBq or more"),
        (lambda: sirt.one_compartment_dose(math.inf, 1.0), r"activity_gbq is inf"),
        (lambda: sirt.one_compartment_activity(0.0, 1.0), r"dose_gy is 0.0, expected a number above 0"),
        (lambda: sirt.one_compartment_dose(1.0, 1.0, 0, 0, 0.0), r"dose_gy_kg_per_gbq is 0.0"),
        (
            lambda: sirt.partition_doses(1.0, -1.0, 1.0, 3),
            r"tumor_kg is -1.0, expected a mass of 0 kg or more",
        ),
        (lambda: sirt.partition_doses(1.0, 0.0, 0.0, 3), r"perfused_kg is 0.0"),
        (lambda: sirt.partition_doses(1.0, 1.0, 1.0, 0), r"tumor_to_normal_ratio is 0"),
        (lambda: sirt.partition_activity(1.0, 1.0, 3), r"expected one of the two"),
        (lambda: sirt.partition_activity(1.0, 1.0, 3, tumor_gy=1, normal_gy=1), r"expected one of the two"),
        (lambda: sirt.body_surface_m2(175, 70), r"height is 175 m, expected 0.3 to 2.6 m"),
        (lambda: sirt.body_surface_m2(1.75, -70), r"weight is -70 kg, expected 2 to 500 kg"),
        (
            lambda: sirt.body_surface_activity(1.8, 600.0, 500.0, 1500.0),
            r"tumours of 600.0 ml, expected 0 to the 500",
        ),
        (
            lambda: sirt.body_surface_activity(1.8, 1.0, 1600.0, 1500.0),
            r"1600.0 ml are treated, expected at most",
        ),
        (lambda: sirt.body_surface_activity(0.2, 1.0, 10.0, 10.0), r"more than 0.2 m2"),
        (lambda: sirt.lung_dose(1.0, 0.1, lung_kg=0), r"lung_kg is 0"),
    ],
)
def test_what_is_out_of_range_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_nothing_gives_nothing():
    assert sirt.one_compartment_dose(0.0, 1.0, 0.1) == 0
    assert sirt.partition_doses(0.0, 0.1, 1.0, 3) == (0, 0)
    assert sirt.lung_dose(1.0, 0.0) == 0 and sirt.lung_activity(30, 0.0) == math.inf
