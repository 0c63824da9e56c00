"""liverjax: liver and liver-tumour segmentation in CT and MRI with three orthogonal U-nets.

The names of everyday use, each documented where it is defined:

    liverjax.load_config("mr_liver:small")      a config, to be changed field by field
    liverjax.prepare(source, store, config)     scans and masks -> training store
    liverjax.train(config, workdir)             store -> trained networks; callback= follows it, StopTraining ends it
    liverjax.load_model("ct_liver")             a shipped model, a run, a bundle, or several runs as one
    model.predict(scan)                         path, Volume, array with affine, nibabel or SimpleITK -> Prediction
    liverjax.evaluate(predictions, references)  two folders of masks -> scores
    liverjax.read_scan(path) -> Volume          NIfTI or DICOM: voxels, and the affine that places them
    liverjax.write_mask(path, volume)

`Config` is what a config becomes (`liverjax.config.resolve`), with every default. The packages are public too, such as
``liverjax.scoring``. All are imported on first use: ``import liverjax`` alone pulls in no jax.
"""

from liverjax import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "config": ("load_config",),
        "options": ("Config",),
        "volume": ("Volume",),
        "prediction": ("Prediction",),
        "scans": ("read as read_scan",),
        "scans.nifti": ("write as write_mask",),
        "data.store": ("prepare",),
        "training.callback": ("StopTraining",),
        "training.loop": ("train",),
        "pretrained.load": ("load_model",),
        "scoring.cohort": ("evaluate",),
        "datasets": (),
        "experiments": (),
        "inference": (),
        "insight": (),
        "planning": (),
        "pretrained": (),
        "scoring": (),
        "studies": (),
    },
)
