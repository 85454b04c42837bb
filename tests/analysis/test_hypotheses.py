"""Labels against hand-made ones, and those of Python against its own tokenizer."""

import bisect
import io
import textwrap
import tokenize

import numpy as np
import pytest

from unrolled.analysis.hypotheses import (
    guess_language,
    hypotheses_for,
    lex,
    of_function,
    of_pattern,
)
from unrolled.errors import ConfigurationError


def labels(text, language):
    return {hypothesis.name: hypothesis.labels for hypothesis in hypotheses_for(text, language)}


def marked(text, label):
    return "".join(character if yes else "." for character, yes in zip(text, label, strict=True))


PYTHON = '''def twice(x):
    """Says "two"."""
    if x and f(x):  # true: or not
        return [2, (x)]
    y = "a: b" if x else 7
    return y
'''


def test_python():
    found = labels(PYTHON, "python")
    assert marked(PYTHON, found["inside comment"]).strip(".") == "# true: or not"
    assert marked(PYTHON, found["inside docstring"]).strip(".") == '"""Says "two"."""'
    assert marked(PYTHON, found["inside quotes (strings but docstrings)"]).strip(".") == '"a: b"'
    assert marked(PYTHON, found["inside if or while condition"]).strip(".") == " x and f(x)"
    assert marked(PYTHON, found["name being defined"]).strip(".") == "twice"
    depth = found["depth of brackets"]
    assert depth.max() == 2
    assert depth[PYTHON.index("(x)]") + 1] == 2
    assert depth[-1] == 0
    indent = found["depth of indentation"]
    assert [indent[PYTHON.index(word)] for word in ("def", "if x", "return [", "y =")] == [0, 1, 2, 1]


C = 'int f(int a) {\n  /* if (x) */\n  if (a > (1)) {\n    return "{"[0];\n  }\n}\n'


def test_c():
    found = labels(C, "c")
    assert marked(C, found["inside comment"]).strip(".") == "/* if (x) */"
    assert marked(C, found["inside if or while condition"]).strip(".") == " (a > (1)"
    braces = found["depth of braces"]
    assert [braces[C.index(word)] for word in ("int", "if (a", "return")] == [0, 1, 2]
    assert braces[-1] == 0


def test_any_text():
    text = 'Ab 1\n  "x y", z\n'
    found = labels(text, "text")
    assert found["position in line"].tolist() == [*range(5), *range(11)]
    assert marked(text, found["margin (blanks that begin a line)"]) == ".....  ........."
    assert np.flatnonzero(found["word boundary"]).tolist() == [2, 4, 9, 11, 15]
    assert marked(text, found["capital"]) == "A" + "." * 15
    assert marked(text, found["digit"]) == "...1" + "." * 12
    assert marked(text, found["inside quotes"]).strip(".") == '"x y"'


@pytest.mark.parametrize("module", [bisect, textwrap])
def test_python_by_its_own_tokenizer(module):
    with open(module.__file__, encoding="utf-8") as file:
        text = file.read()
    found = labels(text, "python")
    starts = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
    comment, quoted = np.zeros(len(text), dtype=bool), np.zeros(len(text), dtype=bool)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        span = slice(starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1])
        if token.type == tokenize.COMMENT:
            comment[span] = True
        elif token.type == tokenize.STRING:
            quoted[span] = True
    assert np.array_equal(found["inside comment"], comment)
    assert np.array_equal(found["inside string (docstrings too)"], quoted)


def test_ones_own(tmp_path):
    assert marked("a1 b22", of_pattern("numbers", r"\d+", "a1 b22").labels) == ".1..22"
    code = tmp_path / "mine.py"
    code.write_text("def vowel(text):\n    return [c in 'aeiou' for c in text]\ndef bad(text):\n    return 1 / 0\n")
    assert of_function("v", f"{code}:vowel", "hello").labels.tolist() == [False, True, False, False, True]
    with pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        of_function("v", f"{code}:bad", "hello")
    with pytest.raises(ConfigurationError, match="AttributeError"):
        of_function("v", f"{code}:none", "hello")
    with pytest.raises(ConfigurationError, match="no such file"):
        of_function("v", "none.py:f", "hello")
    with pytest.raises(ConfigurationError, match="no regular expression"):
        of_pattern("p", "(", "hello")


def test_languages():
    assert guess_language("a/b.py") == "python"
    assert guess_language("linux.c.txt") == "c"
    assert guess_language("notes.zzz") == "text"
    with pytest.raises(ConfigurationError, match="no such language"):
        lex("x", "klingon!")


def test_what_opened_before_the_text_does_not_count():
    labels = {h.name: h.labels for h in hypotheses_for("a)]\nf(b)\n", "python")}
    assert labels["depth of brackets"].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert labels["inside brackets"].sum() == 2
