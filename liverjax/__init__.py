"""liverjax: liver and liver-tumour segmentation in CT and MRI with three orthogonal U-nets.

The functions of everyday use, each documented where it is defined:

    liverjax.load_config("mr_liver:small")      a config, to be changed field by field
    liverjax.prepare(source, store, config)     scans and masks -> training store
    liverjax.train(config, workdir)             store -> trained networks
    liverjax.load_model(workdir)                -> model; model.predict(path_or_volume) -> Prediction
    liverjax.evaluate(predictions, references)  two folders of masks -> scores
    liverjax.Volume                             voxels and the affine that places them

They are imported on first use: ``import liverjax`` alone pulls in no jax.
"""

import importlib

__version__ = "0.1.0"

_WHERE = {
    "Volume": "liverjax.scans.volume",
    "evaluate": "liverjax.scoring.cohort",
    "load_config": "liverjax.config",
    "load_model": "liverjax.inference.segmenter",
    "prepare": "liverjax.data.store",
    "train": "liverjax.training.loop",
}

__all__ = ["Volume", "__version__", "evaluate", "load_config", "load_model", "prepare", "train"]


def __getattr__(name: str):
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'liverjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
