"""Word vectors in and out of files."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unrolled.data.vectors import read_vectors, write_vectors
from unrolled.errors import DataError


@pytest.mark.parametrize("header", [False, True])
def test_written_vectors_are_read_back(header, tmp_path):
    path = tmp_path / "vectors.txt"
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    write_vectors(path, ["one", "zwölf", "a_b"], values, header)
    assert path.read_text(encoding="utf-8").startswith("3 4\n" if header else "one ")
    found = read_vectors(path)
    assert found.words == ("one", "zwölf", "a_b")
    assert np.array_equal(found.values, values)
    assert read_vectors(path, only={"zwölf", "other"}).words == ("zwölf",)


def test_words_with_spaces_and_json(tmp_path):
    text, stored = tmp_path / "v.txt", tmp_path / "v.json"
    text.write_text("one 1 2 3\n. . . 4 5 6\none 7 8 9\n")
    assert read_vectors(text).words == ("one", ". . .")
    assert read_vectors(text).values[0].tolist() == [1, 2, 3]
    stored.write_text(json.dumps({"one": [1, 2], "two": [3, 4]}))
    assert read_vectors(stored).width == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("v.txt", b"one 1 2\ntwo 1\n", "v.txt:2: "),
        ("v.txt", b"one 1 x\n", "not word vectors"),
        ("v.txt", b"one 1 nan\n", "finite"),
        ("v.txt", b"", "holds no vector"),
        ("v.txt", b"\xff\xfe 1 2\n", "not text in UTF-8"),
        ("v.txt", b"9 2\none 1 2\ntwo 1 2\n", "states 9 words, but it has 2"),
        ("v.txt.gz", gzip.compress(b"one 1 2\n", mtime=0)[:-9], "cannot be read"),
        ("v.txt.gz", b"one 1 2\n", "cannot be read"),
        ("v.txt", b"one 1 2\ntwo 1 x\n", "v.txt:2: not word vectors"),
        ("v.txt", b"one 1 2\ntwo 1 inf\n", "v.txt:2: not all numbers are finite"),
        ("v.json", b"[1]", "expected an object"),
        ("v.json", b'{"a": [[1]]}', "v.json:'a': "),
        ("v.json", b'{"a": "12"}', "v.json:'a': not word vectors"),
        ("v.json", b'{"a": {"b": 1}}', "v.json:'a': not word vectors"),
        ("v.json", b'{"a":\n}', "v.json: not JSON .*line 2"),
        ("v.json", b'{"a": [1], "b": [1, 2]}', "v.json:'b': 2 numbers, but 1 in the entries before"),
    ],
)
def test_files_that_are_none(name, content, expected, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_vectors(path)
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none.txt")


def test_packed_by_gzip(tmp_path):
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress("2 3\none 1 2 3\nzwölf 4 5 6\n".encode()))
    assert read_vectors(path).words == ("one", "zwölf")


ODD = ["", " ", "_", "\n", "\r", "\t", "\0", "\x0c", "\x85", "\u00a0", "\u2028", "\ufeff", "\ud800", "<", "5", "2 2"]
ESCAPES = ["<U+0020>", "<U+003C>", "<U+>", "U+0020>", "<U+0041>", "<U+00020>", "<U+D800>", "<U+110000>", "<u+0020>"]
WORDS = st.one_of(
    st.text(max_size=6),
    st.lists(st.sampled_from([*ODD, *ESCAPES]), max_size=4).map("".join),
    st.text(st.sampled_from("<U+0203CFE> _"), max_size=9),
)


@settings(max_examples=150)
@given(st.lists(WORDS, unique=True, min_size=1, max_size=8), st.integers(1, 3), st.booleans(), st.booleans())
@example([*ODD, *ESCAPES], 2, True, False)
@example(["hello", "my name", "my_name", " "], 1, True, True)
@example(["1", "x"], 1, False, True)  # a first line that could be a header's
@example(["", "5"], 1, False, True)
def test_any_words_come_back_with_the_same_numbers(tmp_path_factory, words, width, header, whole):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    values = (3 * np.random.default_rng(len(words)).standard_normal((len(words), width))).astype(np.float32)
    values = values.round() if whole else values * np.float32(1e-20)
    write_vectors(path, words, values, header)
    found = read_vectors(path)
    assert found.words == tuple(words)
    assert np.array_equal(found.values, values)
    lines = path.read_text(encoding="utf-8").splitlines()  # as strict programs split them
    assert len(lines) == len(words) + header
    assert all(len(line.split()) == width + 1 for line in lines[header:])


def test_plain_words_are_written_as_they_are(tmp_path):
    words = ["zwölf", "a_b", "<unk>", "</s>", "<U+0041>", "U+0020", "世界", "😀", "#", '"']
    write_vectors(tmp_path / "v.txt", words, np.ones((len(words), 1)))
    lines = (tmp_path / "v.txt").read_text(encoding="utf-8").split("\n")
    assert [line.split(" ")[0] for line in lines[1:-1]] == words
    write_vectors(tmp_path / "v.txt", ["a b", "", "\n"], np.ones((3, 1)), header=False)
    assert (tmp_path / "v.txt").read_text() == "a<U+0020>b 1.0\n<U+> 1.0\n<U+000A> 1.0\n"


def test_what_could_not_be_read_back_is_refused(tmp_path):
    path = tmp_path / "v.txt"
    with pytest.raises(DataError, match=r"v\.txt: 2 vectors are of the same word, 'a'"):
        write_vectors(path, ["a", "b", "a"], np.ones((3, 1)))
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(DataError, match=r"v\.txt: the vector of 'b' is not all finite"):
            write_vectors(path, ["a", "b"], np.array([[1, 2], [3, value]]))
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "words", "values"),
    [
        ("the 1 2\n\nof\t3  4\t\n", ("the", "of"), [[1, 2], [3, 4]]),
        (" one 1 2\n\ttwo 3 4\n", ("one", "two"), [[1, 2], [3, 4]]),
        (" 1.5 2\ntwo 3 4\n", ("", "two"), [[1.5, 2], [3, 4]]),
        ("2 2\n 1 2\ntwo 3 4\n", ("", "two"), [[1, 2], [3, 4]]),
        ("a 1 2\nb  c\td 3 4\n", ("a", "b  c\td"), [[1, 2], [3, 4]]),
        ("\u00a0 1 2\na\u3000b 3 4\n", ("\u00a0", "a\u3000b"), [[1, 2], [3, 4]]),
    ],
)
def test_the_format_is_loose(text, words, values, tmp_path):
    (tmp_path / "v.txt").write_text(text, encoding="utf-8")
    found = read_vectors(tmp_path / "v.txt")
    assert (found.words, found.values.tolist()) == (words, values)


def test_of_a_word_twice_in_json_the_first_counts(tmp_path):
    (tmp_path / "v.json").write_text('{"a": [1], "a": [2], "b": [3]}')
    assert read_vectors(tmp_path / "v.json").values.tolist() == [[1], [3]]
    (tmp_path / "v.json.gz").write_bytes(gzip.compress(b'{"a": [1]}'))
    assert read_vectors(tmp_path / "v.json.gz").words == ("a",)
