"""Migrates run directories of older formats in place, one format at a time.

1: until November 2026. `checkpoints/index.json` names the last and the best; the training state is `training.pt`.
2: every checkpoint has a description of its own; the training state is `training.safetensors`.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unrolled.errors import RecoveryWarning, RunError
from unrolled.training.checkpoint import STATE, WEIGHTS, Checkpoint, digest_of, flush, vocabularies
from unrolled.training.run import FORMAT, Run, one_line

OLD_STATE = "training.pt"


def open_run(path: str | Path) -> Run:
    """Open the run at `path`; a run of an older format is migrated in place.

    Raises RunError if there is no run, or if this version cannot read or migrate it.
    """
    run, version = Run.read(path)
    return run if version == FORMAT else migrate(run, version)


def migrate(run: Run, version: int) -> Run:
    """Migrate the directory from format `version` to the current one; RunError if that fails."""
    if version not in _STEPS:
        raise RunError(f"{run.path}: run format {version} is unknown")
    try:
        with run.locked():
            for number in range(version, FORMAT):
                _STEPS[number](run)
            run.write_config(run.config)  # from here on it has the current format
            for number in range(version, FORMAT):
                _TIDY[number](run)
    except (OSError, RunError) as error:
        raise RunError(
            f"{run.path}: has the old run format {version} and cannot be migrated ({one_line(error)}); "
            "copy it to a folder that can be written to, or open it with the version of unrolled that wrote it"
        ) from error
    return run


def _from_1(run: Run) -> None:
    import torch

    from unrolled.training.state import write_state

    folder = run.path / "checkpoints"
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        entries = {entry["name"]: (entry["step"], entry["digests"]) for entry in index.values()}
        best = index.get("best", {}).get("name")
    except FileNotFoundError:  # no checkpoint yet
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / 'index.json'}: damaged ({one_line(error)})") from error
    problems = []
    for name, (step, digests) in entries.items():
        inside = folder / name
        try:
            Checkpoint(inside, step, name == best, digests).check((WEIGHTS, OLD_STATE))
            old = torch.load(inside / OLD_STATE, weights_only=True, map_location="cpu")
        except (RunError, OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            problems.append(error if isinstance(error, RunError) else f"{inside}: cannot be read ({one_line(error)})")
            continue
        write_state(_state_from_1(old), inside / STATE)
        files = {file: digest_of(inside / file) for file in (WEIGHTS, STATE)}
        Checkpoint(inside, step, name == best, files, vocabularies(run)).write()
        for path in (*inside.iterdir(), inside):
            flush(path)
    if len(problems) == len(entries):
        raise RunError(f"{problems[0]}; no other checkpoint of this run is intact")
    for problem in problems:
        warnings.warn(f"{problem}; it is left out", RecoveryWarning, stacklevel=5)


def _tidy_1(run: Run) -> None:
    (run.path / "checkpoints" / "index.json").unlink(missing_ok=True)
    for path in run.path.glob(f"checkpoints/*/{OLD_STATE}"):
        if path.with_name(STATE).exists():
            path.unlink()


def _state_from_1(old: dict[str, Any]) -> dict[str, Any]:
    import torch

    from unrolled.training.randomness import random_state

    new = {name: value for name, value in old.items() if name != "random_cuda"}
    if "random" in old:
        drawn = {"torch": old["random"], "device": old["random_cuda"]}  # format 1 used no other generators
        new["random"] = [{**random_state(torch.device("cpu")), **drawn}]
    return new


_STEPS: dict[int, Callable[[Run], None]] = {1: _from_1}
#: Functions that delete the files of a format after the migration to the next one.
_TIDY: dict[int, Callable[[Run], None]] = {1: _tidy_1}
