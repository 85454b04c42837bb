"""The commands by name: the module that answers each, what it does, and the flags that it takes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

#: Words typed, module that answers, what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "train min-char-rnn": ("train_min_char_rnn", "train the lectures' 112-line model, as they do"),
    "translate": ("translate", "translate lines with one run, or several together"),
    "rescore": ("rescore", "rerank the outputs of another translator"),
    "reply": ("reply", "suggest short answers to a mail"),
    "tag": ("tag", "label every word of a text"),
    "sample": ("sample", "generate text from a run"),
    "eval": ("eval", "score a run on held-out or other text: nats, bits per character, perplexity; BLEU, chrF"),
    "explain": ("explain", "show how a cell is compiled"),
    "bench": ("bench", "time cells against torch.nn and the eager loop, on this machine"),
    "sweep": ("sweep", "train many models and tell which cell and settings are best"),
    "runs": ("runs", "a table of the runs below a folder"),
    "data mails": ("data_mails", "print made mails and their answers, to learn smart reply from"),
    "inspect gradients": ("inspect_gradients", "how far gradients reach, in fresh cells and trained runs"),
    "inspect surface": ("inspect_surface", "the error surface of a one-unit net, and descent over it"),
    "inspect cells": ("inspect_cells", "find units of a trained model that mean something; text coloured by them"),
    "inspect memory": ("inspect_memory", "train small nets on memory tasks: accuracy against delay for every cell"),
    "inspect sensitivity": (
        "inspect_sensitivity",
        "how long the first input is felt, by nets with gates set by hand and trained",
    ),
    "inspect codes": ("inspect_codes", "one unit an object against one a property: what nets say of the unseen"),
    "inspect words": ("inspect_words", "word vectors: nearest neighbours, analogies, a map; export"),
    "inspect": ("inspect", "write a page about the inside of a trained run"),
    "info": ("info", "tell what a run is, how good it got, and how to sample from it"),
}


def name_of(words: Sequence[str]) -> str | None:
    """The command that the words begin with; None if they name no command, or a group alone."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and (name in COMMANDS or (length == 2 and _trains(words))):
            return name
    return None


def _trains(words: Sequence[str]) -> bool:
    return words[0] == "train" and not words[1].startswith("-")


def module_of(name: str) -> ModuleType:
    """The module whose `main` answers the command."""
    file = COMMANDS[name][0] if name in COMMANDS else "train"
    return importlib.import_module(f"unrolled.cli.{file}")


def arguments_of(name: str, words: Sequence[str]) -> Any:
    """The dataclass of the flags that a command takes, which may depend on its name and the words after it."""
    module = module_of(name)
    make = getattr(module, "arguments", None)
    return module.Arguments if make is None else make(name, words)


def summaries() -> dict[str, str]:
    """Every command with what it does, those that train first."""
    from unrolled.tasks import names

    found = {f"train {name}": summary for name, summary in names().items()}
    return found | {name: summary for name, (_, summary) in COMMANDS.items()}
