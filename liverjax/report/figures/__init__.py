"""Pictures of segmentations, scores and training, as PNG bytes.

preview, contact_sheet                                    slices with the contours of their labels
slice_strips                                              slices of a page, to scroll through
score_distribution, bland_altman, detection_by_size       charts of an evaluation
reliability                                               chart of a calibration
variants                                                  chart of an ablation
training_curves                                           chart of a training
lesion_slice, lesion_course                               a lesion with its diameters over time
receptive_fields, attribution_sheet, sanity_checks        what a model sees
robustness_profiles, scatter, novelty_scores, sheet       how firmly, and in what features
sums_of_diameters, class_shares                           charts of response, and of its raters
reader_volumes                                            several readers of all cases
learning_curve                                            score by the number of training patients
correction_curves                                         Dice by the share of corrected slices
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "slices": ("contact_sheet", "preview"),
        "strips": ("slice_strips",),
        "charts": (
            "bland_altman",
            "detection_by_size",
            "reliability",
            "score_distribution",
            "training_curves",
            "variants",
        ),
        "curves": ("learning_curve",),
        "readers": ("correction_curves", "reader_volumes"),
        "insight": (
            "attribution_sheet",
            "novelty_scores",
            "receptive_fields",
            "robustness_profiles",
            "sanity_checks",
            "scatter",
            "sheet",
        ),
        "response": ("class_shares", "lesion_course", "lesion_slice", "sums_of_diameters"),
    },
)
