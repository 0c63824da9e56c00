"""What masks are for, from mask files alone, any tool's: diameters of lesions, and response. No jax. Research use only.

measure, lesion_diameters                            exact axial diameters of lesions, in mm
MeasuredMask, MeasuredLesion, Diameters, Line        what they return
find_patients, assess_patient, Options, Assessment   from mask files to the response at each time point
follow                                               which lesions of several time points are the same
assess, Visit, Finding, Part, Elsewhere, Response    response from diameters alone, without files
target_response, overall_response, propose_targets   the rules, one by one
read_raters, compare_raters, Agreement               how raters agree: classes, kappa, limits, choice of lesions
simulate_raters, RaterCourse, fleiss_kappa
read_masks, measure_volumes, Volumes, VolumeErrors   volumes of liver, tumours, lesions, regions, with intervals
read_volume_errors                                   how far predicted volumes were from references
one_compartment_dose, one_compartment_activity       activity and dose of SIRT: MIRD, one compartment
partition_doses, partition_activity                  partition model
lung_dose, lung_activity, lung_shunt_factor          lungs
body_surface_m2, body_surface_activity               activity of resin microspheres by body surface
plan_sirt, SirtInputs, Territory, perfused           the worksheet of a patient

Every definition is written down in docs/planning.md and docs/sirt.md.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "diameters": (
            *(
                "Diameters",
                "Line",
                "MeasuredLesion",
                "MeasuredMask",
                "measure",
                "slice_axis",
                "slice_distance",
            ),
            "diameters as lesion_diameters",
        ),
        "patients": ("Patient", "TimePoint", "find_patients"),
        "masks": ("read_masks", "read_transform"),
        "assessment": ("Assessment", "Options", "assess_patient"),
        "tracking": ("follow",),
        "course": ("Elsewhere", "Finding", "Part", "Response", "Visit", "assess"),
        "recist": (
            *("MRECIST", "RECIST", "WHO", "Candidate", "Criteria", "measurable", "overall_response"),
            *("propose_targets", "target_response"),
        ),
        "raters": ("Agreement", "compare_raters", "read_raters"),
        "volumetry": ("Volumes", "measure as measure_volumes", "read_masks", "rows as volume_rows"),
        "intervals": ("VolumeErrors", "read_volume_errors"),
        "sirt": (
            *(
                "GLASS",
                "HO166",
                "HOLMIUM",
                "RESIN",
                "Y90",
                "body_surface_activity",
                "body_surface_m2",
                "lung_activity",
            ),
            *("lung_dose", "lung_shunt_factor", "one_compartment_activity", "one_compartment_dose"),
            *("partition_activity", "partition_doses"),
        ),
        "territory": ("Territory", "perfused"),
        "sirt_inputs": ("Inputs as SirtInputs",),
        "worksheet": ("Worksheet", "plan as plan_sirt"),
        "variability": ("RaterCourse", "fleiss_kappa", "simulate_raters"),
    },
)
