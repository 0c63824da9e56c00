"""CT liver at 2 mm, after Chlebus et al. (LiTS 2017): three 2D U-nets, soft Dice and cross-entropy, Adam.

    liverjax prepare -i LITS -o STORE --config=ct_liver
    liverjax train --config=ct_liver --store=STORE --workdir=RUN

Expected result: not measured; nobody has trained it to the end yet. Hardware: a GPU or TPU, since a step takes 43 CPU
seconds on two cores (docs/performance.md), and each view takes 20,000.

Argument "small": narrow networks at 3 mm that train on two CPU cores. Expected result: liver Dice 0.940, mean of two
held-out cases of LiTS, with five cases to train on. Hardware: two cores of a shared x86 machine. 0.4 hours for all
views:

    liverjax prepare  -i LITS -o STORE --config=ct_liver:small
    liverjax train    --config=ct_liver:small --store=STORE --workdir=RUN --max_minutes=24 \\
                      --config.split.test_cases=volume-11,volume-13 --config.split.validation=1
    liverjax predict  --model=RUN -i LITS -o MASKS --subset=test
    liverjax evaluate --predictions=MASKS --references=LITS -o SCORES --cases=volume-11,volume-13
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
