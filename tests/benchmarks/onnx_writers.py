"""Our ONNX graph of a folded slice network beside that of jax2onnx: equality and CPU seconds in ONNX Runtime.

  python tests/benchmarks/onnx_writers.py 64,128,256,512

Needs `pip install jax2onnx` in an environment of its own. Tries jax2onnx with free H and W, in the form
(N, H/8, 8, W/8, 8, 1), and with one fixed size; prints what fails. One thread; the graphs take turns.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from jax import export
from jax2onnx import to_onnx

from liverjax.inference.network import fold
from liverjax.models import UNet
from liverjax.pretrained.onnx import onnx_graph

REPEATS = 5
SHAPE = (4, 256, 256, 1)


def main(features: str) -> None:
    """Prints the comparison."""
    network = UNet(classes=2, features=tuple(map(int, features.split(","))))
    noise = np.random.default_rng(0)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    variables = jax.tree.map(
        lambda a: a + jnp.asarray(noise.uniform(-0.02, 0.02, a.shape), a.dtype), variables
    )
    folded, parameters = fold(network, variables)
    parameters = jax.tree.map(np.asarray, parameters)

    def softmax(slices):
        return jax.nn.softmax(folded.apply(parameters, slices))

    def of_tiles(tiles):
        n, rows, _, columns, _, channels = tiles.shape
        return softmax(tiles.reshape(n, rows * 8, columns * 8, channels))

    def free(text):
        return [jax.ShapeDtypeStruct(export.symbolic_shape(text), jnp.float32)]

    n, rows, columns, _ = SHAPE
    tiles = (n, rows // 8, 8, columns // 8, 8, 1)
    writers = {
        "ours": ((n, 1, rows, columns), lambda: onnx_graph(folded, parameters)),
        "jax2onnx, 8*h x 8*w": (SHAPE, lambda: to_onnx(softmax, free("n, 8*h, 8*w, 1"), opset=17)),
        "jax2onnx, tiles": (tiles, lambda: to_onnx(of_tiles, free("n, h, 8, w, 8, 1"), opset=17)),
        "jax2onnx, tiles again": (tiles, lambda: to_onnx(of_tiles, free("n, h, 8, w, 8, 1"), opset=17)),
        "jax2onnx, fixed size": (SHAPE, lambda: to_onnx(softmax, [SHAPE], opset=17)),
    }
    slices = np.random.default_rng(1).uniform(-1, 1, SHAPE).astype(np.float32)
    expected = np.asarray(jax.nn.softmax(network.apply(variables, slices)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions, seconds = {}, {}
    for name, (shape, write) in writers.items():
        start = time.process_time()
        try:
            graph = write().SerializeToString()
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            continue
        print(f"{name}: written in {time.process_time() - start:.1f} CPU s")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        sessions[name] = session, {session.get_inputs()[0].name: slices.reshape(shape)}
        (found,) = session.run(None, sessions[name][1])
        found = found if found.shape == expected.shape else found.transpose(0, 2, 3, 1)
        differ = (found.argmax(-1) != expected.argmax(-1)).sum()
        print(f"{name}: probabilities within {np.abs(found - expected).max():.1e}, {differ} labels differ")
        seconds[name] = []
    for _ in range(REPEATS):
        for name, (session, feed) in sessions.items():
            start = time.process_time()
            session.run(None, feed)
            seconds[name].append(time.process_time() - start)
    for name, values in seconds.items():
        print(f"{name}: median of {REPEATS}: {statistics.median(values):.3f} CPU s")


if __name__ == "__main__":
    main(*sys.argv[1:])
