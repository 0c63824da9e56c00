"""The gradient of 3x3 kernels, ours beside XLA's, on one thread.

  python tests/benchmarks/kernel_gradients.py

Prints GFLOP per CPU second, the best of three, and how far the two are apart; the last line is JSON.
"""

import json
import os
import time

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from liverjax.models.kernel_gradient import kernel_gradient

#: Slices, size, channels in and out: of `ct_liver` with its batch, then narrow ones, which XLA keeps.
SHAPES = [
    (16, 192, 192, 64),
    (16, 96, 384, 128),
    (16, 48, 768, 256),
    (16, 24, 512, 512),
    (8, 128, 48, 16),
    (8, 64, 96, 32),
    (2, 256, 48, 16),
]


def by_xla(x, dy):
    def convolve(kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return jax.vjp(convolve, jnp.zeros((3, 3, x.shape[-1], dy.shape[-1])))[1](dy)[0]


def main():
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    random, rows = np.random.default_rng(0), []
    for slices, size, channels, features in SHAPES:
        shape = (slices, size, size)
        x, dy = (jnp.asarray(random.standard_normal((*shape, c)), jnp.float32) for c in (channels, features))
        found, rates = [], []
        for side in (by_xla, kernel_gradient):
            compiled, seconds = jax.jit(side), []
            found.append(np.asarray(compiled(x, dy)))
            for _ in range(3):
                start = time.process_time()
                compiled(x, dy).block_until_ready()
                seconds.append(time.process_time() - start)
            rates.append(18 * x.size * features / min(seconds) / 1e9)
        off = np.abs(found[1] - found[0]).max() / np.abs(found[0]).max()
        print(
            f"{shape}, {channels} to {features}: XLA {rates[0]:.0f}, ours {rates[1]:.0f}; {off:.0e} apart",
            flush=True,
        )
        rows.append({"shape": shape, "channels": (channels, features), "rates": rates, "off": float(off)})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
