"""The sides of the pipeline benchmark: one process each, started by `test_training.py`.

  python pipeline_sides.py SIDE FOLDER

Each reads the axial slices of FOLDER/store and changes them at random, on one thread, prints slices per CPU second as
JSON, and leaves in FOLDER/SIDE.npz what fixed changes make of each case's middle slice.
"""

import json
import os
import pathlib
import statistics
import sys
import time

import numpy as np

BATCH = 8
#: Batches of a pass over the pipeline, and passes of which the median counts.
BATCHES, PASSES = 24, 5
#: Cases that the figures are of, and those that get the process going.
MEASURED, OTHERS = slice(0, 8), slice(8, 10)
WINDOW = (-160.0, 240.0)
#: The ranges of `liverjax.options.Augment`, which all sides draw from uniformly, per slice, always.
ROTATION, SCALE, SHIFT, CONTRAST, BRIGHTNESS, GAMMA, NOISE = 15.0, 0.2, 10.0, 0.15, 0.15, 0.3, 0.05


def _race(one_pass, folder) -> dict:
    """Returns slices per CPU second: of a pass with no page in memory, then (all of them there) the median of more.

    A pass over other cases comes before, so that cold means the store's pages and not the process.
    """

    def rate() -> float:
        start = time.process_time()
        slices = one_pass(MEASURED)
        return slices / (time.process_time() - start)

    one_pass(OTHERS)
    cold = rate()
    for path in _files(folder):
        path.read_bytes()
    return {"cold": cold, "warm": statistics.median(rate() for _ in range(PASSES))}


def _files(folder):
    return sorted(folder.glob("store/cases/*/axial*.npy"))


def liverjax_side(folder):
    import jax
    import jax.numpy as jnp

    from liverjax.data import augment
    from liverjax.data.pipeline import blank_batch, place_slice, train_batches
    from liverjax.data.store import open_store
    from liverjax.options import Augment, Batch, Config, Preprocess, Target

    cases = open_store(folder / "store", Preprocess(spacing=(1.0, 1.0, 3.0)), Target()).cases
    patch = cases[0].shapes["axial"][1:]
    batch = Batch(size=BATCH, patch=patch, liver_share=0.0, threads=1)
    config = Config(target=Target(labels=("background", "liver", "tumor")), batch=batch)
    assert config.augment == Augment(ROTATION, SCALE, SHIFT, CONTRAST, BRIGHTNESS, GAMMA, NOISE)

    def changed(options):
        def run(key, image, window, label):
            return augment.augment(key, augment.normalise(image, window), label, options)

        return jax.jit(run)

    run = changed(config.augment)
    run(jax.random.key(0), **blank_batch(BATCH, patch))[0].block_until_ready()

    def one_pass(part):
        batches = train_batches(
            cases[part], "axial", config, first_step=0, last_step=BATCHES, process=0, processes=1
        )
        for step, batch in enumerate(batches):
            jax.block_until_ready(run(jax.random.key(step), **batch))
        return BATCHES * BATCH

    found = _race(one_pass, folder)
    # The same changes for all sides: each at the upper end of its range, without noise.
    augment._symmetric = lambda key, limit, shape=(): jnp.full(shape, limit)
    ours = changed(Augment(ROTATION, SCALE, SHIFT, CONTRAST, BRIGHTNESS, GAMMA, noise=0.0))
    middle = cases[0].shapes["axial"][0] // 2
    batch = blank_batch(len(cases), patch)
    for row, case in enumerate(cases):
        place_slice(batch, row, case, "axial", middle)
    image, label = ours(jax.random.key(0), **batch)
    np.savez(folder / "liverjax_side.npz", image=np.asarray(image[..., 0]), label=np.asarray(label))
    return found


def _affine(angle, scale):
    """Returns the matrix that takes a place of the result, from the middle, to the place that it is taken from."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, -sin], [sin, cos]]) / scale


class _Slices:
    """The store's axial slices for the other sides: memory maps, read at random."""

    def __init__(self, folder):
        arrays = [np.load(path, mmap_mode="r") for path in _files(folder)]
        self.images, self.labels = arrays[::2], arrays[1::2]
        self.random = np.random.default_rng(0)

    def draw(self, part):
        case = self.random.choice(range(len(self.images))[part])
        index = self.random.integers(len(self.images[case]))
        return self.images[case][index], self.labels[case][index]

    def middle(self):
        middle = len(self.images[0]) // 2
        return [(image[middle], label[middle]) for image, label in zip(self.images, self.labels, strict=True)]


def _windowed(stored):
    import torch

    image = torch.from_numpy(stored.astype(np.float32))[None]
    low, high = WINDOW
    return image.sub_((low + high) / 2).div_((high - low) / 2).clamp_(-1, 1)


def batchgeneratorsv2_side(folder):
    import torch
    from batchgeneratorsv2.transforms.intensity.brightness import (
        BrightnessAdditiveTransform,
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    torch.set_num_threads(1)
    slices = _Slices(folder)
    shape = slices.images[0].shape[1:]

    class Air(SpatialTransform):
        """Its own place of the patch, at a fixed one where `center` is set."""

        center = None

        def get_parameters(self, **data):
            if self.center is None:
                return super().get_parameters(**data)
            uniform = np.random.uniform
            places = iter(self.center)
            np.random.uniform = lambda low=0, high=1: 0.0 if (low, high) == (0, 1) else next(places)
            try:
                return super().get_parameters(**data)
            finally:
                np.random.uniform = uniform

    def transforms(rotation, scaling, gamma, contrast, brightness, noise):
        spatial = Air(
            shape,
            [size / 2 - SHIFT for size in shape],
            random_crop=True,
            p_rotation=1,
            rotation=rotation,
            p_scaling=1,
            scaling=scaling,
            p_synchronize_scaling_across_axes=1,
            mode_seg="nearest",
            padding_mode_image="constant",
            padding_value_image=-1,
        )
        steps = [
            spatial,
            GammaTransform(gamma, 0, True, 1, 0),
            MultiplicativeBrightnessTransform(contrast, True, 1),
            BrightnessAdditiveTransform(
                *brightness, synchronize_channels=True
            ),  # Then uniform between the two.
        ]
        if noise:
            steps.append(GaussianNoiseTransform(noise, 1, True))
        return spatial, ComposeTransforms(steps)

    def logarithmic(limit):
        return lambda *_, **__: np.exp(np.random.uniform(-limit, limit))  # noqa: NPY002

    angle = np.deg2rad(ROTATION)
    _, changed = transforms(
        (-angle, angle),
        logarithmic(np.log1p(SCALE)),
        logarithmic(GAMMA * np.log(2)),
        (1 - CONTRAST, 1 + CONTRAST),
        (-BRIGHTNESS, BRIGHTNESS),
        (0, NOISE),
    )

    def one(image, label, run):
        out = run(image=_windowed(image), segmentation=torch.from_numpy(label.copy())[None])
        return out["image"].clamp_(-1, 1), out["segmentation"][0]

    def one_pass(part):
        for _ in range(BATCHES):
            pairs = [one(*slices.draw(part), changed) for _ in range(BATCH)]
            _ = [torch.stack(arrays) for arrays in zip(*pairs, strict=True)]
        return BATCHES * BATCH

    with torch.no_grad():
        found = _race(one_pass, folder)
        spatial, fixed = transforms(
            angle, 1 / (1 + SCALE), 2**GAMMA, 1 + CONTRAST, (BRIGHTNESS, BRIGHTNESS), None
        )
        # Theirs moves the patch over the image, ours the image under the patch.
        spatial.center = np.array(shape) / 2 - _affine(ROTATION, 1 + SCALE) @ [SHIFT, SHIFT]
        pairs = [one(*pair, fixed) for pair in slices.middle()]
    np.savez(
        folder / "batchgeneratorsv2_side.npz",
        image=np.stack([image[0] for image, _ in pairs]),
        label=np.stack([label for _, label in pairs]),
    )
    return found


def monai_side(folder):
    import monai
    import torch
    from monai import transforms as m
    from monai.data import DataLoader, Dataset

    torch.set_num_threads(1)
    monai.data.set_track_meta(False)  # Plain tensors: faster.
    slices = _Slices(folder)

    def read(item):
        stored, label = slices.draw(item) if isinstance(item, slice) else item["pair"]
        return {"image": _windowed(stored), "label": torch.from_numpy(label.copy())[None]}

    def transform(rotation, scale, shift, gamma, contrast, brightness, noise):
        # It pads with zeros or the border: with zeros, intensities of 0 to 2 make air of them.
        steps = [
            read,
            m.Lambdad("image", lambda image: image.add_(1)),
            m.RandAffined(
                ("image", "label"),
                prob=1,
                rotate_range=rotation,
                translate_range=shift,
                scale_range=scale,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
                cache_grid=True,
                spatial_size=slices.images[0].shape[1:],
            ),
            m.Lambdad("image", lambda image: image.sub_(1)),
            m.RandAdjustContrastd("image", prob=1, gamma=gamma),
            m.RandScaleIntensityd("image", prob=1, factors=contrast),
            m.RandShiftIntensityd("image", prob=1, offsets=brightness),
        ]
        if noise:
            steps.append(m.RandGaussianNoised("image", prob=1, std=noise))
        return m.Compose([*steps, m.Lambdad("image", lambda image: image.clamp_(-1, 1))])

    angle = np.deg2rad(ROTATION)
    sizes = (1 / (1 + SCALE) - 1, SCALE)
    changed = transform(
        (angle,),
        (sizes, sizes),
        (SHIFT, SHIFT),
        (2**-GAMMA, 2**GAMMA),
        CONTRAST,
        (-BRIGHTNESS, BRIGHTNESS),
        NOISE,
    )

    def one_pass(part):
        loader = DataLoader(Dataset([part] * (BATCHES * BATCH), changed), batch_size=BATCH, num_workers=0)
        return sum(len(batch["label"]) for batch in loader)

    with torch.no_grad():
        found = _race(one_pass, folder)
        size = 1 / (1 + SCALE)
        fixed = transform(
            ((angle, angle),),
            ((size - 1, size - 1),) * 2,
            ((-SHIFT * size, -SHIFT * size),) * 2,
            (2**GAMMA, 2**GAMMA),
            (CONTRAST, CONTRAST),
            (BRIGHTNESS, BRIGHTNESS),
            None,
        )
        pairs = [fixed({"pair": pair}) for pair in slices.middle()]
    np.savez(
        folder / "monai_side.npz",
        image=np.stack([np.asarray(pair["image"][0]) for pair in pairs]),
        label=np.stack([np.asarray(pair["label"][0]) for pair in pairs]),
    )
    return found


if __name__ == "__main__":
    # Where libraries find one CPU, they start one thread.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    print(json.dumps(globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))))
