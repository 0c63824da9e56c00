"""Whether a map shows what it claims to: it must depend on the weights, and what it marks must matter.

Cascading randomisation: Adebayo et al. 2018, arXiv:1810.03292. Deletion and insertion: Petsiuk et al. 2018,
arXiv:1806.07421.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from liverjax.insight.attribution import Map, baseline_of, in_batches, patches
from liverjax.insight.receptive_field import seen_by
from liverjax.insight.taps import apply_with_tap, untrained
from liverjax.models import UNet

#: Makes a map with other weights.
Remake = Callable[[dict], Map]
#: By the name of a map, and "random": "deletion" and "insertion".
Curves = dict[str, dict[str, np.ndarray]]
#: Shares of the squares that are deleted or inserted.
SHARES = tuple(np.linspace(0, 1, 11).tolist())


def layers(network: UNet) -> list[str]:
    """Returns the names of the network's layers, from the output to the input: the order of the cascade."""
    levels = range(len(network.features))
    decoder = [name for level in levels[:-1] for name in (f"decoder_{level}", f"up_{level}")]
    return ["head", *decoder, *(f"encoder_{level}" for level in reversed(levels)), "stem"]


def cascade(network: UNet, variables: dict, pixels: np.ndarray, remake: Remake, *, seed: int = 0) -> dict:
    """Returns how alike a map stays while the weights become random, layer by layer from the output on.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      pixels: (H, W) bool, those that the map asks about; compared is where the answer can depend on the slice.
      remake: makes the map with other variables.
      seed: of the random weights.

    Returns:
      By the layer down to which all are random, "trained" first, the rank correlation (Spearman) of the absolute
      values with those of the trained network's map; 0 for a map without any contrast.
    """
    box = _box(network, pixels)
    original = np.abs(remake(variables).values[box]).ravel()
    random = untrained(network, seed)
    mixed = {kind: dict(own) for kind, own in variables.items()}
    found = {"trained": 1.0}
    for layer in layers(network):
        for kind, own in mixed.items():
            if layer in own:
                own[layer] = random[kind][layer]
        found[layer] = rank_correlation(original, np.abs(remake(mixed).values[box]).ravel())
    return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's correlation of two arrays of one size; 0 where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def curves(
    network: UNet,
    variables: dict,
    image: np.ndarray,
    pixels: np.ndarray,
    label: int,
    maps: Mapping[str, Map],
    *,
    baseline: str = "blurred",
    patch: int = 8,
    draws: int = 8,
    seed: int = 0,
) -> Curves:
    """Returns how the class's probability falls and rises as a map's squares are deleted and inserted, best first.

    Squares, since single pixels of a baseline are noise to which any network answers; and only those on which the
    answer can depend, since a random order would otherwise lose by squares that are out of sight.

    Args:
      network: the architecture.
      variables: its variables.
      image: (H, W) slice in [-1, 1].
      pixels: (H, W) bool, the set M.
      label: the class.
      maps: by name, whose orders are compared; values below 0 come last.
      baseline: what a deleted square shows, see `attribution.BASELINES`.
      patch: side of a square in pixels.
      draws: number of random orders.
      seed: of these.

    Returns:
      By the name of each map, and "random": "deletion" and "insertion", each (len(SHARES),) of one order, or
      (draws, len(SHARES)): the mean softmax of the label over the pixels, by the share of the squares.
    """
    squares = patches(network, pixels, patch)
    start = baseline_of(image, baseline)
    random = np.random.default_rng(seed)
    orders = [np.argsort([-found.values[square].mean() for square in squares]) for found in maps.values()]
    orders += [random.permutation(len(squares)) for _ in range(draws)]
    slices = []
    for order in orders:
        for source, target in ((image, start), (start, image)):
            for share in SHARES:
                slice_ = source.astype(np.float32)
                for place in order[: round(share * len(squares))]:
                    slice_[squares[place]] = target[squares[place]]
                slices.append(slice_)
    answers = in_batches(lambda some: _probability(network, variables, some, pixels, label), np.stack(slices))
    deletion, insertion = np.moveaxis(answers.reshape(len(orders), 2, len(SHARES)), 1, 0)
    found = {name: {"deletion": deletion[i], "insertion": insertion[i]} for i, name in enumerate(maps)}
    own = len(maps)
    return found | {"random": {"deletion": deletion[own:], "insertion": insertion[own:]}}


def area(curve: np.ndarray) -> np.ndarray:
    """Returns the area under curves (..., len(SHARES)): low is good for deletion, high for insertion."""
    return np.trapezoid(curve, SHARES, axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _probability(network: UNet, variables: dict, slices: jax.Array, pixels: jax.Array, label) -> jax.Array:
    logits, _ = apply_with_tap(network, variables, slices)
    softmax = jnp.take(jax.nn.softmax(logits), label, axis=-1)
    return jnp.where(pixels[None], softmax, 0).sum((1, 2)) / pixels.sum()


def _box(network: UNet, pixels: np.ndarray) -> tuple[slice, slice]:
    """Returns the box of the slice on which an answer at some pixels can depend."""
    box = []
    for axis in (0, 1):
        where = np.flatnonzero(pixels.any(1 - axis))
        first, last = seen_by(len(network.features), int(where[0]), int(where[-1]))
        box.append(slice(max(first, 0), min(last + 1, pixels.shape[axis])))
    return box[0], box[1]
