"""What the networks see: how far, what at, how firmly, and how like what they were trained on.

look(model, scan) -> Seen                     a scan as the networks see it
of_slice, at, lesion, worst -> Question       pixels of a slice, and the class they get
theoretical, effective_field                  receptive fields
grad_cam, gradient, integrated_gradients, occlusion
                                              maps of what speaks for the answer
explain(model, seen, question)                all of them, and their checks
cascade, curves                               whether the maps depend on the weights, and find what matters
robustness                                    Dice against contrast, noise, blur, shift, missing slices, mirroring
bottleneck, principal_axes, Novelty           feature vectors of slices, and how far they lie from those of training
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "seen": (
            "Question",
            "Seen",
            "at",
            "lesion",
            "look",
            "of_slice",
            "on_grid",
            "world_of_voxel",
            "worst",
        ),
        "taps": ("apply_with_tap", "untrained"),
        "receptive_field": ("Field", "effective_field", "theoretical"),
        "attribution": ("Map", "grad_cam", "gradient", "integrated_gradients", "occlusion"),
        "explanation": ("Explanation", "explain"),
        "sanity": ("cascade", "curves"),
        "changes": ("robustness",),
        "features": ("Novelty", "bottleneck", "principal_axes"),
    },
)
