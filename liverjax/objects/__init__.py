"""Lesions as objects: connected components of masks, and which of two masks' lesions correspond. No jax.

label, lesions, Lesion                     components of a mask: their ids, and what is known of each
largest, touching, without_small, holes    clean-up of masks
bounding_box
match_lesions, Matching, Match             predicted and reference lesions that correspond
find_candidates, CandidateOptions, truth   tumour candidates of a probability map, and which are true
measure, FEATURES                          their features
LesionFilter, read_filter, write_filter    the forest that keeps true ones
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "components": (
            "Lesion",
            "bounding_box",
            "holes",
            "label",
            "largest",
            "lesions",
            "touching",
            "without_small",
        ),
        "candidates": ("CandidateOptions", "Candidates", "find_candidates", "truth"),
        "features": ("FEATURES", "measure"),
        "filter": ("Filtered", "LesionFilter"),
        "filter_file": ("read_filter", "write_filter"),
        "matching": ("Match", "Matching", "match_lesions"),
    },
)
