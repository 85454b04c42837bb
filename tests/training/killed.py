"""Trains runs whose process is killed again and again: `python -m tests.training.killed FOLDER SEED KILLS TASK...`.

Below FOLDER/TASK, `whole` is trained undisturbed and `parts` is killed, both by the commands that a person types. Every
attempt is a fork of this process, which has compiled everything and has no other threads. Half of them are killed at a
random time, the other half at a random one of their operations on files: between the parts of a checkpoint, and within.
"""

import contextlib
import gzip
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.utils.tensorboard

from unrolled.cli import main as unrolled

OFTEN = ["--log-every", "1", "--device", "cpu"]
NUMBERS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}


def language(folder: Path) -> list[str]:
    text = folder / "text.txt"
    text.write_text("Zoë said: grüß dich, naïve 世界!\n" * 120, encoding="utf-8")
    model = ["--hidden-size", "8", "6", "--embedding-size", "4", "--dropout", "0.2", "--recurrent-dropout", "0.1"]
    size = ["--batch-size", "2", "--seq-length", "16", "--val-tokens", "200", "--max-steps", "56"]
    often = ["--eval-every", "7", "--sample-every", "30", "--keep-checkpoints", "2"]
    return ["--data", str(text), *model, *size, *often]


def number_pairs(count: int) -> tuple[list[str], list[str]]:
    """Numbers in English and German."""
    draw = random.Random(1)
    sources = [" ".join(draw.choices(list(NUMBERS), k=draw.randint(1, 5))) + "." for _ in range(count)]
    return sources, [" ".join(NUMBERS[word] for word in line[:-1].split()) + "." for line in sources]


def write_pairs(folder: Path, count: int = 400) -> list[str]:
    """The numbers as two files, one of them compressed, and the words that name them."""
    source, target = folder / "numbers.en.gz", folder / "numbers.de"
    for path, lines in zip((source, target), number_pairs(count), strict=True):
        content = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return ["--source", str(source), "--target", str(target)]


#: Of encoder and decoder: over two passes and more of the pairs, which come in another order in each.
SENTENCES = [
    *("--level", "word", "--hidden-size", "24", "--embedding-size", "16", "--dropout", "0.2", "--batch-size", "16"),
    *("--max-steps", "24", "--eval-every", "3", "--sample-every", "4", "--average", "2", "--keep-checkpoints", "2"),
]


def translation(folder: Path) -> list[str]:
    return [*write_pairs(folder, 160), *SENTENCES, "--scheduled-sampling", "0.3"]


def reply(folder: Path) -> list[str]:
    pairs = folder / "mails.tsv"
    pairs.write_text("".join(f"{one}\t{other}\n" for one, other in zip(*number_pairs(160), strict=True)))
    return ["--pairs", str(pairs), *SENTENCES]


def tree_of(draw: random.Random, words: list[str]) -> str:
    """A random bracketing; a node is positive (4) or negative (0) as most of its words are, else neutral."""
    nodes = [(f"({4 if word == 'good' else 0} {word})", 1 if word == "good" else -1) for word in words]
    while len(nodes) > 1:
        k = draw.randrange(len(nodes) - 1)
        (left, a), (right, b) = nodes[k : k + 2]
        label = 2 + 2 * (a + b > 0) - 2 * (a + b < 0)
        nodes[k : k + 2] = [(f"({label} {left} {right})", a + b)]
    return nodes[0][0]


def write_trees(folder: Path) -> None:
    draw = random.Random(0)
    for name, count in (("train", 200), ("dev", 60)):
        made = [tree_of(draw, draw.choices(["good", "bad"], k=draw.randint(1, 6))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(made) + "\n")


def tree(folder: Path) -> list[str]:
    write_trees(folder)
    size = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "20", "--max-steps", "60"]
    return ["--data", str(folder), *size, "--eval-every", "3", "--sample-every", "4", "--keep-checkpoints", "2"]


def min_char_rnn(folder: Path) -> list[str]:
    return [language(folder)[1], "--iterations", "40", "--sample-every", "20"]


#: The commands that train: what each is told, once its data lie in a folder. The last begins over where it was killed.
TASKS: dict[str, Callable[[Path], list[str]]] = {
    "lm": language,
    "translate": translation,
    "reply": reply,
    "tree": tree,
    "min-char-rnn": min_char_rnn,
}


def command(task: str, folder: Path) -> list[str]:
    """The words that train a new run of this task, but for `--out`."""
    return ["train", task, *TASKS[task](folder), *(OFTEN if task != "min-char-rnn" else [])]


def go_on(words: list[str], path: Path) -> list[str]:
    """The words that train this run to its end: begun, gone on with, or begun again where the task cannot go on."""
    if (path / "config.json").exists() and words[1] == "min-char-rnn":
        shutil.rmtree(path)
    resumed = (path / "config.json").exists()
    return [*words[:2], "--resume", str(path)] if resumed else [*words, "--out", str(path)]


def die_at_operation(number: int, path: Path) -> None:
    """Kill this process in front of its `number`-th operation on a file below `path`."""
    left = [number]

    def count(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(path) in str(arguments[0]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def attempt(words: list[str], path: Path, prepare=lambda: None, seconds: float | None = None) -> int:
    """The signal that ended the attempt; 0 where it came to its end."""
    words = go_on(words, path)
    child = os.fork()
    if not child:
        try:
            prepare()
            os._exit(unrolled(words))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("an attempt failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_again_and_again(task: str, folder: Path, seed: int, kills: int) -> None:
    draw = random.Random(seed)
    words = command(task, folder)
    started = time.monotonic()
    assert unrolled(go_on(words, folder / "whole")) == 0  # here, so that every fork finds the cells planned
    whole = time.monotonic() - started
    if not kills:
        return
    path, killed, dying = folder / "parts", 0, 0
    while killed < kills:
        if dying % 2:
            number = draw.randrange(1, 60)
            ended = attempt(words, path, lambda number=number: die_at_operation(number, path))
        else:
            ended = attempt(words, path, seconds=draw.uniform(0, 1.5 * whole / kills))
        dying += 1
        if ended:
            assert ended == signal.SIGKILL
            killed += 1
        else:  # it came to its end before it was killed: the next one begins over
            path.rename(folder / f"parts-{dying}")
    assert attempt(words, path) == 0


def main() -> None:
    folder, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for task in sys.argv[4:]:
            (folder / task).mkdir(parents=True)
            kill_again_and_again(task, folder / task, seed, kills)


if __name__ == "__main__":
    main()
