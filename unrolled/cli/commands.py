"""The commands by name: each one's module, summary and flags."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

#: By the words typed: the command's module and its summary.
COMMANDS: dict[str, tuple[str, str]] = {
    "train min-char-rnn": ("train_min_char_rnn", "train the lectures' 112-line model with their settings"),
    "translate": ("translate", "translate lines with one run or an ensemble of runs"),
    "rescore": ("rescore", "rerank the outputs of another translator"),
    "reply": ("reply", "suggest short answers to a mail"),
    "tag": ("tag", "label every word of a text"),
    "classify": ("classify", "give every text its class"),
    "segment": ("segment", "label every frame of video or of sensors"),
    "transcribe": ("transcribe", "write what recordings say, or what stands on pictures of lines"),
    "caption": ("caption", "describe pictures with one run or an ensemble of runs"),
    "sample": ("sample", "generate text from a run"),
    "eval": ("eval", "score a run on held-out or other text: nats, bits per character, perplexity; BLEU, chrF"),
    "explain": ("explain", "show how a cell is compiled"),
    "bench": ("bench", "time cells against torch.nn and the eager loop, on this machine"),
    "sweep": ("sweep", "train many models and report the best cell and settings"),
    "runs": ("runs", "show a table of the runs below a folder"),
    "data transcripts": ("data_transcripts", "print the transcripts of a transcriber's run, for a language model"),
    "data scenes": ("data_scenes", "draw scenes of coloured shapes with captions, to train a captioner on"),
    "data mails": ("data_mails", "print synthetic mails and their answers, to train smart reply on"),
    "inspect gradients": ("inspect_gradients", "show how far gradients reach in fresh cells and trained runs"),
    "inspect surface": ("inspect_surface", "draw the error surface of a one-unit net and descent over it"),
    "inspect cells": ("inspect_cells", "find units of a trained model that mean something; colour text by them"),
    "inspect memory": ("inspect_memory", "train small nets on memory tasks; show accuracy against delay"),
    "inspect sensitivity": (
        "inspect_sensitivity",
        "show how long the first input affects nets, trained or with gates set by hand",
    ),
    "inspect codes": ("inspect_codes", "compare local and distributed codes on objects left out of training"),
    "inspect classes": ("inspect_classes", "write an HTML page of texts coloured by what each word adds to a class"),
    "inspect captions": ("inspect_captions", "write an HTML page of pictures with captions, scores and attention"),
    "inspect words": ("inspect_words", "show nearest neighbours, analogies and a map of word vectors"),
    "inspect confusions": ("inspect_confusions", "draw which labels a trained model takes for which"),
    "inspect transcript": (
        "inspect_transcript",
        "show where a transcriber writes each character, and from what",
    ),
    "inspect": ("inspect", "write an HTML page about the inside of a trained model"),
    "info": ("info", "show what a run is, how good it is, and how to use it"),
}


def name_of(words: Sequence[str]) -> str | None:
    """Return the command that the words begin with; None if they name no command or only a group."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and (name in COMMANDS or (length == 2 and _trains(words))):
            return name
    return None


def _trains(words: Sequence[str]) -> bool:
    return words[0] == "train" and not words[1].startswith("-")


def module_of(name: str) -> ModuleType:
    """Return the module whose `main` runs the command."""
    file = COMMANDS[name][0] if name in COMMANDS else "train"
    return importlib.import_module(f"unrolled.cli.{file}")


def arguments_of(name: str, words: Sequence[str]) -> Any:
    """Return the dataclass of a command's flags, which may depend on its name and the words after it."""
    module = module_of(name)
    make = getattr(module, "arguments", None)
    return module.Arguments if make is None else make(name, words)


def summaries() -> dict[str, str]:
    """Return every command's summary, with the training commands first."""
    from unrolled.tasks import names

    found = {f"train {name}": summary for name, summary in names().items()}
    return found | {name: summary for name, (_, summary) in COMMANDS.items()}
