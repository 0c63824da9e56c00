"""Networks of one view that came from several starts, as one tree of arrays: stacked along a first axis."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def stack(starts: Sequence[dict]) -> dict:
    """Returns the variables of several starts as one tree, (starts, ...) each; those of a single one as they are."""
    return starts[0] if len(starts) == 1 else jax.tree.map(lambda *arrays: jnp.stack(arrays), *starts)


def unstack(variables: dict, starts: int) -> list[dict]:
    """Returns the variables of each start, of what `stack` gave."""
    return [variables] if starts == 1 else [one_member(variables, start) for start in range(starts)]


def one_member(variables: dict, start: jax.Array | int) -> dict:
    """Returns the variables of one of several starts; its number may be traced."""
    return jax.tree.map(lambda array: lax.dynamic_index_in_dim(array, start, keepdims=False), variables)
