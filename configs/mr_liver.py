"""MR liver: the CT system with intensities scaled by each scan's own percentiles.

Argument "small": narrow networks at 3 mm that train on two CPU cores.

    liverjax prepare -i DATASET -o STORE --config=mr_liver
    liverjax train --config=mr_liver --store=STORE --workdir=RUN
"""

from liverjax.config import default_config, make_small
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "mr_liver"
    config.target.labels = ("background", "liver")
    config.preprocess.modality = "mr"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    config.batch.patch = (192, 192)
    # Coils see less of what lies far from them: without changes of brightness in training, a liver whose lower half is
    # dim is lost altogether, and with a bias field more of it is found (docs/results.md).
    config.augment.bias_field = 0.4
    if arg == "small":
        make_small(config)
        config.batch.patch = (112, 112)
    elif arg:
        raise ConfigError(f"mr_liver takes the argument 'small' or none, not {arg!r}")
    return config
