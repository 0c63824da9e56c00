"""Random changes of training slices, on the device, inside the jitted step."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from liverjax.options import Augment
from liverjax.own import OwnFunction

#: What lies outside a slice: air, the low end of the window.
AIR = -1.0
#: Intensities within this of air are taken for air, in part, by changes of contrast.
_AIR_RANGE = 0.15
#: Number of the random values that a curve of intensities joins.
_CURVE_VALUES = 6
#: Tells the key of a user's augmentation from those of `draw_keys`, which are split off.
_OWN_KEY = 0x6F776E


def step_keys(key: jax.Array, step: int | jax.Array) -> jax.Array:
    """Returns the two keys of a training step, for its augmentation and for its dropout, from the run's key."""
    return jax.random.split(jax.random.fold_in(key, step))


def draw_keys(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the keys of all that is drawn for one slice by name, from the slice's own key; no two are equal.

    Each draw has its key whether or not it is on: switching one change on leaves the draws of the others as they were.
    """
    affine, intensity, elastic, flip, bias_field, blur, low_resolution, remap = jax.random.split(key, 8)
    keys = {"flip": flip, "bias_field": bias_field, "blur": blur, "low_resolution": low_resolution}
    for several, names in (
        (affine, ("rotation", "scale", "shift")),
        (intensity, ("contrast", "brightness", "gamma", "noise_level", "noise")),
        (elastic, ("elastic_rows", "elastic_columns")),
        (remap, ("curve_chance", "curve", "network_chance", "network", "network_share")),
    ):
        keys |= dict(zip(names, jax.random.split(several, len(names)), strict=True))
    return keys


def normalise(stored: jax.Array | np.ndarray, window: jax.Array | np.ndarray) -> jax.Array:
    """Returns slices (N, H, W, 1) float32 in [-1, 1] of voxels as stored (N, H, W).

    Args:
      stored: the voxels, of any real type.
      window: (N, 3) the low and the high value that become -1 and 1, and gamma: a `liverjax.scans.intensity.Window`
        in units of the stored voxels.
    """
    low, high, gamma = (window[:, None, None, None, i] for i in range(3))
    slope = 2 / jnp.maximum(high - low, 1e-30)
    linear = jnp.clip((stored[..., None] - (low + high) / 2) * slope, -1, 1)
    # A power of 1 need not be exact.
    return jnp.where(gamma == 1, linear, 2 * ((linear + 1) / 2) ** gamma - 1)


def augment(
    key: jax.Array, images: jax.Array, labels: Any, options: Augment, own: OwnFunction | None = None
) -> tuple[jax.Array, Any]:
    """Returns slices of randomly changed place and intensity, and labels that move with them.

    Each row has a key of its own, made from ``key`` and its place in the global batch.

    Args:
      key: a typed key of this step.
      images: (N, H, W, 1) float32 in [-1, 1].
      labels: (N, H, W) integers; or several such maps of labels or weights, as a pytree. Beyond a slice they are 0.
      options: the ranges; what has range 0 is not computed at all.
      own: the function that ``augment.own`` names; it changes each slice after all else.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(images.shape[0]))

    def one(row_key, image, labels):
        keys = draw_keys(row_key)
        if options.rotation or options.scale or options.shift or options.elastic:
            coordinates = _affine_coordinates(keys, image.shape, options)
            if options.elastic:
                coordinates = tuple(
                    along + _smooth_field(keys[name], image.shape, options.elastic)
                    for along, name in zip(coordinates, ("elastic_rows", "elastic_columns"), strict=True)
                )
            image = map_coordinates(image, coordinates, order=1, mode="constant", cval=AIR)
            labels = jax.tree.map(
                lambda label: map_coordinates(label, coordinates, order=0, mode="constant", cval=0), labels
            )
        if options.flip:
            for axis, mirrored in enumerate(jax.random.bernoulli(keys["flip"], options.flip, (2,))):
                image = jnp.where(mirrored, jnp.flip(image, axis), image)
                labels = jax.tree.map(
                    lambda label, m=mirrored, a=axis: jnp.where(m, jnp.flip(label, a), label), labels
                )
        if options.curve:
            changed = _through_curve(keys["curve"], image)
            image = jnp.where(jax.random.bernoulli(keys["curve_chance"], options.curve), changed, image)
        if options.random_network:
            changed = _through_network(keys["network"], image)
            share = jax.random.uniform(keys["network_share"])
            chosen = jax.random.bernoulli(keys["network_chance"], options.random_network)
            image = jnp.where(chosen, share * changed + (1 - share) * image, image)
        if options.bias_field:
            factor = jnp.exp(_smooth_field(keys["bias_field"], image.shape, options.bias_field, cell=128))
            image = (image + 1) * factor - 1
        if options.blur:
            image = _blur(image, jax.random.uniform(keys["blur"], (), maxval=options.blur), options.blur)
        if options.low_resolution:
            factor = jnp.exp2(jax.random.uniform(keys["low_resolution"], (), maxval=options.low_resolution))
            image = _coarser(_coarser(image, factor).T, factor).T
        image = _change_intensity(keys, image, options)
        return (image, labels) if own is None else _by_own(own, row_key, image, labels)

    images, labels = jax.vmap(one)(keys, images[..., 0], labels)
    return images[..., None], labels


def _by_own(own: OwnFunction, key: jax.Array, image: jax.Array, labels: Any) -> tuple[jax.Array, Any]:
    """Returns what a user's function makes of a slice; it sees labels as int32, of which nothing wraps around."""
    maps, structure = jax.tree.flatten(labels)  # "label" before "pixel_weight"
    seen = [maps[0].astype(jnp.int32), *maps[1:]]
    image, *changed = own(jax.random.fold_in(key, _OWN_KEY), image, *seen)
    back = [new.astype(old.dtype) for new, old in zip(changed, maps, strict=True)]
    return jnp.clip(image, -1, 1).astype(jnp.float32), jax.tree.unflatten(structure, back)


def _smooth_field(key: jax.Array, shape: tuple[int, ...], limit: float, cell: int = 32) -> jax.Array:
    """Returns a smooth random field (H, W) within +-limit: control points every ``cell`` pixels, interpolated."""
    rows, columns = (_spline_weights(size, cell) for size in shape)
    control = _symmetric(key, limit, (rows.shape[1], columns.shape[1]))
    # As products of matrices, and precise ones: where coordinates are gathered by, XLA would compute a spline that is
    # written as sums anew for each of their uses, and accelerators round the factors of products by default.
    return jnp.einsum("rc,cd,sd->rs", rows, control, columns, precision="highest")


def _spline_weights(size: int, cell: int) -> np.ndarray:
    """Returns the (size, control points) weights of a uniform cubic B-spline at ``size`` pixels.

    The four weights of each pixel are 0 or more and sum to 1, so that a result stays within the range of the control
    values.
    """
    place = np.arange(size) / cell
    first = place.astype(int)
    t = place - first
    four = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((size, -(-size // cell) + 3), np.float32)
    for offset, weight in enumerate(four):
        weights[np.arange(size), first + offset] = weight / 6
    return weights


def _through_curve(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the image (H, W) with each intensity replaced by that of a random curve; air stays air.

    The curve joins random values at evenly spaced intensities by straight lines, so that it may rise and fall, invert
    the contrast of two organs or make them alike, as another sequence does.
    """
    values = _symmetric(key, 1.0, (_CURVE_VALUES,))
    place = (image + 1) / 2 * (_CURVE_VALUES - 1)
    hats = [jnp.maximum(0, 1 - jnp.abs(place - knot)) for knot in range(_CURVE_VALUES)]
    changed = sum((v * hat for v, hat in zip(values, hats, strict=True)), start=jnp.zeros_like(image))
    return _with_air(image, changed)


def _through_network(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the image (H, W) after a random shallow network, with the mean and deviation that it had in the body.

    Four convolutions with two channels between them, of 1 x 1 or 3 x 3 pixels by chance, with normal weights and
    offsets and leaky rectifiers (GIN: Ouyang 2022, IEEE TMI, arXiv 2111.12525). It changes contrast and texture, and
    leaves every edge where it is. Air stays air.
    """
    body = (image > AIR + _AIR_RANGE).astype(image.dtype)
    rows, columns = image.shape
    channels = sums = image[None]
    for layer, count in zip(jax.random.split(key, 4), (2, 2, 2, 1), strict=True):
        size, weight, offset = jax.random.split(layer, 3)
        weights = jax.random.normal(weight, (count, len(channels), 3, 3))
        centre = jnp.zeros((1, 1, 3, 3)).at[..., 1, 1].set(1)
        weights = weights * jnp.where(jax.random.bernoulli(size), 1.0, centre)
        padded = jnp.pad(channels, ((0, 0), (1, 1), (1, 1)), mode="edge")
        shifted = [[padded[:, i : i + rows, j : j + columns] for j in range(3)] for i in range(3)]
        # A product, as XLA would compute layers that are written as sums anew for each of their uses.
        sums = jnp.einsum("ncij,ijcrs->nrs", weights, jnp.array(shifted), precision="highest")
        sums = sums + jax.random.normal(offset, (count, 1, 1))
        channels = jnp.where(sums > 0, sums, 0.01 * sums)
    mean, deviation = _moments(image, body)
    mean_now, deviation_now = _moments(sums[0], body)
    changed = (sums[0] - mean_now) / (deviation_now + 1e-6) * deviation + mean
    return _with_air(image, jnp.clip(changed, -1, 1))


def _moments(image: jax.Array, body: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and standard deviation of an image (H, W) within the body, (H, W) of 0 and 1."""
    count = jnp.maximum(body.sum(), 1)
    mean = (image * body).sum() / count
    return mean, jnp.sqrt(((image - mean) ** 2 * body).sum() / count)


def _with_air(image: jax.Array, changed: jax.Array) -> jax.Array:
    """Returns the changed image, and the image itself where it is air; between the two it passes over smoothly."""
    tissue = jnp.clip((image - AIR) / _AIR_RANGE, 0, 1)
    return image + tissue * (changed - image)


def _blur(image: jax.Array, sigma: jax.Array, largest: float) -> jax.Array:
    """Returns the image after a Gaussian of ``sigma`` pixels, whose kernel is cut at 3 of the ``largest``."""
    radius = max(1, math.ceil(3 * largest))
    offsets = jnp.arange(-radius, radius + 1)
    kernel = jax.nn.softmax(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    padded = jnp.pad(image, radius, mode="edge")
    rows = [kernel[i] * padded[i : i + image.shape[0]] for i in range(2 * radius + 1)]
    blurred = sum(rows[1:], rows[0])
    columns = [kernel[i] * blurred[:, i : i + image.shape[1]] for i in range(2 * radius + 1)]
    return sum(columns[1:], columns[0])


def _coarser(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns the image sampled every ``factor`` rows and interpolated linearly back to its own rows."""
    size = image.shape[0]
    place = (jnp.arange(size) + 0.5) / factor - 0.5
    first = jnp.floor(place)
    t = (place - first)[:, None]

    def sample(index):
        row = jnp.rint((index + 0.5) * factor - 0.5).astype(int)
        return image[jnp.clip(row, 0, size - 1)]

    return (1 - t) * sample(first) + t * sample(first + 1)


def _symmetric(key: jax.Array, limit: float | jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def _affine_coordinates(
    keys: dict[str, jax.Array], shape: tuple[int, ...], options: Augment
) -> tuple[jax.Array, jax.Array]:
    """Returns for each pixel of the result the row and column that it is taken from, (H, W) each."""
    angle = jnp.deg2rad(_symmetric(keys["rotation"], options.rotation))
    # Drawn on a logarithmic scale: halving is as likely as doubling.
    scale = jnp.exp(_symmetric(keys["scale"], jnp.log1p(options.scale)))
    shift = _symmetric(keys["shift"], options.shift, (2,))
    center = [(size - 1) / 2 for size in shape]
    rows = (jnp.arange(shape[0]) - center[0] - shift[0])[:, None] / scale
    columns = (jnp.arange(shape[1]) - center[1] - shift[1])[None, :] / scale
    return (
        jnp.cos(angle) * rows - jnp.sin(angle) * columns + center[0],
        jnp.sin(angle) * rows + jnp.cos(angle) * columns + center[1],
    )


def _change_intensity(keys: dict[str, jax.Array], image: jax.Array, options: Augment) -> jax.Array:
    if options.gamma:
        exponent = jnp.exp2(_symmetric(keys["gamma"], options.gamma))
        # Away from 0 the power has a finite slope, which keeps float32 rounding alike on all devices. Of a positive
        # base it is this exponential, which CPUs work out for many pixels at once.
        image = 2 * jnp.exp(exponent * jnp.log(jnp.clip((image + 1) / 2, 1e-6, 1))) - 1
    if options.contrast:
        image = image * (1 + _symmetric(keys["contrast"], options.contrast))
    if options.brightness:
        image = image + _symmetric(keys["brightness"], options.brightness)
    if options.noise:
        level = jax.random.uniform(keys["noise_level"], (), maxval=options.noise)
        image = image + level * _white_noise(keys["noise"], image.shape)
    return jnp.clip(image, -1, 1)


def _white_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns noise (H, W) of mean 0 and deviation 1: of each pixel the sum of eight random bytes.

    Such a sum is nearly normal: it has an excess kurtosis of -0.15 and reaches to 4.9 deviations either way. An inverse
    of the normal distribution for each pixel, and bits of jax's generator, cost six times as much.
    """
    first, second = jax.random.bits(key, (2,))
    place = jnp.arange(2 * math.prod(shape), dtype=jnp.uint32).reshape(2, *shape)
    words = _mixed(_mixed(place + first) ^ second)
    # Two sums of 16 bits in a word, of two bytes each, then of four, then one of eight.
    pairs = (words & 0xFF00FF) + ((words >> 8) & 0xFF00FF)
    fours = pairs[0] + pairs[1]
    eight = ((fours & 0xFFFF) + (fours >> 16)).astype(jnp.int32)
    return (eight - 8 * 255 // 2) / math.sqrt(8 * (2**16 - 1) / 12)


def _mixed(word: jax.Array) -> jax.Array:
    """Returns uint32 of which each bit depends on all bits of ``word``: the hash "lowbias32" (Wellons 2018)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
