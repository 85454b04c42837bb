"""Hypotheses about what a unit means. Each labels every character of a text with yes or no, or with a number.

Hypotheses about code use the tokens of Pygments' lexers, for any language that Pygments knows.
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
    """A name and the labels `[N]` of a text's characters.

    Bool labels are scored by AUC, float labels by correlation.
    """

    name: str
    labels: np.ndarray

    @property
    def graded(self) -> bool:
        return self.labels.dtype != np.bool_


def of_pattern(name: str, pattern: str, text: str) -> Hypothesis:
    """Label every character inside a match of the regular expression. `^` and `$` match at each line."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ConfigurationError(f"hypothesis {name!r}: {pattern!r} is no regular expression ({error})") from error
    labels = np.zeros(len(text), dtype=bool)
    for match in compiled.finditer(text):
        labels[match.start() : match.end()] = True
    return Hypothesis(name, labels)


def of_function(name: str, where: str, text: str) -> Hypothesis:
    """Label the text by a Python function, `file.py:function`, which returns one bool or number for each character."""
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
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ConfigurationError(f"hypothesis {name!r}: {where}: {type(error).__name__}: {error}") from error
    if labels.shape != (len(text),) or labels.dtype.kind not in "biuf":
        raise ConfigurationError(
            f"hypothesis {name!r}: {where} must return one bool or number for each of the {len(text):,} characters, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    labels = labels if labels.dtype == np.bool_ else labels.astype(np.float64)
    if labels.dtype == np.float64 and not np.isfinite(labels).all():
        raise ConfigurationError(f"hypothesis {name!r}: {where} returned numbers that are not finite")
    return Hypothesis(name, labels)


def of_any_text(text: str) -> list[Hypothesis]:
    """Return the hypotheses that fit any text: the position in the line, and the kind of the character just read."""
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
    """Return the hypothesis "inside quotes": straight or curly double quotes, which end at the end of a paragraph."""
    return [of_pattern("inside quotes", r'"(?:[^"\n]|\n(?!\s*\n))*"?|“(?:[^”\n]|\n(?!\s*\n))*”?', text)]


def of_code(text: str, language: str) -> list[Hypothesis]:
    """Return hypotheses about code: comments, strings, docstrings, conditions, keywords, depth of brackets and blocks.

    language: a name that Pygments knows. Both quotes of a string are inside it. An opening bracket is inside, a closing
    one is not.
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
    """Return the Pygments tokens of `text`: `(start, kind, value)`."""
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
    """Return Pygments' name of a file's language, guessed by the file's name; "text" if there is none."""
    from pygments.lexers import get_lexer_for_filename
    from pygments.util import ClassNotFound

    if name.endswith(".c.txt"):  # a common name for corpora of code
        name = name.removesuffix(".txt")
    try:
        found = get_lexer_for_filename(name).aliases[0]
    except (ClassNotFound, IndexError):
        return "text"
    return found


def hypotheses_for(text: str, language: str) -> list[Hypothesis]:
    """Return all hypotheses for a text in `language`, where "text" stands for prose."""
    return [*of_any_text(text), *(of_prose(text) if language == "text" else of_code(text, language))]


def _signs(text: str, characters: str, value: int, where: np.ndarray) -> np.ndarray:
    found = np.array([character in characters for character in text], dtype=bool)
    return np.where(found & where, value, 0)


def _depth(signs: np.ndarray) -> np.ndarray:
    """Return how many brackets are open. A closing bracket whose opening one is not in the text does not count."""
    sums = np.cumsum(signs)
    return sums - np.minimum(np.minimum.accumulate(sums), 0)


def _conditions(text: str, kinds, code: np.ndarray, python: bool) -> np.ndarray:
    """Label conditions: in Python from `if`, `elif`, `while` to the colon, else the brackets after `if` or `while`."""
    from pygments.token import Keyword

    inside = np.zeros(len(text), dtype=bool)
    for start, kind, value in kinds:
        if kind not in Keyword or value not in ("if", "elif", "while"):
            continue
        if python and text[text.rfind("\n", 0, start) + 1 : start].strip():
            continue  # an `if` inside an expression
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
    """Return how many blocks are open at each line of Python.

    A line that begins inside brackets or a string has the depth of the line where these began.
    """
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
