"""MR liver: the CT system with intensities scaled by each scan's own percentiles.

    liverjax prepare -i DATASET -o STORE --config=mr_liver
    liverjax train --config=mr_liver --store=STORE --workdir=RUN

Expected result: not measured; nobody has trained it to the end yet. Hardware: a GPU or TPU, as for `ct_liver`, whose
network and batch it has.

Argument "small": narrow networks at 3 mm that train on two CPU cores. Expected result: liver Dice 0.909 (95 % interval
0.882 to 0.921), mean of the 14 T2-SPIR scans of CHAOS, each held out once. Hardware: one core of a shared x86 machine a
fold. 0.4 to 0.6 hours a fold for all views; measured without the bias field, which is now on (docs/results.md):

    liverjax sweep --ablation=views --config=mr_liver:small --dataset=CHAOS_MR --workdir=SWEEP --folds=0,1,2,3,4 \\
                   --jobs=2 --config.train.steps=500 --config.augment.bias_field=0
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
    # Coils receive less from what lies far from them: without changes of brightness in training, a liver whose lower
    # half is dim is missed altogether; with a bias field more of it is found (docs/results.md).
    config.augment.bias_field = 0.4
    # Bright livers, as of T1 in the hepatobiliary phase, are brought towards the middle (docs/results.md).
    config.preprocess.gamma = 0.5
    if arg == "small":
        make_small(config)
        config.batch.patch = (112, 112)
    elif arg:
        raise ConfigError(f"mr_liver takes the argument 'small' or none, not {arg!r}")
    return config
