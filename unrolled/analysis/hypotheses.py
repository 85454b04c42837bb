"""Hypotheses of what a unit may mean: each labels every character of a text, with yes or no or with a number.

Those about code take the tokens of a real lexer, Pygments', of any language that it knows.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unrolled.data.lines import split_lines
from unrolled.errors import ConfigurationError


@dataclass(frozen=True)
class Hypothesis:
    """A name, and the labels `[N]` of a text's characters: bool, which AUC scores, or float, scored by correlation."""

    name: str
    labels: np.ndarray

    @property
    def graded(self) -> bool:
        return self.labels.dtype != np.bool_


def of_pattern(name: str, pattern: str, text: str) -> Hypothesis:
    """Yes for every character within a match of the regular expression (lines by `^` and `$`)."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ConfigurationError(f"hypothesis {name!r}: {pattern!r} is no regular expression ({error})") from error
    labels = np.zeros(len(text), dtype=bool)
    for match in compiled.finditer(text):
        labels[match.start() : match.end()] = True
    return Hypothesis(name, labels)


def of_function(name: str, where: str, text: str) -> Hypothesis:
    """The labels that a Python function, `file.py:function`, gives the text: one bool or number a character."""
    path, _, function = where.rpartition(":")
    if not Path(path).is_file():
        raise ConfigurationError(f"hypothesis {name!r}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        labels = np.asarray(getattr(module, function)(text))
    except (Exception, SystemExit) as error:  # whatever the user's code raises is said as it is
        raise ConfigurationError(f"hypothesis {name!r}: {where}: {type(error).__name__}: {error}") from error
    if labels.shape != (len(text),) or labels.dtype.kind not in "biuf":
        raise ConfigurationError(
            f"hypothesis {name!r}: {where} must give one bool or number a character, {len(text):,} in all; "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    labels = labels if labels.dtype == np.bool_ else labels.astype(np.float64)
    if labels.dtype == np.float64 and not np.isfinite(labels).all():
        raise ConfigurationError(f"hypothesis {name!r}: {where} gave numbers that are not finite")
    return Hypothesis(name, labels)


def of_any_text(text: str) -> list[Hypothesis]:
    """What can be asked of every text: the place in the line, and kinds of characters just read."""
    points = np.array([ord(character) for character in text])
    places = np.arange(len(text))
    newline = points == ord("\n")
    starts = np.maximum.accumulate(np.where(np.roll(newline, 1) | (places == 0), places, 0))
    word = np.array([character.isalnum() or character == "_" for character in text], dtype=bool)
    after_word = np.roll(word, 1)
    after_word[:1] = False
    blank = (points == ord(" ")) | (points == ord("\t"))
    inked = np.cumsum(~blank)
    margin = blank & (inked == inked[starts] - ~blank[starts])  # nothing but blanks so far
    kinds = {
        "newline": newline,
        "digit": np.array([character.isdigit() for character in text], dtype=bool),
        "capital": np.array([character.isupper() for character in text], dtype=bool),
        "word boundary": after_word & ~word,
        "margin (blanks that begin a line)": margin,
    }
    place = Hypothesis("position in line", (places - starts).astype(np.float64))
    return [place, *(Hypothesis(name, labels) for name, labels in kinds.items())]


def of_prose(text: str) -> list[Hypothesis]:
    """Inside double quotes, straight or curly; a quotation ends with its paragraph at the latest."""
    return [of_pattern("inside quotes", r'"(?:[^"\n]|\n(?!\s*\n))*"?|“(?:[^”\n]|\n(?!\s*\n))*”?', text)]


def of_code(text: str, language: str) -> list[Hypothesis]:
    """Inside comments, strings, docstrings, conditions; nesting of brackets and of blocks; keywords.

    language: a name that Pygments knows. What is asked is of the character just read: opening quotes and brackets
    count as inside, closing ones do not.
    """
    from pygments.token import Comment, Keyword, Name, Number, String

    kinds = lex(text, language)
    python = language in ("python", "python3", "py")
    comment, string, docstring, keyword, number, name = (
        np.zeros(len(text), dtype=bool) for _ in ("comment", "string", "docstring", "keyword", "number", "name")
    )
    for start, kind, value in kinds:
        span = slice(start, start + len(value))
        if kind in String.Doc:
            docstring[span] = True
        if kind in String:
            string[span] = True
        elif kind in Comment and kind not in Comment.Preproc and kind not in Comment.PreprocFile:
            comment[span] = True
        elif kind in Keyword:
            keyword[span] = True
        elif kind in Number:
            number[span] = True
        elif kind in Name.Function or kind in Name.Class:
            name[span] = True
    code = ~(string | comment)
    brackets = _depth(_signs(text, "([", 1, code) + _signs(text, ")]", -1, code))
    hypotheses = [
        Hypothesis("inside comment", comment),
        Hypothesis("inside string (docstrings too)", string),
        Hypothesis("inside docstring", docstring),
        Hypothesis("inside quotes (strings but docstrings)", string & ~docstring),
        Hypothesis("keyword", keyword),
        Hypothesis("number", number),
        Hypothesis("name being defined", name),
        Hypothesis("inside if or while condition", _conditions(text, kinds, code, python)),
        Hypothesis("inside brackets", brackets > 0),
        Hypothesis("depth of brackets", brackets.astype(np.float64)),
    ]
    if python:
        hypotheses.append(Hypothesis("depth of indentation", _indentation(text, code)))
    else:
        braces = _depth(_signs(text, "{", 1, code) + _signs(text, "}", -1, code))
        hypotheses.append(Hypothesis("depth of braces", braces.astype(np.float64)))
    return hypotheses


def lex(text: str, language: str):
    """The tokens of `text` by Pygments: `(start, kind, value)`."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        raise ConfigurationError(
            f"`language={language}`: Pygments knows no such language", setting="language"
        ) from None
    return list(lexer.get_tokens_unprocessed(text))


def guess_language(name: str) -> str:
    """The language of a file by its name, in Pygments' words; "text" where it is none or unknown."""
    from pygments.lexers import get_lexer_for_filename
    from pygments.util import ClassNotFound

    if name.endswith(".c.txt"):  # as corpora of code are often called
        name = name.removesuffix(".txt")
    try:
        found = get_lexer_for_filename(name).aliases[0]
    except (ClassNotFound, IndexError):
        return "text"
    return found


def hypotheses_for(text: str, language: str) -> list[Hypothesis]:
    """All that is asked of a text in `language`; of prose where that is "text"."""
    return [*of_any_text(text), *(of_prose(text) if language == "text" else of_code(text, language))]


def _signs(text: str, characters: str, value: int, where: np.ndarray) -> np.ndarray:
    found = np.array([character in characters for character in text], dtype=bool)
    return np.where(found & where, value, 0)


def _depth(signs: np.ndarray) -> np.ndarray:
    """How many brackets are open; those that close what opened before the text do not count."""
    sums = np.cumsum(signs)
    return sums - np.minimum(np.minimum.accumulate(sums), 0)


def _conditions(text: str, kinds, code: np.ndarray, python: bool) -> np.ndarray:
    """What is tested: in Python from `if`, `elif`, `while` to the colon, else the brackets after `if` and `while`."""
    from pygments.token import Keyword

    inside = np.zeros(len(text), dtype=bool)
    for start, kind, value in kinds:
        if kind not in Keyword or value not in ("if", "elif", "while"):
            continue
        if python and text[text.rfind("\n", 0, start) + 1 : start].strip():
            continue  # the `if` of an expression
        depth = 0
        for place in range(start + len(value), len(text)):
            if code[place]:
                character = text[place]
                depth += (character in "([{") - (character in ")]}")
                if depth < 0 or (depth == 0 and (character in ":\n" if python else character in ");\n")):
                    break
            inside[place] = True
    return inside


def _indentation(text: str, code: np.ndarray) -> np.ndarray:
    """How many blocks are open at each line of Python; within brackets and strings as at the line that began them."""
    depths = np.zeros(len(text))
    levels, place, depth = [0], 0, 0
    for line in split_lines(text):
        body = line.lstrip(" \t")
        begins = depth == 0 and (place == 0 or code[place - 1]) and code[place : place + 1].all()
        if begins and body.strip() and not body.startswith("#"):
            width = len(line) - len(body)
            while width < levels[-1]:
                levels.pop()
            if width > levels[-1]:
                levels.append(width)
        depths[place : place + len(line)] = len(levels) - 1
        for k, character in enumerate(line, place):
            if code[k]:
                depth = max(0, depth + (character in "([{") - (character in ")]}"))
        place += len(line)
    return depths
