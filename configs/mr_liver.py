"""MR liver: the CT system with intensities scaled by each scan's own percentiles.

Argument "small": narrow networks at 3 mm that train on two CPU cores.

    liverjax prepare -i DATASET -o STORE --config=mr_liver
    liverjax train --config=mr_liver --store=STORE --workdir=RUN
"""

from liverjax.config import default_config
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "mr_liver"
    config.labels = ("background", "liver")
    config.preprocess.modality = "mr"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    config.batch.patch = (192, 192)
    if arg == "small":
        config.preprocess.spacing = (3.0, 3.0, 3.0)
        config.batch.patch = (112, 112)
        config.batch.size = 8
        config.model.features = (16, 32, 64, 128)
        config.model.dropout = 0.2
        config.model.norm_momentum = 0.9
        config.train.steps = 2000
        config.train.learning_rate = 2e-3
        config.train.validate_every = 250
        config.train.save_every = 250
    elif arg:
        raise ConfigError(f"mr_liver takes the argument 'small' or none, not {arg!r}")
    return config
