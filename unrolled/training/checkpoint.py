"""Checkpoints: weights in safetensors and, beside them, all that training needs to go on exactly.

A checkpoint is a folder that appears complete or not at all: written under a temporary name, flushed, and renamed.
`index.json`, replaced in one step, says which is the last and which the best, with a digest of every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from unrolled.errors import RunError
from unrolled.training.run import Run, write_atomically

WEIGHTS, STATE = "model.safetensors", "training.pt"
Which = Literal["last", "best"]


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Run) -> None:
        self.folder = run.path / "checkpoints"

    def index(self) -> dict[str, Any]:
        """`{"last": {...}, "best": {...}}`; empty where nothing was saved yet."""
        path = self.folder / "index.json"
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: damaged ({error})") from error
        if not isinstance(index, dict) or not all(
            isinstance(entry, dict) and {"name", "step", "digests"} <= set(entry) for entry in index.values()
        ):
            raise RunError(f"{path}: not an index of checkpoints")
        return index

    def save(self, model: nn.Module, state: dict[str, Any], *, best: bool) -> None:
        """Write the checkpoint of `state["step"]` as the last, and as the best if `best` or the first; drop others."""
        name = f"step-{state['step']:08d}"
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_model(model, str(temporary / WEIGHTS))
            torch.save(state, temporary / STATE)
            digests = {file: _flushed_digest(temporary / file) for file in (WEIGHTS, STATE)}
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk, as the three libraries say it
            shutil.rmtree(temporary, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise RunError(f"{self.folder}: cannot write the checkpoint of step {state['step']} ({reason})") from error
        index = self.index()
        number = 0
        while (target := self.folder / (f"{name}-{number}" if number else name)).exists():
            number += 1  # the same step once more, as when a finished run is resumed: never touch what is in use
        temporary.rename(target)
        index["last"] = {"name": target.name, "step": state["step"], "digests": digests}
        if best or "best" not in index:
            index["best"] = index["last"]
        write_atomically(self.folder / "index.json", json.dumps(index, indent=2) + "\n")
        used = {entry["name"] for entry in index.values()}
        for old in self.folder.iterdir():
            if old.is_dir() and old.name not in used:
                shutil.rmtree(old)

    def load(self, which: Which, model: nn.Module) -> dict[str, Any]:
        """Put the weights into `model` and return the training state; nothing is unpickled but tensors and numbers."""
        folder = self.load_weights(which, model, (WEIGHTS, STATE))
        try:
            return torch.load(folder / STATE, weights_only=True, map_location="cpu")
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            raise RunError(f"{folder / STATE}: cannot be read ({str(error).splitlines()[0]})") from error

    def load_weights(self, which: Which, model: nn.Module, files: tuple[str, ...] = (WEIGHTS,)) -> Path:
        """Put the weights into `model`, once all `files` of the checkpoint were found whole; its folder."""
        index = self.index()
        if which not in index:
            raise RunError(f"{self.folder.parent}: no checkpoint yet; it is written at the first validation")
        entry = index[which]
        folder = self.folder / entry["name"]
        for file in files:
            path = folder / file
            if not path.is_file():
                raise RunError(f"{path}: missing")
            if _digest(path) != entry["digests"].get(file):
                raise RunError(f"{path}: damaged, its content is not what was saved")
        try:
            load_model(model, folder / WEIGHTS)
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise RunError(f"{folder}: does not fit this run's model ({str(error).splitlines()[0]})") from error
        return folder


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flushed_digest(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return _digest(path)
