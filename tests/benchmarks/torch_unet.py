"""The network of liverjax in torch, with the parameters of a flax tree, for the sides that need torch."""

import numpy as np
import torch
from torch import nn


def _tensor(array):
    return torch.from_numpy(np.array(array))


def _conv(p):
    size = p["kernel"].shape[0]
    layer = nn.Conv2d(*p["kernel"].shape[2:], size, padding=size // 2, bias="bias" in p)
    layer.weight.data = _tensor(p["kernel"].transpose(3, 2, 0, 1))
    if "bias" in p:
        layer.bias.data = _tensor(p["bias"])
    return layer


def _conv_norm(p, s):
    norm = nn.BatchNorm2d(len(p["norm"]["scale"]), momentum=0.01)  # What flax calls 0.99.
    norm.weight.data, norm.bias.data = _tensor(p["norm"]["scale"]), _tensor(p["norm"]["bias"])
    norm.running_mean, norm.running_var = _tensor(s["norm"]["mean"]), _tensor(s["norm"]["var"])
    return nn.Sequential(_conv(p["conv"]), norm)


def _up(p):
    width = len(p["bias"])
    layer = nn.ConvTranspose2d(width, width, 2, stride=2)
    layer.weight.data = _tensor(p["kernel"].reshape(width, 2, 2, width).transpose(0, 3, 1, 2))
    layer.bias.data = _tensor(p["bias"])
    return layer


class Block(nn.Module):
    def __init__(self, params, statistics, dropout):
        super().__init__()
        self.first, self.second = (_conv_norm(params[n], statistics[n]) for n in ("first", "second"))
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.width = self.second[0].out_channels

    def forward(self, x):
        y = self.second(self.dropout(torch.relu(self.first(self.dropout(x)))))
        missing = self.width - x.shape[1]
        skip = nn.functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, : self.width]
        return torch.relu(y + skip)


class UNet(nn.Module):
    """Logits (N, classes, H, W) of slices (N, 1, H, W)."""

    def __init__(self, variables: dict, dropout: float = 0.0):
        super().__init__()
        params, statistics = variables["params"], variables["batch_stats"]
        levels = range(sum(name.startswith("encoder") for name in params))

        def blocks(part, levels, dropout):
            names = [f"{part}_{level}" for level in levels]
            return nn.ModuleList(Block(params[name], statistics[name], dropout) for name in names)

        self.stem = _conv_norm(params["stem"], statistics["stem"])
        self.encoder = blocks("encoder", levels, 0.0)
        self.up = nn.ModuleList(_up(params[f"up_{level}"]) for level in levels[:-1])
        self.decoder = blocks("decoder", levels[:-1], dropout)
        self.head = _conv(params["head"])

    def forward(self, x):
        x = torch.relu(self.stem(x))
        skips = []
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)
            x = block(x)
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], 1))
        return self.head(x)

    def gradients(self) -> dict[str, np.ndarray]:
        """Returns the gradient of each parameter in flax's layout, by path below ``params``."""
        found = {}

        def conv(path, layer):
            found[f"{path}/kernel"] = layer.weight.grad.permute(2, 3, 1, 0)
            if layer.bias is not None:
                found[f"{path}/bias"] = layer.bias.grad

        def conv_norm(path, layers):
            conv(f"{path}/conv", layers[0])
            found[f"{path}/norm/scale"], found[f"{path}/norm/bias"] = (
                layers[1].weight.grad,
                layers[1].bias.grad,
            )

        conv_norm("stem", self.stem)
        conv("head", self.head)
        for part in ("encoder", "decoder"):
            for level, block in enumerate(getattr(self, part)):
                conv_norm(f"{part}_{level}/first", block.first)
                conv_norm(f"{part}_{level}/second", block.second)
        for level, layer in enumerate(self.up):
            width = len(layer.bias)
            found[f"up_{level}/kernel"] = layer.weight.grad.permute(0, 2, 3, 1).reshape(width, 4 * width)
            found[f"up_{level}/bias"] = layer.bias.grad
        return {path: gradient.float().cpu().numpy() for path, gradient in found.items()}
