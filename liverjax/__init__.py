"""liverjax: liver and liver-tumour segmentation in CT and MRI with three orthogonal U-nets.

The functions of everyday use, each documented where it is defined:

    liverjax.load_config("mr_liver:small")      a config, to be changed field by field
    liverjax.prepare(source, store, config)     scans and masks -> training store
    liverjax.train(config, workdir)             store -> trained networks
    liverjax.load_model(workdir)                -> model; model.predict(path_or_volume) -> Prediction
    liverjax.evaluate(predictions, references)  two folders of masks -> scores
    liverjax.read_scan(path) -> Volume          voxels and the affine that places them
    liverjax.write_mask(path, volume)

They are imported on first use: ``import liverjax`` alone pulls in no jax.
"""

import importlib

__version__ = "0.1.0"

#: Public name -> module, and its name there.
_WHERE = {
    "Volume": ("liverjax.volume", "Volume"),
    "evaluate": ("liverjax.scoring.cohort", "evaluate"),
    "load_config": ("liverjax.config", "load_config"),
    "load_model": ("liverjax.pretrained.load", "load_model"),
    "prepare": ("liverjax.data.store", "prepare"),
    "read_scan": ("liverjax.scans.nifti", "read"),
    "train": ("liverjax.training.loop", "train"),
    "write_mask": ("liverjax.scans.nifti", "write"),
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name][0]), _WHERE[name][1])
    raise AttributeError(f"module 'liverjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
