"""The sides of the training-step benchmark: one process each, started by `test_training.py`.

  python step_sides.py SIDE FOLDER THREADS

Reads FOLDER/inputs.npz (parameters of a network by path, a batch), leaves loss and gradients without dropout, of its
first slices, in FOLDER/SIDE.npz, and prints as JSON the seconds of a whole step with dropout, clipping and Adam: CPU
seconds in float32, or for sides that end in _gpu wall seconds in bfloat16. The torch sides need torch, the others
liverjax.
"""

import json
import os
import pathlib
import statistics
import sys
import time

import numpy as np
from inference_sides import variables

STEPS = 3
#: Slices of the batch that the gradients are compared of; more would not fit into memory in double precision.
COMPARED = 2


def _median(work, clock) -> float:
    work()
    seconds = []
    for _ in range(STEPS):
        start = clock()
        work()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def jax_step(inputs, accelerator=False):
    import jax
    import jax.numpy as jnp
    import optax

    from liverjax.models import build_unet
    from liverjax.options import Augment, Loss, Model, Train
    from liverjax.training.monitor import peak_flops, step_flops
    from liverjax.training.optim import build_optimizer
    from liverjax.training.step import StepSpec, TrainState, jitted_train_step

    features = tuple(inputs["features"].tolist())
    batch = {name: jnp.asarray(inputs[name]) for name in ("image", "window", "label")}

    def setting(optimizer, dropout, accelerator):
        network = build_unet(Model(features, dropout), 2, accelerator=accelerator)
        # A copy: the step gives its state's memory away.
        tree = jax.tree.map(jnp.array, variables(inputs))
        params = tree["params"]
        state = TrainState(jnp.int32(0), params, tree["batch_stats"], optimizer.init(params))
        off = Augment(*[0.0] * 12)
        return state, StepSpec(network, optimizer, off, Loss())

    # With a plain step of a large rate the gradient is what the parameters changed by.
    rate = 2.0**10
    state, spec = setting(optax.identity(), 0.0, False)
    few = {name: array[:COMPARED] for name, array in batch.items()}
    after, metrics = jitted_train_step(state, few, np.float32(rate), jax.random.key(0), spec)
    gradient = jax.tree.map(
        lambda old, new: (old - np.asarray(new)) / rate, variables(inputs)["params"], after.params
    )
    paths = jax.tree_util.tree_leaves_with_path(gradient)
    facts = {"/".join(key.key for key in path): leaf for path, leaf in paths}
    facts["loss"] = np.float32(metrics["loss"])

    state, spec = setting(build_optimizer(Train()), Model.dropout, accelerator)
    holder = [state]

    def work():
        holder[0], _ = jitted_train_step(holder[0], batch, np.float32(1e-3), jax.random.key(0), spec)
        jax.block_until_ready(holder[0])

    found = {"seconds": _median(work, time.monotonic if accelerator else time.process_time)}
    if peak_flops():
        flops = step_flops(jitted_train_step, holder[0], batch, np.float32(1e-3), jax.random.key(0), spec)
        found["peak_flops_share"] = flops / found["seconds"] / peak_flops()
    return found, facts


def _torch_parts(inputs, device, dtype):
    """Returns a function that makes the network, the slices, and the loss of the logits of the first of them."""
    import torch
    from torch_unet import UNet

    image = torch.from_numpy(inputs["image"][:, None].astype(np.float32) / inputs["window"][0, 1])
    image = image.to(device, dtype, memory_format=torch.channels_last)
    label = torch.from_numpy(inputs["label"].astype(np.int64)).to(device)

    def network(dropout):
        net = UNet(variables(inputs), dropout).train()
        return net.to(device, dtype, memory_format=torch.channels_last)

    def loss_fn(logits):
        # As `liverjax.training.losses`: soft Dice of the batch's foreground, and cross-entropy.
        logits, wanted = logits.to(dtype), label[: len(logits)]
        probability, reference = torch.softmax(logits, 1)[:, 1], (wanted == 1).to(dtype)
        overlap, sizes = (probability * reference).sum(), probability.sum() + reference.sum()
        return 1 - (2 * overlap + 1) / (sizes + 1) + torch.nn.functional.cross_entropy(logits, wanted)

    return network, image, loss_fn


def torch_double(inputs, accelerator=False):
    """The loss and its gradient in double precision: what rounding is measured by."""
    import torch

    network, image, loss_fn = _torch_parts(inputs, "cuda" if accelerator else "cpu", torch.float64)
    plain = network(0.0)
    loss = loss_fn(plain(image[:COMPARED]))
    loss.backward()
    return {}, {**plain.gradients(), "loss": np.float32(loss.item())}


def torch_step(inputs, accelerator=False):
    import torch

    device = "cuda" if accelerator else "cpu"
    network, image, loss_fn = _torch_parts(inputs, device, torch.float32)
    plain = network(0.0)
    loss = loss_fn(plain(image[:COMPARED]))
    loss.backward()
    facts = {**plain.gradients(), "loss": np.float32(loss.item())}

    net = network(0.5)
    run = torch.compile(net) if accelerator else net
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def work():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=accelerator):
            loss = loss_fn(run(image))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if accelerator:
            torch.cuda.synchronize()

    return {"seconds": _median(work, time.monotonic if accelerator else time.process_time)}, facts


if __name__ == "__main__":
    side, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    accelerator = side.endswith("_gpu")
    if not accelerator:  # As many threads as libraries find CPUs.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    found, facts = globals()[side.removesuffix("_gpu")](np.load(folder / "inputs.npz"), accelerator)
    np.savez(folder / f"{side}.npz", **facts)
    print(json.dumps(found))
