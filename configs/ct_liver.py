"""CT liver at 2 mm, after Chlebus et al. (LiTS 2017): three 2D U-nets, soft Dice, Adam.

Argument "small": narrow networks at 3 mm that train on two CPU cores.

    liverjax prepare -i LITS -o STORE --config=ct_liver
    liverjax train --config=ct_liver --store=STORE --workdir=RUN
"""

from liverjax.config import default_config, make_small
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "ct_liver"
    config.target.labels = ("background", "liver")
    config.preprocess.modality = "ct"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    config.batch.patch = (192, 192)
    if arg == "small":
        make_small(config)
        config.batch.patch = (128, 128)
    elif arg:
        raise ConfigError(f"ct_liver takes the argument 'small' or none, not {arg!r}")
    return config
