"""Phantom abdomens, liver and tumours: the whole way in a few minutes on two CPU cores.

    liverjax demo

Expected result, mean of four held-out phantoms: liver Dice 0.956, tumour Dice 0.454. Hardware: two cores of a shared
x86 machine. 4 minutes 21 seconds with the installation of all packages (`make demo` in a fresh clone).
"""

from liverjax.config import default_config
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    if arg:
        raise ConfigError(f"demo takes no argument, not {arg!r}")
    config = default_config()
    config.name = "demo"
    config.target.labels = ("background", "liver", "tumor")
    config.preprocess.spacing = (4.0, 4.0, 4.0)
    config.split.folds = 4
    config.split.validation = 2
    config.batch.patch = (80, 96)
    config.batch.size = 8
    config.batch.tumor_share = 0.25
    config.model.features = (12, 24, 48)
    config.model.dropout = 0.1
    config.model.norm_momentum = 0.9
    config.train.steps = 200
    config.train.learning_rate = 3e-3
    config.train.warmup_steps = 20
    config.train.validate_every = 100
    config.train.save_every = 100
    config.train.halving_steps = (100, 200)
    config.train.log_every = 25
    config.train.validation_slices = 48
    return config
