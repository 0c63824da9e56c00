"""Tumours in the liver, MR, three views: the second stage of a cascade. The liver is known, as for `ct_tumor`.

    liverjax prepare -i DATASET -o STORE --config=mr_tumor
    liverjax train --config=mr_tumor --store=STORE --workdir=RUN

Two classes, tumour or not, in the box around the liver; only the liver, dilated by 5 mm, counts (docs/tumors.md). Scans
of healthy livers, side by side with the others in one data set, teach what is none. Expected result: not measured;
nobody has trained it to the end yet. Hardware: a GPU or TPU, as for `ct_liver`.

Argument "small": narrow networks at 3 mm that train on two CPU cores. Expected result: docs/tumors.md.
"""

from liverjax.config import default_config, make_small
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "mr_tumor"
    config.target.labels = ("background", "tumor")
    config.target.region = "reference"
    config.preprocess.modality = "mr"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    # In hepatobiliary phase the liver is the brightest organ: 2 to 8 % of it lie above the body's 99.5th percentile, at
    # most 1.2 % above this one (seven scans).
    config.preprocess.percentiles = (0.5, 99.9)
    config.augment.bias_field = 0.4
    config.batch.patch = (128, 128)
    config.batch.stratified = True
    config.batch.tumor_share = 0.5
    config.batch.liver_share = 0.5
    config.train.validation_slices = 512
    if arg == "small":
        make_small(config)
        config.batch.patch = (96, 96)
        config.train.steps = 1500
        config.train.validation_slices = 128
    elif arg:
        raise ConfigError(f"mr_tumor takes the argument 'small' or none, not {arg!r}")
    return config
