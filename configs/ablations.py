"""Ablations by name: what is varied; all else is the config's.

    liverjax sweep --ablation=norm --config=mr_liver:small --dataset=DATASET --workdir=WORKDIR

Each function takes the config that is varied, a `liverjax.Config`, and yields variants: a name, and overrides as they
are typed after `--config.`. The first variant is the baseline. A file of your own is used by `--ablation=FILE.py:NAME`.
"""


def short_skips(config):
    """Residual connections of the blocks."""
    for kind in ("identity", "projection", "none"):
        yield kind, (f"model.short_skips={kind}",)


def norm(config):
    """Batch norm, group norm, none."""
    for kind in ("batch", "group", "none"):
        yield kind, (f"model.norm={kind}",)


def dropout(config):
    """Spatial dropout of the decoder."""
    yield from _vary("model.dropout", config.model.dropout, (0.0, 0.1, 0.2, 0.35, 0.5))


def depth(config):
    """Levels of the network; each further one has twice the channels and twice the receptive field."""
    features = config.model.features
    yield _levels(features)
    yield _levels(features[:-1])
    yield _levels((*features, 2 * features[-1]))


def width(config):
    """Channels of all levels."""
    features = config.model.features
    for factor in (1, 0.5, 2):
        widths = ",".join(str(max(1, round(factor * width))) for width in features)
        yield f"x {factor}", (f"model.features={widths}",)


def views(config):
    """Three views against their majority vote and against each alone; the networks are the same."""
    yield "mean of three", ("views=axial,coronal,sagittal", "predict.fusion=mean")
    yield "majority of three", ("views=axial,coronal,sagittal", "predict.fusion=majority")
    for view in ("axial", "coronal", "sagittal"):
        yield f"{view} alone", (f"views={view}",)


def shared_network(config):
    """A network for each view, and one for the slices of all: with as many steps as each, and as all together."""
    steps = config.train.steps
    yield "one per view", ("model.shared=false",)
    yield "shared", ("model.shared=true",)
    yield (
        f"shared, {len(config.views)} x steps",
        ("model.shared=true", f"train.steps={len(config.views) * steps}"),
    )


def restarts(config):
    """One training of each view; of four, the best by validation; of four, all that are kept, fused."""
    yield "one", ("train.restarts=1",)
    yield "best of 4", ("train.restarts=4", "predict.ensemble=best")
    yield "all kept of 4", ("train.restarts=4", "predict.ensemble=all")


def decision(config):
    """How probabilities become labels: liver with its tumours first, or the largest class; nothing is trained."""
    yield from _vary("predict.decision", config.predict.decision, ("nested", "argmax"))


def fusion(config):
    """Mean of the views' probabilities, majority of their labels."""
    for rule in ("mean", "majority"):
        yield rule, (f"predict.fusion={rule}",)


def postprocessing(config):
    """What follows the fusion, each step left out."""
    yield "all", ("predict.largest_component=true", "predict.fill_holes=true")
    yield "all components", ("predict.largest_component=false", "predict.fill_holes=true")
    yield "no filling", ("predict.largest_component=true", "predict.fill_holes=false")
    yield "none", ("predict.largest_component=false", "predict.fill_holes=false")


def loss(config):
    """Soft Dice and cross-entropy by weight."""
    for dice, cross_entropy in ((1, 1), (1, 0), (0, 1), (1, 0.3), (1, 3)):
        name = f"Dice x {dice} + cross-entropy x {cross_entropy}"
        yield name, (f"loss.dice={dice}", f"loss.cross_entropy={cross_entropy}")


def augmentation(config):
    """Groups of augmentations, each left out, and none at all."""
    place = ("rotation", "scale", "shift", "flip", "elastic")
    brightness = ("contrast", "brightness", "gamma", "bias_field")
    sharpness = ("noise", "blur", "low_resolution")
    yield "all of the config", ()
    yield "no change of place", _without(place)
    yield "no change of brightness", _without(brightness)
    yield "no noise and blur", _without(sharpness)
    yield "none", _without(place + brightness + sharpness)
    yield "also elastic", ("augment.elastic=8",)
    if config.augment.bias_field:
        yield "no bias field", _without(("bias_field",))
    else:
        yield "also bias field", ("augment.bias_field=0.4",)
    strong = {"contrast": 0.4, "brightness": 0.3, "gamma": 0.7, "bias_field": 0.6}
    yield "strong brightness", tuple(f"augment.{name}={value}" for name, value in strong.items())


def contrast(config):
    """Random contrasts, for sequences that no scan in training has."""
    off = ("augment.curve=0", "augment.random_network=0")
    yield "none", off
    yield "curve", ("augment.curve=0.5", off[1])
    yield "network", (off[0], "augment.random_network=0.5")
    yield "curve and network", ("augment.curve=0.5", "augment.random_network=0.5")


def training_size(config):
    """Share of the training patients; a smaller share lies within a larger."""
    yield from _vary("split.train_share", config.split.train_share, (1.0, 0.75, 0.5, 0.25))


def spacing(config):
    """Voxels of the working grid, with a patch of the same size in mm."""
    baseline = config.preprocess.spacing
    yield "config", ()
    for factor in (0.75, 1.5):
        size = ",".join(f"{factor * mm:g}" for mm in baseline)
        # Patches are whole multiples of 16 pixels, as networks of up to five levels need.
        patch = ",".join(str(16 * max(1, round(pixels / factor / 16))) for pixels in config.batch.patch)
        yield f"x {factor}", (f"preprocess.spacing={size}", f"batch.patch={patch}")


def intensity_window(config):
    """CT: the HU range; MR: the percentiles that take its place, and the power within them."""
    yield "config", ()
    if config.preprocess.modality == "ct":
        for low, high in ((-100, 200), (-200, 300), (-50, 150)):
            yield f"{low} to {high} HU", (f"preprocess.window={low},{high}",)
    else:
        for low, high in ((0, 100), (1, 99), (5, 95)):
            yield f"percentiles {low} and {high}", (f"preprocess.percentiles={low},{high}",)
        for gamma in (0.35, 0.5, 0.7, 1.0):
            if gamma != config.preprocess.gamma:
                yield f"gamma {gamma}", (f"preprocess.gamma={gamma}",)


def sampling(config):
    """Shares of the slices drawn from those with liver, and with tumour if the network segments it."""
    yield "config", ()
    for share in (0.0, 0.25, 0.75):
        yield f"liver {share}", (f"batch.liver_share={share}", "batch.tumor_share=0")
    if "tumor" in config.labels:
        for share in (0.25, 0.5):
            yield f"tumour {share}", (f"batch.tumor_share={share}", "batch.liver_share=0.25")


def _vary(field, baseline, values):
    """Yields the config's own value of a field first, then the other values."""
    for value in (baseline, *(value for value in values if value != baseline)):
        yield str(value), (f"{field}={value}",)


def _levels(features):
    return f"{len(features)} levels", (f"model.features={','.join(map(str, features))}",)


def _without(names):
    return tuple(f"augment.{name}=0" for name in names)
