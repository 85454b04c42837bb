"""What a checkpoint holds as safetensors files: a model's weights, and a nest of tensors, numbers and strings.

The tensors are the file's; the nest around them is JSON in its header, with a tensor's name in its place. Nothing is
unpickled when they are read, and equal content gives equal bytes: safetensors writes the entries of its metadata in an
order that is drawn again for each file, so that every file here has one entry at most.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

KEY = "state"
#: In the metadata of a file of weights: the names that share the memory of another, with that other name.
SHARED = "shared"


def write_weights(model: nn.Module, path: Path) -> None:
    """Write a model's `state_dict`; of names for one and the same tensor the first by the alphabet is kept.

    `safetensors.torch.load_model` reads it back. RuntimeError if tensors overlap in another way.
    """
    kept: dict[tuple[object, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, tensor in sorted(model.state_dict().items()):
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and memory in kept:
            shared[name] = kept[memory]
        else:
            kept[memory] = name
            tensors[name] = tensor.contiguous()
    save_file(tensors, path, metadata={SHARED: json.dumps(shared)} if shared else None)


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write dictionaries (keys: strings or whole numbers), lists, tuples, tensors, numbers, strings and None."""
    tensors: dict[str, Tensor] = {}
    nest = _packed(state, tensors)
    save_file(tensors, path, metadata={KEY: json.dumps(nest)})


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote; ValueError, KeyError, TypeError, RecursionError or SafetensorError if it is not."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        state = _unpacked(json.loads(metadata[KEY]), file)
    if not isinstance(state, dict):
        raise TypeError(f"expected names and values, got {type(state).__name__}")
    return state


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        value = value.detach().cpu().contiguous()
        whole = value.untyped_storage().nbytes() == value.nbytes
        shared = any(value.data_ptr() == other.data_ptr() for other in tensors.values())
        tensors[name] = value if whole and not shared else value.clone()  # the format wants memory for each alone
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _packed(part, tensors)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_packed(part, tensors) for part in value]}
    if isinstance(value, list):
        return [_packed(part, tensors) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be part of a checkpoint")


def _unpacked(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, file) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return torch.clone(file.get_tensor(content))  # not a view of the file, which may go
    if kind == "tuple":
        return tuple(_unpacked(part, file) for part in content)
    if kind == "items":
        return {key: _unpacked(part, file) for key, part in content}
    raise ValueError(f"unknown part {kind!r}")
