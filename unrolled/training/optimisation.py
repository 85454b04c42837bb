"""Builds the optimiser, schedules the learning rate, clips gradients and finds the device."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unrolled.errors import ConfigurationError
from unrolled.training.config import TrainingConfig
from unrolled.training.layers import LayerGroup

_FLOOR = 0.01  # the end of the cosine schedule, as a fraction of the peak


def make_optimizer(
    model: nn.Module, config: TrainingConfig, layers: Sequence[LayerGroup] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser that `config` names; weight decay applies only to matrices.

    layers: groups of the model's parameters with learning rates of their own; those in no group form one more.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    grouped = {p for layer in layers for p in layer.parameters}
    groups: list[dict[str, Any]] = []
    for layer in [*layers, LayerGroup([p for p in parameters if p not in grouped])]:
        own = [p for p in layer.parameters if p.requires_grad]
        if layers and not own:
            continue
        about = {"factor": layer.factor, "start": layer.start}
        groups.append({"params": [p for p in own if p.dim() > 1], "weight_decay": config.weight_decay, **about})
        groups.append({"params": [p for p in own if p.dim() <= 1], "weight_decay": 0.0, **about})
    rate = config.learning_rate
    fused = {"fused": True} if all(p.device.type in ("cpu", "cuda") for p in parameters) else {}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, rate)
    if config.optimizer == "momentum":
        return torch.optim.SGD(groups, rate, momentum=config.momentum)
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, rate)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, rate)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, rate, betas=(0.9, 0.99), **fused)
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.99), **fused)


def memory_kinds(config: TrainingConfig) -> dict[str, type]:
    """Return the types of the optimiser's state for a parameter, by name, found by one step on a small model."""
    model = nn.Linear(1, 1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(model, config)
    optimizer.step()
    return {name: type(value) for memory in optimizer.state.values() for name, value in memory.items()}


def learning_rate(config: TrainingConfig, step: int, epochs: float, progress: float, plateaus: int) -> float:
    """Return the learning rate of update `step` (from 0), after `epochs` passes and the fraction `progress`."""
    rate = config.learning_rate
    if config.warmup_steps:
        rate *= min(1.0, (step + 1) / config.warmup_steps)
    if config.lr_schedule == "cosine":
        return rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    if config.lr_schedule == "step":
        return rate * config.lr_decay ** int(epochs / config.lr_decay_every)
    if config.lr_schedule == "plateau":
        return rate * config.lr_decay**plateaus
    return rate


def clip_gradients(model: nn.Module, config: TrainingConfig) -> float:
    """Clip the gradients by the settings in `config`, and return their norm before."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
    if config.clip_value:
        nn.utils.clip_grad_value_(parameters, config.clip_value)
    return float(norm)


def find_device(name: str) -> torch.device:
    """Return the device `name`; ConfigurationError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # each process on a host has its own GPU
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", name):
        raise ConfigurationError(
            f"`device={name}`: unknown; choose auto, cpu, cuda, cuda:1, mps or xpu", setting="device"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = f"`device={name}`: not on this machine; use `device=cpu`"
        raise ConfigurationError(said, setting="device") from error
    return device
