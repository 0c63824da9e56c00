"""What masks are for, from mask files alone: diameters and response. No jax. Research use only.

measure, diameters, MeasuredMask, MeasuredLesion, Diameters, Line    diameters of lesions
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "diameters": (
            *("Diameters", "Line", "MeasuredLesion", "MeasuredMask", "measure", "slice_axis", "slice_distance"),
            "diameters as lesion_diameters",
        ),
    },
)
