"""Word vectors in and out of files."""

import gzip
import json

import numpy as np
import pytest

from unrolled.data.vectors import read_vectors, write_vectors
from unrolled.errors import DataError


@pytest.mark.parametrize("header", [False, True])
def test_written_vectors_are_read_back(header, tmp_path):
    path = tmp_path / "vectors.txt"
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    write_vectors(path, ["one", "zwölf", "a b"], values, header)
    assert path.read_text(encoding="utf-8").startswith("3 4\n" if header else "one ")
    found = read_vectors(path)
    assert found.words == ("one", "zwölf", "a_b")
    assert np.allclose(found.values, values, atol=1e-5)
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
        ("v.txt", b"9 2\none 1 2\ntwo 1 2\n", "tells of 9 words, and 2 are there"),
        ("v.txt.gz", gzip.compress(b"one 1 2\n", mtime=0)[:-9], "cannot be read"),
        ("v.txt.gz", b"one 1 2\n", "cannot be read"),
        ("v.json", b"[1]", "expected an object"),
        ("v.json", b'{"a": [1], "b": [1, 2]}', "v.json:'b': 2 numbers, and 1 before"),
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
