"""CT liver at 2 mm, after Chlebus et al. (LiTS 2017): three 2D U-nets, soft Dice, Adam.

Argument "small": narrow networks at 3 mm that train on two CPU cores.

    liverjax prepare -i LITS -o STORE --config=ct_liver
    liverjax train --config=ct_liver --store=STORE --workdir=RUN
"""

from liverjax.config import default_config
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "ct_liver"
    config.labels = ("background", "liver")
    config.preprocess.modality = "ct"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    config.batch.patch = (192, 192)
    if arg == "small":
        small(config)
    elif arg:
        raise ConfigError(f"ct_liver takes the argument 'small' or none, not {arg!r}")
    return config


def small(config):
    """Narrows the networks and coarsens the grid: half a million parameters, minutes instead of days."""
    config.preprocess.spacing = (3.0, 3.0, 3.0)
    config.batch.patch = (128, 128)
    config.batch.size = 8
    config.model.features = (16, 32, 64, 128)
    config.model.dropout = 0.2
    config.model.norm_momentum = 0.9
    config.train.steps = 2000
    config.train.learning_rate = 2e-3
    config.train.validate_every = 250
    config.train.save_every = 250
