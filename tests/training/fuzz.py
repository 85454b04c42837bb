"""Damages a run in ways drawn at random, and opens, samples and resumes it: `python -m tests.training.fuzz`.

Whatever is in its files, only the package's own errors may come out. Bytes are flipped, cut, doubled and replaced; values
within the JSON of settings, descriptions and training states become others, and the digests are made to fit again, so
that what lies after them is reached.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console

from unrolled.errors import UnrolledError
from unrolled.tasks.language import LanguageTask, create_run
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig
from unrolled.training import Checkpoints, Run, Trainer, loop, open_run
from unrolled.training.checkpoint import DESCRIPTION, STATE, WEIGHTS, Checkpoint, digest_of, vocabularies

STRANGE = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**70, -1e300, 0.5, float("nan"), float("inf")),
    *(
        "",
        "0",
        "lstm",
        "\0",
        "é" * 50,
        "../..",
        [],
        [[]],
        [0] * 3,
        {},
        {"tensor": "0"},
        {"tuple": []},
        {"items": [[0, 0]]},
    ),
)


def make_run(folder: Path) -> Path:
    text = folder / "text.txt"
    text.write_text("Zoë said: grüß dich!\n" * 60, encoding="utf-8")
    config = LanguageConfig(
        TextConfig(data=(str(text),), val_tokens=50),
        ModelConfig(hidden_size=(4,), num_layers=2, embedding_size=3),
        StreamTraining(batch_size=2, seq_length=4, max_steps=20, eval_every=5, sample_every=0, log_every=1),
    )
    task = create_run(folder / "run", config)
    Trainer(task, config.training, task.run, Console(quiet=True)).train()
    return task.run.path


def damage_bytes(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at, length = draw.randrange(len(content) + 1), draw.choice((1, 1, 4, 8, 64))
        how = draw.randrange(5)
        if how == 0:
            del content[at:]
        elif how == 1:
            content[at : at + length] = draw.randbytes(length)
        elif how == 2:
            content[at:at] = draw.randbytes(length)
        elif how == 3 and at < len(content):
            content[at] ^= 1 << draw.randrange(8)
        else:
            del content[at : at + length]
    path.write_bytes(bytes(content))


def change_value(value: object, draw: random.Random) -> object:
    """`value` with one of its parts, at any depth, made something else, dropped or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: change_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value[:at] + value[at + 1 :] if draw.random() < 0.5 else [*value, value[at]]
        return [*value[:at], change_value(value[at], draw), *value[at + 1 :]]
    return draw.choice(STRANGE)


def change_json(path: Path, draw: random.Random) -> None:
    path.write_text(json.dumps(change_value(json.loads(path.read_text(encoding="utf-8")), draw)), encoding="utf-8")


def change_header(path: Path, draw: random.Random) -> None:
    """Another value in a safetensors file's header, or in the JSON of the training state that it holds."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if "state" in metadata and draw.random() < 0.8:
        metadata["state"] = json.dumps(change_value(json.loads(metadata["state"]), draw))
    else:
        header = change_value(header, draw)
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


def damage(path: Path, draw: random.Random) -> None:
    newest = Checkpoints(Run(path, "", {})).folders()[0]
    how = draw.randrange(10)
    if how < 2:
        files = [file for file in path.rglob("*") if file.is_file() and "events" not in file.name]
        damage_bytes(draw.choice(sorted(files)), draw)
    elif how < 4:
        change_json(path / draw.choice(("config.json", "config.json", "vocabulary.json", "tokens.json")), draw)
    elif how < 5:
        change_json(newest / DESCRIPTION, draw)
    else:
        file = newest / (STATE if how < 9 else WEIGHTS)
        change_header(file, draw) if draw.random() < 0.8 else damage_bytes(file, draw)
        stored = json.loads((newest / DESCRIPTION).read_text(encoding="utf-8"))
        files = {name: digest_of(newest / name) for name in (WEIGHTS, STATE)}
        run = Run(path, "", {})
        Checkpoint(newest, stored["step"], stored["best"], files, vocabularies(run)).write()


class AtOnce:
    """In the place of `Interrupt`: somebody wants the run to stop from the beginning."""

    requested = True

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def use(path: Path) -> None:
    """What one does with a run: sample it, and train it one step further."""
    run = open_run(path)
    task = LanguageTask(run, "cpu").load("best")
    task.preview(1)
    task = LanguageTask(run, "cpu")
    Trainer(task, task.config.training, run, Console(quiet=True), resume=True).train()


def attempt(whole: Path, folder: Path, number: int) -> bool:
    """Whether the damage was noticed, or did no harm; any other error is raised."""
    path = folder / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    damage(path, random.Random(number))
    try:
        use(path)
    except UnrolledError:
        return True
    except (MemoryError, RuntimeError) as error:  # said in one line by the command line
        if not (isinstance(error, MemoryError) or "memory" in str(error)):
            raise
        return True
    return False


def fuzz(numbers, seconds: float = float("inf")) -> tuple[int, int]:
    """Attempts made, and how many of them ended in one of the package's errors."""
    made = refused = 0
    loop.Interrupt, before = AtOnce, loop.Interrupt
    end = time.monotonic() + seconds
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = make_run(Path(name))
            for number in numbers:
                try:
                    refused += attempt(whole, Path(name), number)
                except Exception:
                    print(f"attempt {number} crashed", file=sys.stderr)
                    raise
                made += 1
                if time.monotonic() > end:
                    break
    finally:
        loop.Interrupt = before
    return made, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--first", type=int, default=None, help="number of the first attempt (drawn again each time)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    limit = 6 << 30  # settings of absurd sizes must fail, not fill the machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    first = random.randrange(1 << 40) if given.first is None else given.first
    made, refused = fuzz(range(first, first + (1 << 40)), given.seconds)
    print(f"{made} attempts from number {first}: {refused} refused, {made - refused} harmless, none crashed")


if __name__ == "__main__":
    main()
