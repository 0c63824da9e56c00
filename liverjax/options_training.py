"""The options of the network, of its training and of the augmentation, with their defaults: a part of `options`."""

from __future__ import annotations

import dataclasses
import re

from liverjax.errors import require, require_choice


def _require_function(field: str, value: str) -> None:
    """Requires of the name of a user's function its form; whether there is such a file is asked where it is run."""
    ok = not value or re.fullmatch(r"[^\x00]+\.py:[A-Za-z_]\w*", value) is not None
    require(ok, field, value, "FILE.py:function, as in my.py:focal")


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
    #: A function of one's own, FILE.py:function, that changes each slice after all of these (docs/training.md).
    own: str = ""

    def __post_init__(self):
        _require_function("augment.own", self.own)
        for name, value in vars(self).items():
            if name == "own":
                continue
            if name in ("flip", "curve", "random_network"):
                require(0 <= value <= 1, f"augment.{name}", value, "a probability in [0, 1]")
            require(value >= 0, f"augment.{name}", value, "0 or more")


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
        require(ok, "model.features", self.features, "two to ten widths of 1 to 8192")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "a share in [0, 1)")
        require(0 < self.norm_momentum < 1, "model.norm_momentum", self.norm_momentum, "a share in (0, 1)")
        require_choice("model.norm", self.norm, ("batch", "group", "none"))
        require_choice("model.short_skips", self.short_skips, ("none", "identity", "projection"))
        require_choice("model.dtype", self.dtype, ("auto", "float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weights of the terms of the objective; 0 leaves a term out."""

    #: Soft Dice over the batch.
    dice: float = 1.0
    #: Mean cross-entropy over the pixels.
    cross_entropy: float = 1.0
    #: Pixels of a lesion of V mm3 weigh max(V, lesion_floor_mm3) ** -lesion_power in both terms, scaled so that the
    #: mean over all voxels of the training lesions is 1; 0 weighs all alike. Small lesions count more from 0 to 1: at 1
    #: all above the floor count the same, whatever their size.
    lesion_power: float = 0.0
    lesion_floor_mm3: float = 200.0
    #: A further term by a function of one's own, FILE.py:function (docs/training.md). It can be the only one.
    own: str = ""

    def __post_init__(self):
        _require_function("loss.own", self.own)
        weights = (self.dice, self.cross_entropy)
        ok = min(weights) >= 0 and (max(weights) > 0 or self.own != "")
        wanted = "weights of 0 or more, one of them above 0 unless there is a loss.own"
        require(ok, "loss.dice and loss.cross_entropy", weights, wanted)
        require(0 <= self.lesion_power <= 1, "loss.lesion_power", self.lesion_power, "0 to 1")
        require(self.lesion_floor_mm3 > 0, "loss.lesion_floor_mm3", self.lesion_floor_mm3, "above 0")


@dataclasses.dataclass(frozen=True)
class Train:
    """The optimiser, and when to evaluate, save and stop."""

    #: Steps of each view.
    steps: int = 20_000
    #: Learning rate at the end of the warm-up, the highest one.
    learning_rate: float = 1e-3
    #: "adam", "adamw" (with `weight_decay`), "muon" or "sgd" (with Nesterov's `momentum`).
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
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "1 or more")
        for name in ("warmup_steps", "clip_norm", "patience", "min_delta", "weight_decay"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        for name in ("momentum", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"train.{name}", getattr(self, name), "a share in [0, 1)")
        require_choice("train.optimizer", self.optimizer, ("adam", "adamw", "muon", "sgd"))
        require_choice("train.schedule", self.schedule, ("constant", "cosine", "poly"))
        require_choice("train.on_nonfinite", self.on_nonfinite, ("stop", "skip"))
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "above 0")
        ok = 0 <= self.cooldown_share <= 1
        require(ok, "train.cooldown_share", self.cooldown_share, "a share in [0, 1]")
        ok = list(self.halving_steps) == sorted({step for step in self.halving_steps if step > 0})
        require(ok, "train.halving_steps", self.halving_steps, "rising numbers of steps above 0")
        reached = [step for step in self.halving_steps if self.restarts > 1 and step < self.steps]
        ok = all(step % self.validate_every == 0 for step in reached)
        wanted = f"multiples of train.validate_every ({self.validate_every})"
        require(ok, "train.halving_steps", self.halving_steps, wanted)
