"""Every number that can be changed, with its default: the one source of defaults.

A config file (``configs/``) states the differences from these; `liverjax.config` turns one into the other.
"""

from __future__ import annotations

import dataclasses
import math

from liverjax.errors import ConfigError, did_you_mean, shown
from liverjax.labels import DECISIONS, NAMES
from liverjax.views import SHARED, VIEWS


def _choose(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{field} is {shown(value)}{did_you_mean(value, choices)}")


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{field} is {shown(value)}, expected {expected}")


def _require_numbers(options: object, path: str = "") -> None:
    """Requires of all fields of nested dataclasses that their numbers are finite and whole ones fit the device's."""
    for name, value in vars(options).items():
        if dataclasses.is_dataclass(value):
            _require_numbers(value, f"{path}{name}.")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, float):
                _require(math.isfinite(item), path + name, value, "finite numbers")
            elif isinstance(item, int) and path + name != "seed":
                _require(abs(item) < 2**31, path + name, value, "at most 2**31 - 1")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is learnt, and where."""

    #: Classes of the network, in order; without "tumor", tumours count as liver; without "liver", it is background.
    labels: tuple[str, ...] = ("background", "liver")
    #: Where: in the whole "scan", or in the box around the liver of the "reference", or "predicted", with a margin.
    region: str = "scan"
    margin_mm: float = 20.0
    #: In a box, only what lies within the liver, dilated by this many mm, is learnt and validated; at most `margin_mm`.
    dilation_mm: float = 5.0

    def __post_init__(self):
        known = (NAMES[:2], NAMES, (NAMES[0], NAMES[2]))
        _require(self.labels in known, "target.labels", self.labels, " or ".join(map(str, known)))
        _choose("target.region", self.region, ("scan", "reference", "predicted"))
        _require(self.margin_mm >= 0, "target.margin_mm", self.margin_mm, "0 or more")
        _require(0 <= self.dilation_mm <= 254, "target.dilation_mm", self.dilation_mm, "0 to 254")
        ok = "liver" in self.labels or self.region != "scan"
        _require(ok, "target.region", self.region, "reference or predicted, as target.labels have no liver")


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """How a scan becomes the network's input; the same for training and prediction."""

    #: "ct" or "mr": whether intensities are HU, or without a unit; "any": told of each scan by its intensities.
    modality: str = "ct"
    #: Voxel size in mm of the working grid, along right, anterior, superior.
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    #: CT: the HU range that is scaled to [-1, 1]; values outside are clipped.
    window: tuple[float, float] = (-160.0, 240.0)
    #: MR: the percentiles of the body's voxels in each scan that take the place of the window.
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self):
        _choose("preprocess.modality", self.modality, ("ct", "mr", "any"))
        ok = len(self.spacing) == 3 and all(0.2 <= size <= 20 for size in self.spacing)
        _require(ok, "preprocess.spacing", self.spacing, "three sizes of 0.2 to 20 mm")
        ok = len(self.window) == 2 and self.window[0] < self.window[1]
        _require(ok, "preprocess.window", self.window, "two rising HU values")
        ok = len(self.percentiles) == 2 and 0 <= self.percentiles[0] < self.percentiles[1] <= 100
        _require(ok, "preprocess.percentiles", self.percentiles, "two rising values in [0, 100]")


@dataclasses.dataclass(frozen=True)
class Split:
    """Which cases train, which choose the checkpoint, which are held out. All scans of a patient stay together."""

    #: The test cases are those whose rank modulo `folds` is `fold`; fold -1 holds none out.
    folds: int = 5
    fold: int = 0
    #: Cases held out whatever their rank; if any are named, `folds` and `fold` are not used.
    test_cases: tuple[str, ...] = ()
    #: Number of the remaining patients that choose the best checkpoint.
    validation: int = 2
    #: Share of the remaining patients that trains, drawn by the seed; a smaller share is a subset of a larger one.
    train_share: float = 1.0

    def __post_init__(self):
        _require(self.folds >= 2, "split.folds", self.folds, "2 or more")
        _require(-1 <= self.fold < self.folds, "split.fold", self.fold, f"-1 to {self.folds - 1}")
        _require(self.validation >= 1, "split.validation", self.validation, "1 or more")
        _require(0 < self.train_share <= 1, "split.train_share", self.train_share, "a share in (0, 1]")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which slices make a batch."""

    #: Slices in the global batch, over all devices and hosts.
    size: int = 16
    #: Rows and columns of the patch; slices are padded with air or cropped to it.
    patch: tuple[int, int] = (192, 192)
    #: Shares of the slices that are drawn from those with tumour, with liver, and without either; the others are drawn
    #: from all slices.
    tumor_share: float = 0.0
    liver_share: float = 0.5
    empty_share: float = 0.0
    #: Threads that read slices ahead, or processes if `workers` is above 0.
    threads: int = 4
    workers: int = 0
    #: Batches read ahead.
    prefetch: int = 4

    def __post_init__(self):
        # More is a slip, or a file from a stranger that is to take memory.
        for name, most in (("size", 65536), ("threads", 1024), ("prefetch", 1024)):
            _require(1 <= getattr(self, name) <= most, f"batch.{name}", getattr(self, name), f"1 to {most}")
        _require(0 <= self.workers <= 1024, "batch.workers", self.workers, "0 to 1024")
        ok = len(self.patch) == 2 and all(8 <= size <= 8192 for size in self.patch)
        _require(ok, "batch.patch", self.patch, "rows and columns of 8 to 8192 pixels")
        shares = (self.tumor_share, self.liver_share, self.empty_share)
        ok = min(shares) >= 0 and sum(shares) <= 1
        names = "batch.tumor_share, batch.liver_share and batch.empty_share"
        _require(ok, names, shares, "shares of 0 or more, together at most 1")


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes of the training slices, each drawn for each slice, uniformly within its range; 0 is off."""

    #: Largest rotation in degrees, either way.
    rotation: float = 15.0
    #: Largest relative change of size, either way.
    scale: float = 0.2
    #: Largest shift in pixels, either way, along rows and columns.
    shift: float = 10.0
    #: Largest relative change of contrast about the middle of the window, either way.
    contrast: float = 0.15
    #: Largest brightness offset, in units of the normalised intensity (the window is 2 wide).
    brightness: float = 0.15
    #: Largest |log2| of the exponent that the intensity, scaled to [0, 1], is raised to.
    gamma: float = 0.3
    #: Largest standard deviation of added white noise, in units of the normalised intensity.
    noise: float = 0.05
    #: Probability of mirroring rows, and likewise columns. A mirrored patient has the liver on the wrong side.
    flip: float = 0.0
    #: Largest displacement in pixels, either way, of the control points of a smooth deformation.
    elastic: float = 0.0
    #: Largest standard deviation of a Gaussian blur, in pixels.
    blur: float = 0.0
    #: Largest log2 of the factor by which the slice is sampled coarser, and back to its own pixels.
    low_resolution: float = 0.0
    #: Largest |ln| of the smooth factor that multiplies the intensity, scaled to [0, 1]: the bias field of MR.
    bias_field: float = 0.0
    #: Probability that the intensities pass through a random smooth curve, which may fall: another contrast.
    curve: float = 0.0
    #: Probability that they pass through a random shallow network, mixed with the slice by a random share.
    random_network: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if name in ("flip", "curve", "random_network"):
                _require(0 <= value <= 1, f"augment.{name}", value, "a probability in [0, 1]")
            _require(value >= 0, f"augment.{name}", value, "0 or more")


@dataclasses.dataclass(frozen=True)
class Model:
    """The U-net. Its classes are `target.labels`."""

    #: Channels of each level, from full resolution down; one more level is one more 2x2 pooling.
    features: tuple[int, ...] = (64, 128, 256, 512)
    #: Share of feature maps that are dropped before each 3x3 convolution of the decoder.
    dropout: float = 0.5
    #: Normalisation behind each convolution: batch, group, none.
    norm: str = "batch"
    #: Share of the running statistics of a batch norm that survives one step.
    norm_momentum: float = 0.99
    #: Residual connections of each block: none, identity (no parameters), projection (1x1 in the encoder).
    short_skips: str = "identity"
    #: One network for the slices of all views, instead of one for each view.
    shared: bool = False
    #: Type of activations; "auto" is bfloat16 on accelerators and float32 on CPUs.
    dtype: str = "auto"

    def __post_init__(self):
        ok = 2 <= len(self.features) <= 10 and all(1 <= width <= 8192 for width in self.features)
        _require(ok, "model.features", self.features, "two to ten widths of 1 to 8192")
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "a share in [0, 1)")
        _require(0 < self.norm_momentum < 1, "model.norm_momentum", self.norm_momentum, "a share in (0, 1)")
        _choose("model.norm", self.norm, ("batch", "group", "none"))
        _choose("model.short_skips", self.short_skips, ("none", "identity", "projection"))
        _choose("model.dtype", self.dtype, ("auto", "float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weights of the terms of the objective; 0 leaves a term out."""

    #: Soft Dice over the batch.
    dice: float = 1.0
    #: Mean cross-entropy over the pixels.
    cross_entropy: float = 1.0

    def __post_init__(self):
        weights = (self.dice, self.cross_entropy)
        ok = min(weights) >= 0 and max(weights) > 0
        _require(ok, "loss.dice and loss.cross_entropy", weights, "weights of 0 or more, one of them above 0")


@dataclasses.dataclass(frozen=True)
class Train:
    """The optimiser, and when to evaluate, save and stop."""

    #: Steps of each view.
    steps: int = 20_000
    #: Learning rate at the end of the warm-up, the highest one.
    learning_rate: float = 1e-3
    #: "adam", "adamw" (with `weight_decay`) or "sgd" (with Nesterov's `momentum`).
    optimizer: str = "adam"
    #: Decoupled decay of kernels, not of biases and norms, per step and unit of the rate; read by "adamw".
    weight_decay: float = 0.01
    #: Read by "sgd".
    momentum: float = 0.99
    #: The rate after the warm-up: "constant" with a linear cool-down, "cosine", or "poly" of power 0.9.
    schedule: str = "constant"
    #: Steps over which the rate rises from 0, and the share of all steps over which a constant one
    #: falls to 0 at the end.
    warmup_steps: int = 100
    cooldown_share: float = 0.3
    #: Global norm to which the gradient is clipped; 0 is off.
    clip_norm: float = 1.0
    #: Micro-batches into which the batch is divided, one after the other, to save memory. Dice and batch norm are
    #: then those of a micro-batch: another objective than that of the whole batch.
    accumulate: int = 1
    #: Decay of the moving average of parameters and norm statistics per step; 0 is off. If it is on, validation and
    #: the best checkpoint use the average.
    ema_decay: float = 0.0
    #: Shard the optimiser's state over the devices, instead of a copy on each: less memory, more traffic.
    shard_optimizer: bool = False
    #: If a loss or gradient is not finite: "stop", or "skip" the step, counted in the log.
    on_nonfinite: str = "stop"
    #: Steps between two evaluations of the validation slices, two checkpoints, and two lines of the log.
    validate_every: int = 1000
    save_every: int = 1000
    log_every: int = 50
    #: Slices of the validation cases that are evaluated, spread evenly over those with and without liver.
    validation_slices: int = 256
    #: Stop if the validation Dice has not risen by `min_delta` in this many evaluations; 0 trains to the end.
    patience: int = 0
    min_delta: float = 1e-3
    #: Networks of each view from different random numbers (16 in Haensch 2022). After each number of steps in
    #: `halving_steps`, multiples of `validate_every`, the better half by validation Dice continues;
    #: numbers above `steps` are not used. All that are left predict together, or the best alone (`predict.ensemble`).
    restarts: int = 1
    halving_steps: tuple[int, ...] = (5_000, 10_000, 20_000, 40_000)

    def __post_init__(self):
        counts = ("restarts", "steps", "validate_every", "save_every", "log_every", "validation_slices")
        for name in (*counts, "accumulate"):
            _require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "1 or more")
        for name in ("warmup_steps", "clip_norm", "patience", "min_delta", "weight_decay"):
            _require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        for name in ("momentum", "ema_decay"):
            _require(0 <= getattr(self, name) < 1, f"train.{name}", getattr(self, name), "a share in [0, 1)")
        _choose("train.optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        _choose("train.schedule", self.schedule, ("constant", "cosine", "poly"))
        _choose("train.on_nonfinite", self.on_nonfinite, ("stop", "skip"))
        _require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "above 0")
        ok = 0 <= self.cooldown_share <= 1
        _require(ok, "train.cooldown_share", self.cooldown_share, "a share in [0, 1]")
        ok = list(self.halving_steps) == sorted({step for step in self.halving_steps if step > 0})
        _require(ok, "train.halving_steps", self.halving_steps, "rising numbers of steps above 0")
        reached = [step for step in self.halving_steps if self.restarts > 1 and step < self.steps]
        ok = all(step % self.validate_every == 0 for step in reached)
        wanted = f"multiples of train.validate_every ({self.validate_every})"
        _require(ok, "train.halving_steps", self.halving_steps, wanted)


@dataclasses.dataclass(frozen=True)
class Predict:
    """How the answers of the views' networks become one mask."""

    #: Slices that a network sees at once; divides `bucket`, so that whole batches cover a padded volume.
    batch_size: int = 8
    #: Shapes of the working grid are padded up to multiples of this, so that few programs are compiled.
    bucket: int = 16
    #: What the views' softmax maps become: their mean, their mean weighted by view and class (the weights are
    #: fitted by `liverjax calibrate`), or the majority of their labels.
    fusion: str = "mean"
    #: How probabilities become labels (`liverjax.labels.decide`): "nested", liver with its tumours against background
    #: first, then tumour against liver; or "argmax" over the classes.
    decision: str = "nested"
    #: Each network also sees the slices mirrored along rows, columns and both, which takes four times as long; only
    #: for networks that were trained with `augment.flip`.
    flips: bool = False
    #: Where the maps are summed: on the device, on the host, or on the host if the device is too small.
    accumulator: str = "auto"
    #: Of several restarts (`train.restarts`): "all" networks that were kept are fused, or the "best" of each view.
    ensemble: str = "all"
    #: Keep only the largest connected component of the liver (with its tumours).
    largest_component: bool = True
    #: Background that is wholly enclosed becomes what encloses it.
    fill_holes: bool = True
    #: Tumours that touch no liver become background.
    tumor_within_liver: bool = True
    #: Connected pieces smaller than this become background (liver) or liver (tumour); 0 keeps all.
    min_liver_mm3: float = 0.0
    min_tumor_mm3: float = 0.0

    def __post_init__(self):
        _require(self.batch_size >= 1, "predict.batch_size", self.batch_size, "1 or more")
        # In one of 512 a scan of one voxel would take 2 GiB.
        _require(8 <= self.bucket <= 256, "predict.bucket", self.bucket, "8 to 256")
        ok = self.bucket % self.batch_size == 0
        _require(ok, "predict.batch_size", self.batch_size, f"a divisor of predict.bucket ({self.bucket})")
        _choose("predict.fusion", self.fusion, ("mean", "weighted", "majority"))
        _choose("predict.decision", self.decision, DECISIONS)
        _choose("predict.accumulator", self.accumulator, ("auto", "device", "host"))
        _choose("predict.ensemble", self.ensemble, ("all", "best"))
        for name in ("min_liver_mm3", "min_tumor_mm3"):
            _require(getattr(self, name) >= 0, f"predict.{name}", getattr(self, name), "0 or more")


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole system."""

    #: What the system is called in its files.
    name: str = "liverjax"
    #: Views whose networks are trained, and fused in prediction.
    views: tuple[str, ...] = VIEWS
    #: Of all random numbers: weights, batches, augmentation, dropout, and which patients `split.train_share` takes.
    seed: int = 0
    #: Folder that `liverjax prepare` wrote.
    store: str = ""
    #: Wall-clock minutes of training, over all views; 0 is no limit. The rate then cools down in time.
    max_minutes: float = 0.0
    target: Target = Target()
    preprocess: Preprocess = Preprocess()
    split: Split = Split()
    batch: Batch = Batch()
    augment: Augment = Augment()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()
    predict: Predict = Predict()

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the networks, in order: `target.labels`."""
        return self.target.labels

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that are trained: those of the views, or `liverjax.views.SHARED`."""
        return (SHARED,) if self.model.shared else self.views

    def views_of(self, network: str) -> tuple[str, ...]:
        """Returns the views whose slices a network sees."""
        return self.views if network == SHARED else (network,)

    def __post_init__(self):
        _require_numbers(self)
        for view in self.views:
            _choose("views", view, VIEWS)
        ok = 0 < len(self.views) == len(set(self.views))
        _require(ok, "views", self.views, "one or more views, each once")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        _require(self.max_minutes >= 0, "max_minutes", self.max_minutes, "0 or more")
        ok = not (self.max_minutes and self.train.restarts > 1)
        wanted = (
            f"0 with train.restarts {self.train.restarts}: restarts are compared after equal numbers of steps"
        )
        _require(ok, "max_minutes", self.max_minutes, wanted)
        ok = self.augment.flip > 0 or not self.predict.flips
        wanted = "false for networks that were trained without mirrored slices (augment.flip is 0)"
        _require(ok, "predict.flips", self.predict.flips, wanted)
        levels, (rows, columns) = len(self.model.features), self.batch.patch
        multiple = 2 ** (levels - 1)
        ok = rows % multiple == 0 and columns % multiple == 0
        _require(ok, "batch.patch", self.batch.patch, f"multiples of {multiple} for {levels} levels")
        bucket = self.predict.bucket
        _require(bucket % multiple == 0, "predict.bucket", bucket, f"a multiple of {multiple}")


#: Fields that may differ between a run and its resumption: none of them changes what a step of training computes.
#: (`predict.decision` does not count: the validation that chooses the best checkpoint decides as prediction does.)
FIELDS_FREE_ON_RESUME = (
    "store", "max_minutes", "views", "batch.threads", "batch.workers", "batch.prefetch", "predict"
)  # fmt: skip
