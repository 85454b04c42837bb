"""Every reader of text opens it in one way: with a mark or without, plain or gzip, with one notion of a line."""

import gzip
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.analysis.words import AnalogyScore, Neighbours, score_analogies
from unrolled.cli.rescore import read_lists
from unrolled.data import find_sources, read_text
from unrolled.data.lines import open_lines, read_json, readable, split_blanks, split_lines
from unrolled.data.mails import read_mails
from unrolled.data.pairs import read_line_pairs
from unrolled.data.tokens import load_vocabulary
from unrolled.data.trees import read_trees
from unrolled.data.vectors import read_vectors
from unrolled.errors import DataError, RunError

MARK = b"\xef\xbb\xbf"
#: What `str.splitlines` takes for line ends, and other tools do not.
NO_ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]


def pairs(path):
    return read_line_pairs(str(path), str(path))[0]


def raw(path):
    return "".join(read_text(find_sources([str(path)])))


def vectors(path):
    found = read_vectors(path)
    return found.words, found.values.tolist()


def questions(path):
    known = Neighbours(vectors_of(["man", "king", "woman", "queen\u2028"], [[0, 1], [1, 1], [0, 2], [1, 2]]))
    return score_analogies(known, path)


def vectors_of(words, values):
    from unrolled.data.vectors import WordVectors

    return WordVectors(tuple(words), np.array(values, dtype=np.float32))


#: A reader, a text of two lines with odd characters in it, and what is read.
READERS = {
    "lines": (lambda path: list(open_lines(path)), "a\u2028 b\nc\x85\x0c\n", ["a\u2028 b", "c\x85\x0c"]),
    "pairs": (pairs, "a\u2028 b\nc\x85\x0c\n", ["a\u2028 b", "c\x85\x0c"]),
    "mails": (
        lambda path: read_mails(str(path)),
        'a\u2028b\tc\n{"message": "d\x85", "reply": "e"}\n',
        (["a\u2028b", "d\x85"], ["c", "e"]),
    ),
    "trees": (
        lambda path: [tree.words for tree in read_trees(path)],
        "(1 a\u2028b)\n(2\t(0 c\x85) (1  d))\n",
        [("a\u2028b",), ("c\x85", "d", None)],
    ),
    "word2vec": (vectors, "2 2\na\u2028b 1\t2\nc\x85  3 4 \n", (("a\u2028b", "c\x85"), [[1, 2], [3, 4]])),
    "GloVe": (vectors, "a\u2028b 1 2\n. .\t3   4\n", (("a\u2028b", ". ."), [[1, 2], [3, 4]])),
    "questions": (questions, ": x\nman\tking  woman queen\u2028\n", {"x": AnalogyScore(1, 1, 0)}),
    "n-best": (lambda path: read_lists(str(path), 1, True), "0 ||| a\u2028b ||| -1\n", [[("a\u2028b", -1.0)]]),
    "json": (read_json, '{"a":\n"\u2028"}\n', {"a": "\u2028"}),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("mark", [b"", MARK], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", READERS)
def test_marks_line_ends_and_gzip_change_nothing(name, end, mark, packed, tmp_path):
    read, text, expected = READERS[name]
    data = mark + text.replace("\n", end).encode()
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read(path) == expected


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_utf_8_is_named_by_file_and_line(name, tmp_path):
    read, text, _ = READERS[name]
    path = tmp_path / "file"
    path.write_bytes(text.split("\n")[0].encode() + b"\n\xffx\n")
    with pytest.raises(DataError, match=r"file: line 2 is not UTF-8 text \(byte 1 of the line\)"):
        read(path)


@pytest.mark.parametrize("name", READERS)
def test_damaged_and_misnamed_gzip_files(name, tmp_path):
    read, text, _ = READERS[name]
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0)[:-5])  # all of the text, but not its sum
    with pytest.raises(DataError, match="damaged gzip file"):
        read(path)
    path.write_bytes(text.encode())
    with pytest.raises(DataError, match=r"it is called \.gz, and is no gzip file"):
        read(path)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), max_size=5), st.booleans())
def test_lines_come_back_whatever_they_hold(tmp_path_factory, lines, last):
    lines = [line.removesuffix("\r") for line in lines]
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(MARK + "".join(line + "\n" for line in lines).encode() + (b"end" if last else b""))
    assert list(open_lines(path)) == [*lines, *(["end"] if last else [])]


@given(st.text(st.sampled_from(["a", "\n", "\r", *NO_ENDS])))
def test_lines_of_a_text_are_those_of_its_file(tmp_path_factory, text):
    assert "".join(split_lines(text)) == text
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(text.encode())
    ends = [line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line for line in split_lines(text)]
    assert list(open_lines(path)) == ends


def test_a_mark_is_one_at_the_start_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(MARK)
    assert list(open_lines(path)) == []
    path.write_bytes(MARK + MARK + b"a\n" + MARK + b"b")
    assert list(open_lines(path)) == ["\ufeffa", "\ufeffb"]


def test_raw_text_stays_as_it_is_but_for_the_mark(tmp_path):
    text = "a\r\nb\rc\u2028\x85\x0c\n\n d"
    (tmp_path / "plain").write_bytes(MARK + text.encode())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(MARK + text.encode()))
    assert raw(tmp_path) == text * 2
    packed = tmp_path / "packed.gz"
    assert find_sources([str(packed)], unpack=False) == [packed]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"packed.gz: cannot be read: a damaged gzip file"):
        find_sources([str(tmp_path)])


@pytest.mark.parametrize("bad", [b"\xff", b"\0"])
def test_the_line_of_raw_text_that_is_none(bad, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one\r\ntwo\nthree " + bad)
    with pytest.raises(DataError, match=r"file: .*\(byte 15\) in line 3"):
        raw(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read_alike_and_once(pack, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pack(MARK + "a\u2028\r\nü".encode())), "latin-1"))
    assert list(open_lines("-")) == ["a\u2028", "ü"]
    with pytest.raises(DataError, match="only once"):
        list(open_lines("-"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n\ud800"))
    with pytest.raises(DataError, match="standard input: line 2 is not UTF-8"):
        list(open_lines("-"))
    with pytest.raises(DataError, match="only once"):
        list(open_lines("-"))


def test_json_names_what_is_wrong_and_where(tmp_path):
    path = tmp_path / "file"
    for text, expected in (
        ('{"a":\n x}', "not JSON.*line 2 column 2"),
        ('["\\ud83d"]', "half a surrogate pair"),
        ('{"\\uDC00": 1}', "half a surrogate pair"),
        ("[" * 100_000, "not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=f"file: .*{expected}"):
            read_json(path)
    path.write_text('["\\ud83d\\ude00"]')
    assert read_json(path) == ["😀"]
    with pytest.raises(DataError, match="No such file"):
        read_json(tmp_path / "none")


def test_blanks_are_tabs_and_spaces_alone():
    assert split_blanks(" a\t\tb  c\u00a0d \u3000 ") == ["a", "b", "c\u00a0d", "\u3000"]
    assert split_blanks("") == []


@given(st.text(st.characters()))
def test_readable_text_is_text(text):
    assert readable(text).encode().decode() == readable(text)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert readable(text) == text


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"level": "char", "characters": "ab\ud800"}, "half a surrogate pair"),
        ({"level": "char", "characters": ["a", "bc"]}, "each once"),
        ({"level": "char", "characters": "aab"}, "each once"),
        ({"level": "char", "characters": "ba"}, "in the order"),
        ({"level": "word", "words": ["<unk>", "\udcff"]}, "half a surrogate pair"),
        ({"level": "word", "words": ["<unk>", "a", "a"]}, "each once"),
        ({"level": "word", "words": ["a", "b"]}, "begin with <unk>"),
        ({"level": "word", "words": ["<unk>", 3]}, "list of strings"),
        ({"level": "word", "words": {"<unk>": 0}}, "list of strings"),
        ({"level": ["word"]}, "unhashable"),
        ({"level": "bpe", "tokenizer": {"model": {"vocab": {"\ud800": 0}}}}, "half a surrogate pair"),
    ],
)
def test_vocabularies_from_elsewhere(stored, expected, tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(stored))
    with pytest.raises(RunError, match=f"vocabulary.json: not a vocabulary of this program.*{expected}"):
        load_vocabulary(path)
