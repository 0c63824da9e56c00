"""Lesions as objects: connected components of masks, and which of two masks' lesions correspond. No jax.

label, lesions, Lesion                     components of a mask: their ids, and what is known of each
largest, touching, without_small, holes    clean-up of masks
bounding_box
match_lesions, Matching, Match             predicted and reference lesions that correspond
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
        "matching": ("Match", "Matching", "match_lesions"),
    },
)
