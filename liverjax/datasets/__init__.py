"""Data sets: cases in every layout of the field, their checks, and phantoms.

Public, imported on first use:

    find_cases(path, layout="auto") -> [Case]       Case.read_image, read_mask, read_pair
    check_data_set(path) -> Report                  all findings, each a Finding
    make_phantom(seed) -> Phantom                   a synthetic scan with its exact mask
    write_dataset(folder, seeds)                    phantoms as a data set on disk
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "case": ("Case",),
        "layouts": ("find_cases",),
        "check": ("check_data_set",),
        "findings": ("Finding", "Report"),
        "phantom": ("Phantom", "make_phantom", "write_dataset"),
    },
)
