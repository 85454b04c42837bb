"""Sentence pairs: files, plain and gzip, to batches and back."""

import gzip
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.data.pairs import (
    PADDING,
    PairBatches,
    Pairs,
    Sentences,
    decode_line,
    encode_line,
    encode_pairs,
    load_pairs,
    open_lines,
    read_line_pairs,
    save_pairs,
)
from unrolled.data.tokens import LEVELS, learn_vocabulary
from unrolled.errors import DataError, RunError

LINES = ["Zwei Männer.", "", "Ein  Hund\u2028läuft\x0b schnell", "世界 😀", "x"]


@pytest.fixture(params=["plain", "gzip"])
def write(request, tmp_path):
    def write(name, lines, end="\n"):
        data = "".join(line + end for line in lines).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if request.param == "gzip" else data)
        return str(path)

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_what_lies_between_line_feeds(write, end):
    assert list(open_lines(write("a", LINES, end))) == LINES


def test_a_byte_order_mark_and_a_missing_last_line_end(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert list(open_lines(str(tmp_path / "a"))) == ["one", "two"]


def test_files_that_do_not_fit_together(write, tmp_path, monkeypatch):
    one, other = write("a", LINES), write("b", LINES[1:])
    assert read_line_pairs(one, one) == (LINES, LINES)
    with pytest.raises(DataError, match=r"5 lines and .* has 4"):
        read_line_pairs(one, other)
    with pytest.raises(DataError, match="No such file"):
        read_line_pairs(one, str(tmp_path / "none"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    with pytest.raises(DataError, match="standard input can be read only once"):
        read_line_pairs("-", "-")


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "a").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"line 2 is not UTF-8 text .byte 2"):
        list(open_lines(str(tmp_path / "a")))
    (tmp_path / "b").write_bytes(gzip.compress(b"good\n" * 1000)[:-20])
    with pytest.raises(DataError, match="damaged gzip"):
        list(open_lines(str(tmp_path / "b")))


@pytest.mark.parametrize("level", LEVELS)
def test_a_line_comes_back_with_single_spaces(level):
    text = "Zwei Männer gehen, schnell (sehr).\n" * 5 + "Ein Hund läuft. 'Was?' 世界 😀\n" * 5
    vocabulary = learn_vocabulary(level, lambda: iter([text]), size=400 if level == "bpe" else None)
    for line in text.splitlines():
        assert decode_line(vocabulary, encode_line(vocabulary, f" {line}  ")) == line
    assert len(encode_line(vocabulary, "")) == len(encode_line(vocabulary, " \u2028 ")) == 0


def pairs_of(lengths):
    random = np.random.default_rng(0)
    sides = zip(*([random.integers(0, 50, size=n) for n in pair] for pair in lengths), strict=True)
    return Pairs(*(Sentences.of(list(side)) for side in sides))


def test_pairs_are_kept_in_a_file(tmp_path):
    pairs, empty = pairs_of([(3, 2), (1, 4)]), Pairs(Sentences.of([]), Sentences.of([]))
    save_pairs(tmp_path / "p", {"train": pairs, "validation": empty})
    back = load_pairs(tmp_path / "p")
    assert [back["train"].source[k].tolist() for k in range(2)] == [pairs.source[k].tolist() for k in range(2)]
    assert back["train"].target[1].tolist() == pairs.target[1].tolist()
    assert len(back["validation"]) == 0
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:-3])
    with pytest.raises(RunError, match="no encoded sentence pairs"):
        load_pairs(tmp_path / "p")


def test_pairs_without_a_sentence_or_too_long_are_left_out():
    vocabulary = learn_vocabulary("byte", lambda: iter(()))
    kept = encode_pairs((["a", "", "b", "long", "c"], ["x", "y", " ", "z", "long"]), vocabulary, vocabulary, 3)
    assert len(kept) == 1
    assert kept.source[0].tolist() == [ord("a")]


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40),
    st.integers(1, 7),
    st.integers(0, 5),
)
def test_a_pass_holds_every_pair_once(lengths, batch_size, seed):
    pairs = pairs_of(lengths)
    batches = PairBatches(pairs, batch_size, (50, 51), (seed, 0), bucket=3)
    seen = []
    for number in range(len(batches)):
        batch = batches.batch(number)
        source, target = batch.inputs, batch.targets
        assert source.size(1) == target.size(1) <= batch_size
        for columns in zip(source.T.tolist(), target.T.tolist(), strict=True):
            sentences = []
            for column, end in zip(columns, (50, 51), strict=True):
                length = column.index(end)
                assert set(column[length + 1 :]) <= {PADDING}
                sentences.append(tuple(column[:length]))
            seen.append(tuple(sentences))
    expected = [(tuple(pairs.source[k].tolist()), tuple(pairs.target[k].tolist())) for k in range(len(pairs))]
    assert sorted(seen) == sorted(expected)


def test_batches_hold_little_padding_in_an_order_of_their_own():
    lengths = np.random.default_rng(1).integers(1, 40, size=1000)
    pairs = pairs_of([(n, n) for n in lengths])
    first, again, other = (PairBatches(pairs, 16, (50, 50), (1, number)) for number in (0, 0, 1))
    counted = [first.batch(k).targets for k in range(len(first))]
    assert sum(int((target < 0).sum()) for target in counted) < 0.05 * sum(target.numel() for target in counted)
    assert all((a == b).all() for a, b in zip(first.batches, again.batches, strict=True))
    assert any((a != b).any() for a, b in zip(first.batches[:-1], other.batches[:-1], strict=False) if len(a) == len(b))
    with pytest.raises(DataError, match="no sentence pair"):
        PairBatches(Pairs(Sentences.of([]), Sentences.of([])), 4, (1, 1), (0,))
