"""The random generators that training may use: PyTorch's, NumPy's and Python's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed every generator."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator, including the GPU's if `device` is one."""
    kind, key, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": _accelerator(device).get_rng_state(device) if device.type != "cpu" else None,
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(key, dtype=np.int64)), position, has_gauss, gauss),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the state that `random_state` returned; KeyError, TypeError, ValueError or RuntimeError if it is invalid."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type != "cpu":
        _accelerator(device).set_rng_state(state["device"], device)
    version, inner, gauss_next = state["python"]
    random.setstate((version, tuple(inner), gauss_next))
    kind, key, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), position, has_gauss, gauss))


def _accelerator(device: torch.device) -> Any:
    return getattr(torch, device.type)
