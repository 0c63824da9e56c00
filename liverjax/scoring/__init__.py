"""Scores of masks, without jax: on plain arrays with voxel sizes in mm, or on whole folders of files.

    dice, iou, voe, rvd                                   overlap of two masks
    assd, rmsd, hausdorff, hd95, nsd                      surfaces of two masks, in mm
    hd95_max_of_directed, hd95_area_weighted              other definitions of HD95
    miccai_score, lesion_detection                        scores of a liver, and of its lesions
    confidence_interval, compare, holm, agreement         statistics over cases
    icc, fleiss_kappa, krippendorff_alpha, staple         agreement and consensus of readers
    evaluate                                              two folders of masks -> tables

    >>> import numpy as np
    >>> from liverjax import scoring
    >>> liver = np.zeros((8, 8, 8))
    >>> liver[2:6, 2:6, 2:6] = 1
    >>> scoring.hd95(np.roll(liver, 1, axis=2), liver, spacing=(0.7, 0.7, 5.0))
    5.0

Every definition is written down in docs/metrics.md.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "metrics": (
            *("dice", "iou", "voe", "rvd", "assd", "rmsd", "hausdorff", "hd95", "hd95_max_of_directed"),
            *("hd95_area_weighted", "nsd", "miccai_score", "lesion_detection", "METRICS"),
        ),
        "lits": ("Detection",),
        "statistics": ("agreement", "compare", "confidence_interval", "holm"),
        "rater_agreement": ("fleiss_kappa", "icc", "krippendorff_alpha"),
        "consensus": ("staple",),
        "cohort": ("evaluate",),
        "summary": ("Evaluation",),
    },
)
