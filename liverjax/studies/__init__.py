"""Studies of trained models on labelled scans.

`calibrate` fits temperatures and fusion weights and measures calibration (`fit`, `reliability`,
`negative_log_likelihood`, `expected_calibration_error`); `held_out_slices` and `ranking` ask whether slice quality
finds the slices that need correction; `train_filter` makes a lesion filter of predictions (`fit_filter` of measured
candidates). `study_observers` asks how much observers differ, `study_corrections`
what correcting automatic masks takes; `plan_curve`, `read_curves` and `fit_curve` how many cases are enough.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "calibration": (
            "Fit",
            "Voxels",
            "calibrate",
            "expected_calibration_error",
            "fit",
            "fuse",
            "labelled_scans",
            "negative_log_likelihood",
            "reliability",
        ),
        "corrections": ("Corrections", "study_corrections"),
        "curve_fit": ("CurveFit", "fit_curve"),
        "learning_curve": ("Curve", "plan_curve", "read_curves"),
        "forest_fit": ("FilterFit", "fit_filter"),
        "lesions": ("train_filter",),
        "observers": ("Observers", "study_observers", "variability"),
        "quality": ("Slices", "held_out_slices", "ranking", "scored_slices", "table"),
    },
)
