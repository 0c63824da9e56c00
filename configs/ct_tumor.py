"""Tumours in the liver, CT: the second stage of a cascade. The liver is known, from a reference or from another model.

    liverjax prepare -i LITS -o STORE --config=ct_tumor
    liverjax train --config=ct_tumor --store=STORE --workdir=RUN

Two classes, tumour or not, in the box around the liver; only the liver, dilated by 5 mm, counts (docs/tumors.md). Axial
slices near their own resolution; three views at 2 mm instead are

    --config.preprocess.spacing=2,2,2 (of both) --config.views=axial,coronal,sagittal --config.batch.patch=128,128

Masks in which tumours are not told from the liver (`liver_only` in cases.json) are not used; scans without tumours are.
Expected result: not measured; nobody has trained it to the end yet. Hardware: a GPU or TPU, as for `ct_liver`.

Argument "small": narrow networks that train on two CPU cores. Expected result, of one fold without a filter:
docs/tumors.md.
"""

from liverjax.config import default_config, make_small
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "ct_tumor"
    config.views = ("axial",)
    config.target.labels = ("background", "tumor")
    config.target.region = "reference"
    config.preprocess.modality = "ct"
    config.preprocess.spacing = (1.0, 1.0, 2.0)
    # Liver and its tumours lie within: a wide window for bright livers and calcifications, narrower than for organs.
    config.preprocess.window = (-60.0, 200.0)
    config.batch.patch = (192, 192)
    config.batch.stratified = True
    config.batch.tumor_share = 0.5
    config.batch.liver_share = 0.5
    config.train.validation_slices = 512
    if arg == "small":
        make_small(config)
        config.preprocess.spacing = (1.5, 1.5, 3.0)
        config.batch.patch = (112, 112)
        config.train.steps = 1500
        config.train.validation_slices = 128
    elif arg:
        raise ConfigError(f"ct_tumor takes the argument 'small' or none, not {arg!r}")
    return config
