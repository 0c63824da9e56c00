"""Liver in CT and in MR of any sequence: one set of networks that saw both, and random contrasts.

    liverjax prepare -i DATASET -o STORE --config=any_liver
    liverjax train --config=any_liver --store=STORE --workdir=RUN

`DATASET` holds CT and MR side by side: each scan is told by its intensities, CT by its Hounsfield units. Expected
result: not measured; nobody has trained it to the end yet. Hardware: a GPU or TPU, as for `ct_liver`, whose network and
batch it has. Argument "small": narrow networks at 3 mm that train on two CPU cores.
"""

from liverjax.config import default_config, make_small
from liverjax.errors import ConfigError


def get_config(arg: str = ""):
    config = default_config()
    config.name = "any_liver"
    config.target.labels = ("background", "liver")
    config.preprocess.modality = "any"
    config.preprocess.spacing = (2.0, 2.0, 2.0)
    config.batch.patch = (192, 192)
    config.augment.bias_field = 0.4
    # Bright livers, as of T1 in the hepatobiliary phase, are brought towards the middle (docs/results.md).
    config.preprocess.gamma = 0.5
    # Contrasts that no scan in training has: what they do, and what they cost, is in docs/results.md.
    config.augment.curve = 0.5
    if arg == "small":
        make_small(config)
        config.batch.patch = (128, 128)
    elif arg:
        raise ConfigError(f"any_liver takes the argument 'small' or none, not {arg!r}")
    return config
