"""Flags of the commands that take a tumour model and a lesion filter beside the liver model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from absl import flags

    from liverjax.inference.cascade import Cascade
    from liverjax.inference.segmenter import Segmenter


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    from absl import flags

    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string(
        "tumor_model", None, "run or bundle (or RUN1,RUN2) that finds tumours in the liver of the model", **on
    )
    flags.DEFINE_string("lesion_filter", None, "file of `liverjax train-filter` that drops tumours", **on)
    flags.DEFINE_float(
        "lesion_probability", None, "keep lesions of at least this (default: as the filter says)", 0, 1, **on
    )


def load(
    args: flags.FlagValues, model: str | os.PathLike, views: Sequence[str] | None = None
) -> Segmenter | Cascade:
    """Returns a model with what the flags add to it, of both the networks of some views or of all."""
    from liverjax.pretrained.load import load_model, with_tumors

    return with_tumors(
        load_model(model, views=views),
        args.tumor_model,
        args.lesion_filter,
        args.lesion_probability,
        views=views,
    )
