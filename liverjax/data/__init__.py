"""Training data: from a data set to the batches of a step.

Public, imported on first use:

    prepare(source, folder, config) -> Store        scans and masks -> slices of each view on disk
    open_store(folder, preprocess, target) -> Store, of StoredCase
    store_identity(preprocess, target)              the fields of a config that a store depends on
    usable_cases(cases, labels), split_cases(cases, options, seed) -> Subsets
    add_tumors(image, labels, spacing, random, ...) synthetic tumours
    Sampler(cases, views, options, seed)            which slices make the batch of a step, each a Draw
    train_batches, validation_batches               NumPy arrays, read ahead
    augmented_slices(cases, view, config) -> Preview

The augmentation runs on the device: `liverjax.data.augment.augment`.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "store": ("Store", "open_store", "prepare", "store_identity"),
        "stored_case": ("StoredCase",),
        "splits": ("Subsets", "split_cases", "usable_cases"),
        "sampling": ("Draw", "Sampler"),
        "pipeline": ("train_batches", "validation_batches"),
        "synthetic": ("add_tumors",),
        "preview": ("Preview", "augmented_slices"),
    },
)
