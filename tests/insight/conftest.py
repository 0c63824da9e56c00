"""Networks with weights set by hand, whose answers are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.models import UNet


def linear_variables(network, kernels):
    """Variables of 3x3 kernels by module path, as ("stem", "conv"); all other kernels pass on the centre, biases 0.

    On positive slices, with kernels that are not negative, every ReLU passes on what it gets: the network is linear.
    """
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    variables = jax.tree.map(np.zeros_like, variables)
    params = variables["params"]
    for path, kernel in kernels.items():
        place = params
        for name in path[:-1]:
            place = place[name]
        assert place[path[-1]].shape == np.shape(kernel), (path, place[path[-1]].shape)
        place[path[-1]] = np.asarray(kernel, np.float32)
    return variables


def box(value=1.0):
    return np.full((3, 3, 1, 1), value)


def centre(value=1.0):
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = value
    return kernel


@pytest.fixture(scope="session")
def boxes():
    """One level: three 3x3 convolutions of ones, and a logit of 0 for background and of 2 y for liver."""
    network = UNet(classes=2, features=(1,), norm="none", short_skips="none", dropout=0.0)
    variables = linear_variables(
        network,
        {
            ("stem", "conv", "kernel"): box(),
            ("encoder_0", "first", "conv", "kernel"): box(),
            ("encoder_0", "second", "conv", "kernel"): box(),
            ("head", "kernel"): [[[[0.0, 2.0]]]],
        },
    )
    return network, variables


@pytest.fixture(scope="session")
def pooled():
    """Two levels, of which only the path through the pooling is open: y of a pixel is the maximum of its 2x2 window."""
    network = UNet(classes=2, features=(1, 1), norm="none", short_skips="none", dropout=0.0)
    only_below = np.zeros((3, 3, 2, 1))
    only_below[1, 1, 1] = 1
    variables = linear_variables(
        network,
        {
            ("stem", "conv", "kernel"): centre(),
            **{
                (block, conv, "conv", "kernel"): centre()
                for block in ("encoder_0", "encoder_1", "decoder_0")
                for conv in ("first", "second")
            },
            ("decoder_0", "first", "conv", "kernel"): only_below,
            ("up_0", "kernel"): np.ones((1, 4)),
            ("head", "kernel"): [[[[0.0, 1.0]]]],
        },
    )
    return network, variables


#: Ones convolved with themselves three times.
THREE_BOXES = np.outer([1, 3, 6, 7, 6, 3, 1], [1, 3, 6, 7, 6, 3, 1])
