"""The command line: one file a command, imported when it is called; every error is one line and exit code 2."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from unrolled.cli.flags import as_flags
from unrolled.errors import ConfigurationError, ElsewhereError, FallbackWarning, RecoveryWarning, UnrolledError

#: Words typed, module that answers, what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "train lm": ("train_lm", "train a recurrent language model on text"),
    "train min-char-rnn": ("train_min_char_rnn", "train the lectures' 112-line model, as they do"),
    "train translate": ("train_translate", "train an encoder and a decoder to translate"),
    "train reply": ("train_reply", "train an encoder and a decoder to answer short mails"),
    "translate": ("translate", "translate lines with one run, or several together"),
    "rescore": ("rescore", "rank the outputs of another translator anew"),
    "reply": ("reply", "suggest short answers to a mail"),
    "train tree": ("train_tree", "train a recursive net on labelled trees: sentiment at every node"),
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


_plain_show_warning = warnings.showwarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 a mistake of the caller, 130 interrupted."""
    words = _typed() if arguments is None else list(arguments)
    warnings.showwarning = _show_warning
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except ElsewhereError:
        return 2
    except UnrolledError as error:
        if isinstance(error, ConfigurationError) and os.environ.get("RANK", "0") != "0":
            return 2  # all processes say the same
        print(f"unrolled: error: {as_flags(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not (isinstance(error, MemoryError) or "allocate memory" in said or "out of memory" in said):
            raise
        print("unrolled: error: not enough memory; try a smaller model, batch or sequence length", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"unrolled: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning of this package is for the person at the terminal: one line, without the place in the code."""
    if issubclass(category, FallbackWarning | RecoveryWarning):
        print(f"unrolled: note: {message}", file=sys.stderr)
    else:
        _plain_show_warning(message, category, filename, lineno, file, line)


def _typed() -> list[str]:
    """The command line as UTF-8, in and out, whatever the locale says: prompts and samples are text of any script.

    Bytes that are none stay what they are: they may be part of a path.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed by the caller
    sys.stderr = sys.stderr or sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        from unrolled import __version__

        print(f"unrolled {__version__}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            command = importlib.import_module(f"unrolled.cli.{COMMANDS[name][0]}")
            return command.main(words[length:], prog=f"unrolled {name}")
    asked = not words or words[-1] in ("-h", "--help", "help")
    group = words[0] if words and any(name.startswith(words[0] + " ") for name in COMMANDS) else ""
    if asked or (group and len(words) == 1):
        _print_commands(group)
        return 0 if asked else 2
    print(
        f"unrolled: error: unknown command {' '.join(words[:2])!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr
    )
    return 2


def _print_commands(group: str) -> None:
    print(f"usage: unrolled {group + ' ' if group else ''}COMMAND [OPTIONS]\n")
    for name, (_, summary) in COMMANDS.items():
        if name.startswith(group):
            print(f"  unrolled {name:20} {summary}")
    print("\n`unrolled COMMAND --help` shows a command's options. Start with: unrolled train lm")
