"""Lists, folders and archives of things with transcripts, and parts by speaker or book."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.transcripts import as_features, plain_text, read_items, split_by_group
from unrolled.errors import ConfigurationError, DataError


def found_in(path, **columns):
    return [(item.name, item.text) for item in read_items(path, **columns)]


def test_a_folder_with_a_transcript_next_to_each_file(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.wav", "b.PNG", "deep/c.flac", "alone.wav", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("one  two\n")
    (tmp_path / "b.gt.txt").write_text("e\u0301\n")  # composed to é
    (tmp_path / "deep" / "c.txt").write_text("")
    (tmp_path / ".hidden.txt").write_text("x")
    assert found_in(tmp_path) == [("a.wav", "one two"), ("b.PNG", "é"), ("deep/c.flac", "")]
    assert [item.kind for item in read_items(tmp_path)] == ["audio", "pictures", "audio"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.tsv", "a.wav\tone, two\tspeaker\nb.wav\tthree\tother\n"),
        ("list.tsv", "speaker\tsentence\tpath\ns\tone, two\ta.wav\nt\tthree\tb.wav\n"),
        ("list.csv", 'file,text\na.wav,"one, two"\nb.wav,three\n'),
        ("list.jsonl", '{"audio": "a.wav", "text": "one, two"}\n\n{"audio": "b.wav", "text": "three"}\n'),
        (
            "list.json",
            '{"audio_filepath": "a.wav", "text": "one, two"}\n{"audio_filepath": "b.wav", "text": "three"}\n',
        ),
    ],
)
def test_lists(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        assert found_in(path) == [("a.wav", "one, two"), ("b.wav", "three")]
        assert read_items(path)[0].source == tmp_path / "a.wav"


def test_columns_by_name(tmp_path):
    (tmp_path / "list.csv").write_text("x,y\na.wav,one\n")
    assert found_in(tmp_path / "list.csv", file_column="x", text_column="y") == [("a.wav", "one")]
    with pytest.raises(DataError, match=r"line 1 has no 'z', only x, y; name it with `text_column`"):
        read_items(tmp_path / "list.csv", "x", "z")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "a.wav,one\nb.wav\n", "line 2 has 1 columns, the first line has 2"),
        ("a.csv", "a.wav\n", "line 1 has one column"),
        ("a.csv", "", "no transcripts"),
        ("a.csv", "a.wav,one\na.wav,two\n", "a.wav is in it twice"),
        ("a.csv", "file,text\n,two\n", "names no file"),
        ("a.jsonl", '{"file": "a.wav"}\n', "line 1 has none of text, transcript"),
        ("a.jsonl", '{"file": "a.wav", "text": 3}\n', "must be strings"),
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.npz", "x", "not an archive of NumPy arrays"),
        ("a.csv", 'file,text\na.wav,"one\nb.wav,two\n', "line 3 cannot be read as a table"),  # nothing closes it
        ("a.csv", "file,text\na.wav," + "x" * 200_000 + "\n", "line 2 cannot be read as a table"),
        ("a.csv", "file,text\ra.wav,one\r", "line 1 cannot be read as a table"),
        ("a.csv", "file,text,text\na.wav,one,two\n", "line 1 has two columns 'text'"),
        ("a.csv", "sound,words\na.wav,one\n", "line 1 is no header with `file` and `text`, and 'sound' is not"),
        ("a.wav", "RIFF", "a single file has no transcript"),
    ],
)
def test_bad_lists_are_one_clear_error(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        read_items(tmp_path / name)


def test_an_archive_of_features(tmp_path):
    frames = np.arange(20, dtype=np.float16).reshape(10, 2)
    np.savez(tmp_path / "a.npz", frames=frames, offsets=[0, 4, 10], text=["one", ""], names=["s1-a", "s2-b"])
    first, second = read_items(tmp_path / "a.npz")
    assert (first.name, first.text, first.kind) == ("s1-a", "one", "features")
    assert np.array_equal(second.source, frames[4:])
    np.savez(tmp_path / "b.npz", frames=frames, offsets=[0, 4, 11], text=["one", ""])
    with pytest.raises(DataError, match="do not fit together"):
        read_items(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", frames=frames)
    with pytest.raises(DataError, match="and holds frames"):
        read_items(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"text": np.array("one")}, "do not fit together"),
        ({"text": [["one"], ["two"]]}, "do not fit together"),
        ({"text": np.array(["one", "two"], "S")}, "`text` must be strings"),  # not "b'one'"
        ({"names": np.array(["one", "two"], "S")}, "`names` must be strings"),
        ({"offsets": ["0", "4", "10"]}, "`offsets` must be whole numbers"),
        ({"offsets": [0, 3.5, 10]}, "`offsets` must be whole numbers"),
        ({"offsets": np.array([0, 10, 4], np.uint64)}, "do not fit together"),
        ({"frames": np.zeros((10, 0))}, "do not fit together"),
        ({"text": np.array(["one", "two"], object)}, "it holds Python objects"),
    ],
)
def test_bad_archives_are_one_clear_error(tmp_path, arrays, reason):
    good = {"frames": np.zeros((10, 2)), "offsets": [0, 4, 10], "text": ["one", "two"]}
    np.savez(tmp_path / "a.npz", **{**good, **arrays})
    with pytest.raises(DataError, match=reason):
        read_items(tmp_path / "a.npz")


def test_names_that_are_not_text_are_readable(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"file": "\\ud800.wav", "text": "\\ud800"}\n')
    assert found_in(tmp_path / "a.jsonl") == [("\ufffd.wav", "\ufffd")]
    np.savez(tmp_path / "a.npz", frames=np.zeros((4, 2)), offsets=[0, 4], text=["one"], names=["\ud800"])
    assert found_in(tmp_path / "a.npz") == [("\ufffd", "one")]


def test_features_must_be_finite_matrices(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    np.save(tmp_path / "b.npy", np.array([[np.inf]]))
    np.save(tmp_path / "c.npy", np.ones(3))
    (tmp_path / "list.csv").write_text("".join(f"{name}.npy,x\n" for name in "abcd"))
    good, infinite, flat, missing = read_items(tmp_path / "list.csv")
    assert as_features(good).shape == (3, 2)
    for item, reason in [(infinite, "not finite"), (flat, r"must be numbers \[T, D\]"), (missing, "No such file")]:
        with pytest.raises(DataError, match=reason):
            as_features(item)
    (tmp_path / "list.csv").write_text("a.wav,x\na.xyz,y\n")
    with pytest.raises(DataError, match="neither a recording nor a picture"):
        _ = read_items(tmp_path / "list.csv")[1].kind


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 99)), min_size=2, max_size=40, unique=True))
def test_groups_are_held_out_whole(pairs):
    names = [f"{k}_{group}_x" for group, k in pairs]
    groups = [group for group, _ in pairs]
    if len(set(groups)) == 1:
        with pytest.raises(DataError, match="all items are of one group"):
            split_by_group(names, "_(.*)_", 0.2, 1)
        return
    held = split_by_group(names, "_(.*)_", 0.2, 1)
    out = {group for group, is_out in zip(groups, held, strict=True) if is_out}
    assert {group for group, is_out in zip(groups, held, strict=True) if not is_out} & out == set()
    assert 0 < held.sum() < len(names)
    assert np.array_equal(held, split_by_group(names, "_(.*)_", 0.2, 1))


def test_splits_without_groups_and_wrong_patterns():
    names = [str(k) for k in range(100)]
    assert split_by_group(names, "", 0.1, 1).sum() == 10
    assert not split_by_group(names, "", 0.0, 1).any()
    assert not np.array_equal(split_by_group(names, "", 0.1, 1), split_by_group(names, "", 0.1, 2))
    with pytest.raises(ConfigurationError, match="not a regular expression"):
        split_by_group(names, "(", 0.1, 1)
    with pytest.raises(ConfigurationError, match="part in parentheses"):
        split_by_group(names, "_.*_", 0.1, 1)
    with pytest.raises(DataError, match="does not match this name"):
        split_by_group(names, "_(.*)_", 0.1, 1)


def test_texts_are_composed_and_single_spaced():
    assert plain_text("  a\u0364 \t b\n") == "a\u0364 b"
    assert json.dumps(plain_text("e\u0301")) == '"\\u00e9"'
