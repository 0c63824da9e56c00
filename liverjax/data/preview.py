"""Slices of a store beside their augmentations, for a contact sheet before a run."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import jax
import numpy as np

from liverjax.data.augment import augment, normalise, step_keys
from liverjax.data.pipeline import blank_batch, merge_labels, place_slice
from liverjax.data.stored_case import StoredCase
from liverjax.labels import TUMOR
from liverjax.options import Config
from liverjax.own import own_functions

_augment = jax.jit(augment, static_argnames=("options", "own"))


@dataclasses.dataclass(frozen=True)
class Preview:
    """A contact sheet's content: each row is a slice as stored, then augmented.

    Attributes:
      images: (rows, columns, H, W) float32 in [-1, 1].
      labels: (rows, columns, H, W) label ids of what the network learns, each moved with its image.
      rows: name of each row: case and slice.
      columns: name of each column.
      title: the config's name, the view, and the ranges of the augmentation that are on.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: list[str]
    columns: list[str]
    title: str


def augmented_slices(
    cases: Sequence[StoredCase], view: str, config: Config, *, rows: int = 6, steps: int = 5
) -> Preview:
    """Returns slices of a store and their augmentations as the first steps of training draw them.

    Of up to ``rows`` cases, spread evenly, the slice with most tumour, or most liver where the network has no
    tumour class or the case no tumour. The column of step s holds these slices as the augmentation of that step changes
    them; patches are cropped at their centre, where training crops at random.
    """
    rows = min(rows, len(cases))
    chosen = [cases[int((row + 0.5) * len(cases) / rows)] for row in range(rows)]
    keep_tumor = "tumor" in config.labels
    batch = blank_batch(rows, config.batch.patch)
    names = []
    for row, case in enumerate(chosen):
        liver, tumor = case.counts[view].T
        index = int(np.argmax(tumor if keep_tumor and tumor.any() else liver))
        place_slice(batch, row, case, view, index)
        names.append(f"{case.id}\nslice {index}")
    image, label = normalise(batch["image"], batch["window"]), merge_labels(batch["label"], config.labels)
    maps = {"label": label}
    if config.target.region != "scan":
        maps["pixel_weight"] = np.ones(label.shape, np.float32)  # A function of one's own expects them.
    shown, own = [(image, label)], own_functions(config).get("augment.own")
    for step in range(steps):
        key, _ = step_keys(jax.random.key(config.seed), step)
        changed, moved = _augment(key, image, maps, options=config.augment, own=own)
        shown.append((changed, moved["label"]))
    images, labels = (
        np.stack([np.asarray(column) for column in columns], axis=1) for columns in zip(*shown, strict=True)
    )
    given = dataclasses.asdict(config.augment)
    ranges = [f"{name} {value if name == 'own' else f'{value:g}'}" for name, value in given.items() if value]
    return Preview(
        images=images[..., 0],
        # Label ids, by which outlines are named: without a class for the liver, the class of the tumours is 1.
        labels=labels if "liver" in config.labels else labels * TUMOR,
        rows=names,
        columns=["as stored", *(f"step {step}" for step in range(steps))],
        title=f"{config.name}, {view}\n{textwrap.fill(', '.join(ranges) or 'no augmentation', 150)}",
    )
