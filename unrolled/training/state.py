"""The safetensors files of a checkpoint: a model's weights, and nested tensors, numbers and strings.

The file holds the tensors. Its header holds the structure around them as JSON, with the tensors' names in their places.
Reading unpickles nothing. Equal content gives equal bytes; because safetensors writes the entries of its metadata in a
random order, every file here has at most one entry.
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
#: The entry in the metadata of weights: the names that share another's memory, each with that other name.
SHARED = "shared"


def write_weights(model: nn.Module, path: Path) -> None:
    """Write a model's `state_dict`; if several names share a tensor, only the alphabetically first is written.

    `safetensors.torch.load_model` reads the file. Raises RuntimeError if tensors overlap in another way.
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
    """Read what `write_state` wrote.

    Raises ValueError, KeyError, TypeError, RecursionError or SafetensorError if the file is something else.
    """
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
        tensors[name] = value if whole and not shared else value.clone()  # the format needs separate memory
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
        return torch.clone(file.get_tensor(content))  # not a view of the file, which may be deleted
    if kind == "tuple":
        return tuple(_unpacked(part, file) for part in content)
    if kind == "items":
        return {key: _unpacked(part, file) for key, part in content}
    raise ValueError(f"unknown part {kind!r}")
