"""Checkpoints: weights in safetensors, and everything that training needs to continue exactly.

A checkpoint is a folder that appears complete or not at all: it is written under a temporary name, flushed, and
renamed. Its description holds a digest of every file. A damaged checkpoint is noticed before it is read, and the
previous one is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from safetensors import SafetensorError

from unrolled.errors import RecoveryWarning, RunError
from unrolled.training.run import TEMPORARY, Run, one_line

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, STATE, DESCRIPTION = "model.safetensors", "training.safetensors", "checkpoint.json"
#: The prefix that a damaged checkpoint's folder gets when its run is resumed.
DAMAGED = "damaged-"
Which = Literal["last", "best"]
WHICH: tuple[Which, ...] = get_args(Which)
_NAME = re.compile(r"step-(\d{8,18})(?:-(\d{1,9}))?")
#: The errors that reading a damaged file may raise.
UNREADABLE = (
    *(SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError),
    *(RecursionError, OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Checkpoint:
    """The description of a checkpoint in its folder."""

    folder: Path
    step: int
    best: bool
    """Whether it was better than all checkpoints before it."""
    files: dict[str, str]
    """Digests of the weights and the training state."""
    vocabularies: dict[str, str] = field(default_factory=dict)
    """Digests of the run's vocabularies, which the weights belong to."""

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read a folder's description; RunError if it is missing or damaged."""
        path = folder / DESCRIPTION
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            described = cls(folder, stored["step"], stored["best"], stored["files"], stored["vocabularies"])
            if stored["digest"] != described.digest() or f"step-{described.step:08d}" != name_of(folder):
                raise ValueError("its content has changed")
        except FileNotFoundError:
            raise RunError(f"{path}: missing") from None
        except UNREADABLE as error:
            raise RunError(f"{path}: damaged ({one_line(error)})") from error
        return described

    def stored(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "folder"}

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.stored(), sort_keys=True).encode()).hexdigest()

    def write(self) -> None:
        text = json.dumps({**self.stored(), "digest": self.digest()}, indent=2) + "\n"
        (self.folder / DESCRIPTION).write_text(text, encoding="utf-8")

    def check(self, files: Iterable[str]) -> None:
        """Raise RunError if one of the files has changed since it was saved."""
        for file in files:
            path = self.folder / file
            if not path.is_file():
                raise RunError(f"{path}: missing")
            if digest_of(path) != self.files.get(file):
                raise RunError(f"{path}: damaged, its content has changed since it was saved")


class Checkpoints:
    """The checkpoints of one run: the best and the last `keep`."""

    def __init__(self, run: Run, keep: int = 3) -> None:
        self.run, self.keep = run, keep
        self.folder = run.path / "checkpoints"

    def folders(self) -> list[Path]:
        """Return the folders of checkpoints, intact or not, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_order, reverse=True)

    def find(self, which: Which) -> Checkpoint | None:
        """Return the last or the best checkpoint, by the descriptions; None if there is none."""
        return next((found for _, found in self._candidates(which) if isinstance(found, Checkpoint)), None)

    def _candidates(self, which: Which) -> list[tuple[Path, Checkpoint | RunError]]:
        """Return every folder with its description, or the error in it, the preferred checkpoint first."""
        candidates: list[tuple[Path, Checkpoint | RunError]] = []
        for folder in self.folders():
            try:
                candidates.append((folder, Checkpoint.read(folder)))
            except RunError as error:
                candidates.append((folder, error))
        if which == "best":  # the newest that was better than all before it; a folder without description may be that
            candidates.sort(key=lambda one: isinstance(one[1], Checkpoint) and not one[1].best)
        return candidates

    def save(self, model: nn.Module, state: dict[str, Any], *, best: bool) -> None:
        """Write the checkpoint of `state["step"]`, and delete those that are neither best nor among the last `keep`.

        Raises RunError, without changing anything, if the checkpoint cannot be written.
        """
        from unrolled.training.state import write_state, write_weights

        name = f"step-{state['step']:08d}"
        temporary = self.folder / f".{name}.{os.getpid()}{TEMPORARY}"
        # The first checkpoint of trained weights is better than that of another run's weights, from step 0.
        best = best or (state["step"] > 0 and not self.folders())
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            write_weights(model, temporary / WEIGHTS)
            write_state(state, temporary / STATE)
            digests = {file: digest_of(temporary / file) for file in (WEIGHTS, STATE)}
            Checkpoint(temporary, state["step"], best, digests, vocabularies(self.run)).write()
            for path in (*temporary.iterdir(), temporary):
                if path.name in digests:  # safetensors creates files that only their owner can read
                    shutil.copymode(temporary / DESCRIPTION, path)
                flush(path)
            temporary.rename(self._free(name))
            flush(self.folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # what the libraries raise on a full disk
            raise RunError(
                f"{self.folder}: cannot write the checkpoint of step {state['step']} ({one_line(error)})"
                + (f"; the checkpoint of step {last.step} is intact" if (last := self.find("last")) else "")
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._drop()

    def _free(self, name: str) -> Path:
        """Return an unused folder for `name`; a step may be saved again, as when a finished run is resumed."""
        target, number = self.folder / name, 0
        while target.exists():
            number += 1
            target = self.folder / f"{name}-{number}"
        return target

    def _drop(self) -> None:
        best = self.find("best")
        for old in self.folders()[self.keep :]:
            if best is None or old != best.folder:
                # Rename it first, so that a partly deleted folder is never taken for a checkpoint.
                hidden = old.with_name(f".{old.name}.{os.getpid()}{TEMPORARY}")
                old.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)

    def load(self, which: Which, model: nn.Module) -> dict[str, Any]:
        """Load the weights into `model` and return the training state; nothing is unpickled.

        If the checkpoint is damaged, the previous one is used, with a RecoveryWarning. Raises RunError if none is
        intact.
        """
        return self._load(which, model, (WEIGHTS, STATE))[1]

    def load_weights(self, which: Which, model: nn.Module, setting: str = "checkpoint") -> Checkpoint:
        """Load the weights like `load`, and return the checkpoint; `setting` is the setting that chose it.

        Raises RunError also if a weight is NaN.
        """
        used, _ = self._load(which, model, (WEIGHTS,))
        require_numbers(model, f"{self.run.path}: the {which} checkpoint", setting)
        return used

    def set_aside_damaged(self) -> None:
        """Rename the damaged checkpoints after the last intact one, with a RecoveryWarning.

        The caller must hold the run's lock. Raises RunError if no checkpoint is intact.
        """
        last, _, problems = self._whole("last", (WEIGHTS, STATE))
        if problems:
            names = [folder.rename(self._free(DAMAGED + folder.name)).name for folder, _ in problems]
            _say_recovery(problems, last.step, f"; kept as {', '.join(names)}")

    def _load(self, which: Which, model: nn.Module, files: tuple[str, ...]) -> tuple[Checkpoint, dict[str, Any]]:
        from safetensors.torch import load_model

        one, state, problems = self._whole(which, files)
        self.check_vocabularies(one)
        try:
            load_model(model, one.folder / WEIGHTS)
        except UNREADABLE as error:
            raise RunError(f"{one.folder}: does not fit this run's model ({one_line(error)})") from error
        if problems:
            _say_recovery(problems, one.step)
        return one, state

    def _whole(
        self, which: Which, files: tuple[str, ...]
    ) -> tuple[Checkpoint, dict[str, Any], list[tuple[Path, RunError]]]:
        """Return the preferred checkpoint with intact files, its state, and the errors in those preferred to it."""
        problems: list[tuple[Path, RunError]] = []
        for folder, one in self._candidates(which):
            try:
                if isinstance(one, RunError):
                    raise one
                one.check(files)
                return one, self._state(one) if STATE in files else {}, problems
            except RunError as error:
                problems.append((folder, error))
        if not problems:
            raise RunError(f"{self.run.path}: no checkpoint yet; the first validation writes one")
        raise RunError(f"{problems[0][1]}; no other checkpoint of this run is intact")

    def _state(self, one: Checkpoint) -> dict[str, Any]:
        from unrolled.training.state import read_state

        try:
            return read_state(one.folder / STATE)
        except UNREADABLE as error:
            raise RunError(f"{one.folder / STATE}: cannot be read ({one_line(error)})") from error

    def check_vocabularies(self, one: Checkpoint) -> None:
        """Raise RunError if the run's vocabularies are not those that the checkpoint was trained with."""
        now = vocabularies(self.run)
        for name, digest in one.vocabularies.items():
            if now.get(name) != digest:
                what = "not the vocabulary that the weights were trained with" if name in now else "missing"
                raise RunError(f"{self.run.path / name}: {what}")


def _say_recovery(problems: list[tuple[Path, RunError]], step: int, also: str = "") -> None:
    said = "; ".join(str(error) for _, error in problems)
    warnings.warn(f"{said}{also}; using the checkpoint of step {step}", RecoveryWarning, stacklevel=4)


def name_of(folder: Path) -> str:
    """Return a checkpoint folder's name without the number of a repetition or of the process that writes it."""
    return re.sub(r"^\.?(step-\d+).*", r"\1", folder.name)


def _order(folder: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(folder.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def vocabularies(run: Run) -> dict[str, str]:
    """Return the digests of the vocabularies in a run's directory."""
    return {path.name: digest_of(path) for path in sorted(run.path.glob("*vocabulary*.json"))}


def require_numbers(model: nn.Module, what: str, setting: str = "checkpoint") -> None:
    """Raise RunError if a weight is NaN; `setting` is the setting that chose the checkpoint."""
    broken = [name for name, value in model.named_parameters() if bool(value.isnan().any())]
    if broken:
        raise RunError(
            f"{what} holds weights that are NaN ({broken[0]}{f' and {len(broken) - 1} more' if broken[1:] else ''}): "
            f"its training diverged; choose another `{setting}`, or train again with a lower `learning_rate`",
            setting=(setting, "learning_rate"),
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Write a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
