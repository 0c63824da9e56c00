"""What masks are for, from mask files alone, any tool's: diameters of lesions, and response. No jax. Research use only.

measure, lesion_diameters                            exact axial diameters of lesions, in mm
MeasuredMask, MeasuredLesion, Diameters, Line        what they return
find_patients, assess_patient, Options, Assessment   from mask files to the response at each time point
follow                                               which lesions of several time points are the same
assess, Visit, Finding, Part, Elsewhere, Response    response from diameters alone, without files
target_response, overall_response, propose_targets   the rules, one by one
read_raters, compare_raters, Agreement               how raters agree: classes, kappa, limits, choice of lesions
simulate_raters, RaterCourse, fleiss_kappa

Every definition is written down in docs/planning.md.
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
        "variability": ("RaterCourse", "fleiss_kappa", "simulate_raters"),
    },
)
