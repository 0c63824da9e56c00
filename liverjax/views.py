"""The three views of a scan, as axis permutations of a canonical (right, anterior, superior) array.

A volume is ``(x, y, z, ...)`` in RAS+ order: index 0 grows towards the patient's right, index 1 towards
anterior, index 2 towards superior. A view's stack is ``(slice, row, column, ...)``. NumPy and JAX arrays alike.
"""

VIEWS = ("axial", "coronal", "sagittal")

#: Name of a network that sees the slices of all views.
SHARED = "shared"

#: Axes of the volume that become (slice, row, column).
_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


def slice_axis(view: str) -> int:
    """Returns the axis of the volume along which the slices of a view are stacked."""
    return _AXES[view][0]


def _permutation(view: str, ndim: int) -> tuple[int, ...]:
    return (*_AXES[view], *range(3, ndim))


def to_stack(volume, view: str):
    """Returns the slices of ``volume`` (x, y, z, ...) seen in ``view``: (slice, row, column, ...)."""
    return volume.transpose(_permutation(view, volume.ndim))


def from_stack(stack, view: str):
    """Returns the volume (x, y, z, ...) whose slices in ``view`` are ``stack``. Inverse of `to_stack`."""
    permutation = _permutation(view, stack.ndim)
    return stack.transpose([permutation.index(axis) for axis in range(stack.ndim)])
