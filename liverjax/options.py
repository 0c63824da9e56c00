"""Every number that can be changed, with its default: the one source of defaults.

A config file (``configs/``) states the differences from these; `liverjax.config` turns one into the other. The groups
that training alone reads, and the network's, are in `liverjax.options_training`.
"""

from __future__ import annotations

import dataclasses
import math

from liverjax.errors import require, require_choice
from liverjax.labels import BACKGROUND, DECISIONS, NAMES, TUMOR
from liverjax.options_training import Augment, Loss, Model, Train
from liverjax.views import SHARED, VIEWS


def _require_numbers(options: object, path: str = "") -> None:
    """Requires of all fields of nested dataclasses that their numbers are finite and whole ones fit the device's."""
    for name, value in vars(options).items():
        if dataclasses.is_dataclass(value):
            _require_numbers(value, f"{path}{name}.")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, float):
                require(math.isfinite(item), path + name, value, "finite numbers")
            elif isinstance(item, int) and path + name != "seed":
                require(abs(item) < 2**31, path + name, value, "at most 2**31 - 1")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is learnt, and where."""

    #: Classes of the network, in order; without "tumor", tumours of the masks count as liver; without "liver", the
    #: liver is background, and tumours are sought in a box around a liver that is known.
    labels: tuple[str, ...] = ("background", "liver")
    #: Where: in the whole "scan", or in the box around the liver (its tumours included) with a margin in mm. Training
    #: takes that liver from the "reference" masks, or from masks that a model "predicted" (`prepare --livers`).
    region: str = "scan"
    margin_mm: float = 20.0
    #: In a box, only the liver, dilated by this many whole mm, is learnt and validated; at most `margin_mm`.
    dilation_mm: float = 5.0
    #: In a box, copies of each scan without tumours in which `prepare` places synthetic ones, for training alone; their
    #: smallest and largest diameter; and the seed.
    synthetic: int = 0
    synthetic_mm: tuple[float, float] = (5.0, 15.0)
    synthetic_seed: int = 0

    def __post_init__(self):
        known = (NAMES[:2], NAMES, (NAMES[BACKGROUND], NAMES[TUMOR]))
        require(self.labels in known, "target.labels", self.labels, " or ".join(map(str, known)))
        require_choice("target.region", self.region, ("scan", "reference", "predicted"))
        require(self.margin_mm >= 0, "target.margin_mm", self.margin_mm, "0 or more")
        # The store keeps distances of up to 254 mm, each rounded up to a whole one.
        whole = 0 <= self.dilation_mm <= 254 and self.dilation_mm == int(self.dilation_mm)
        wanted = f"a whole number of mm, 0 to 254, and at most target.margin_mm ({self.margin_mm:g})"
        ok = whole and (self.region == "scan" or self.dilation_mm <= self.margin_mm)
        require(ok, "target.dilation_mm", self.dilation_mm, wanted)
        wanted = "0 to 100, and 0 in the whole scan (target.region)"
        ok = 0 <= self.synthetic <= (0 if self.region == "scan" else 100)
        require(ok, "target.synthetic", self.synthetic, wanted)
        ok = len(self.synthetic_mm) == 2 and 1 <= self.synthetic_mm[0] <= self.synthetic_mm[1] <= 100
        require(ok, "target.synthetic_mm", self.synthetic_mm, "two rising diameters of 1 to 100 mm")
        require(self.synthetic_seed >= 0, "target.synthetic_seed", self.synthetic_seed, "0 or more")
        ok = "liver" in self.labels or self.region != "scan"
        wanted = f"reference or predicted with target.labels {self.labels}, which have no class for the liver"
        require(ok, "target.region", self.region, wanted)


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
    #: MR: what lies within the window, from 0 to 1, is raised to this power; below 1, dark tissue is spread and bright
    #: tissue brought closer together.
    gamma: float = 1.0

    def __post_init__(self):
        require_choice("preprocess.modality", self.modality, ("ct", "mr", "any"))
        ok = len(self.spacing) == 3 and all(0.2 <= size <= 20 for size in self.spacing)
        require(ok, "preprocess.spacing", self.spacing, "three sizes of 0.2 to 20 mm")
        ok = len(self.window) == 2 and self.window[0] < self.window[1]
        require(ok, "preprocess.window", self.window, "two rising HU values")
        ok = len(self.percentiles) == 2 and 0 <= self.percentiles[0] < self.percentiles[1] <= 100
        require(ok, "preprocess.percentiles", self.percentiles, "two rising values in [0, 100]")
        require(0.1 <= self.gamma <= 10, "preprocess.gamma", self.gamma, "0.1 to 10")


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
        require(self.folds >= 2, "split.folds", self.folds, "2 or more")
        require(-1 <= self.fold < self.folds, "split.fold", self.fold, f"-1 to {self.folds - 1}")
        require(self.validation >= 1, "split.validation", self.validation, "1 or more")
        require(0 < self.train_share <= 1, "split.train_share", self.train_share, "a share in (0, 1]")


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
    #: Share of the slices that is drawn from those, of scans in boxes, in which the network saw tumours at the last
    #: validation and there are none, the more often the larger these were; until then from those with liver.
    mined_share: float = 0.0
    #: Each batch has these shares, rounded to whole slices, instead of having them on average; and the patch of a slice
    #: that was drawn from those with tumour holds some of it.
    stratified: bool = False
    #: Threads that read slices ahead, or processes if `workers` is above 0.
    threads: int = 4
    workers: int = 0
    #: Batches read ahead.
    prefetch: int = 4

    def __post_init__(self):
        # More is a slip, or a file from a stranger that is to take memory.
        for name, most in (("size", 65536), ("threads", 1024), ("prefetch", 1024)):
            require(1 <= getattr(self, name) <= most, f"batch.{name}", getattr(self, name), f"1 to {most}")
        require(0 <= self.workers <= 1024, "batch.workers", self.workers, "0 to 1024")
        ok = len(self.patch) == 2 and all(8 <= size <= 8192 for size in self.patch)
        require(ok, "batch.patch", self.patch, "rows and columns of 8 to 8192 pixels")
        shares = (self.tumor_share, self.liver_share, self.empty_share, self.mined_share)
        ok = min(shares) >= 0 and sum(shares) <= 1
        names = "batch.tumor_share, batch.liver_share, batch.empty_share and batch.mined_share"
        require(ok, names, shares, "shares of 0 or more, together at most 1")


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
        require(self.batch_size >= 1, "predict.batch_size", self.batch_size, "1 or more")
        # In one of 512 a scan of one voxel would take 2 GiB.
        require(8 <= self.bucket <= 256, "predict.bucket", self.bucket, "8 to 256")
        ok = self.bucket % self.batch_size == 0
        require(ok, "predict.batch_size", self.batch_size, f"a divisor of predict.bucket ({self.bucket})")
        require_choice("predict.fusion", self.fusion, ("mean", "weighted", "majority"))
        require_choice("predict.decision", self.decision, DECISIONS)
        require_choice("predict.accumulator", self.accumulator, ("auto", "device", "host"))
        require_choice("predict.ensemble", self.ensemble, ("all", "best"))
        for name in ("min_liver_mm3", "min_tumor_mm3"):
            require(getattr(self, name) >= 0, f"predict.{name}", getattr(self, name), "0 or more")


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
    augment: Augment = dataclasses.field(default_factory=Augment)
    model: Model = dataclasses.field(default_factory=Model)
    loss: Loss = dataclasses.field(default_factory=Loss)
    train: Train = dataclasses.field(default_factory=Train)
    predict: Predict = Predict()

    def summary(self) -> str:
        """Returns in a few words what is found, in what, on which grid."""
        found = " and ".join(name for name in self.labels if name != NAMES[BACKGROUND])
        where = "" if self.target.region == "scan" else " around a liver"
        kind = {"any": "CT and MR"}.get(self.preprocess.modality, self.preprocess.modality.upper())
        spacing = " x ".join(f"{size:g}" for size in self.preprocess.spacing)
        return f"{self.name}: {found}{where} in {kind} at {spacing} mm"

    def __repr__(self) -> str:
        widths = "-".join(map(str, self.model.features))
        steps = f"{self.train.steps} steps of {self.batch.size} slices"
        return f"Config({self.summary()}; {', '.join(self.views)}; channels {widths}; {steps})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the networks, in order: `target.labels`."""
        return self.target.labels

    @property
    def finds_lesions(self) -> bool:
        """Whether the networks are to find tumours in a box around the liver: validation then counts lesions."""
        return "tumor" in self.labels and self.target.region != "scan"

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
            require_choice("views", view, VIEWS)
        ok = 0 < len(self.views) == len(set(self.views))
        require(ok, "views", self.views, "one or more views, each once")
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        wanted = "0 without a class for tumours in a box around the liver (target.labels, target.region)"
        for name, value in (
            ("loss.lesion_power", self.loss.lesion_power),
            ("batch.mined_share", self.batch.mined_share),
        ):
            require(self.finds_lesions or not value, name, value, wanted)
        require(self.max_minutes >= 0, "max_minutes", self.max_minutes, "0 or more")
        ok = not (self.max_minutes and self.train.restarts > 1)
        wanted = (
            f"0 with train.restarts {self.train.restarts}: restarts are compared after equal numbers of steps"
        )
        require(ok, "max_minutes", self.max_minutes, wanted)
        ok = self.augment.flip > 0 or not self.predict.flips
        wanted = "false for networks that were trained without mirrored slices (augment.flip is 0)"
        require(ok, "predict.flips", self.predict.flips, wanted)
        levels, (rows, columns) = len(self.model.features), self.batch.patch
        multiple = 2 ** (levels - 1)
        ok = rows % multiple == 0 and columns % multiple == 0
        require(ok, "batch.patch", self.batch.patch, f"multiples of {multiple} for {levels} levels")
        bucket = self.predict.bucket
        require(bucket % multiple == 0, "predict.bucket", bucket, f"a multiple of {multiple}")


#: Fields that may differ between a run and its resumption: none of them changes what a step of training computes.
#: (`predict.decision` does not count: the validation that chooses the best checkpoint decides as prediction does.)
FIELDS_FREE_ON_RESUME = (
    "store",
    "max_minutes",
    "views",
    "batch.threads",
    "batch.workers",
    "batch.prefetch",
    "predict",
)
