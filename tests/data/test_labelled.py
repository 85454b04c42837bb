"""Labelled texts in four formats, what is refused with its line, and batches of them."""

import csv
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.batch import batches_by_length
from unrolled.data.class_batches import (
    ClassBatches,
    EncodedTexts,
    cut,
    load_texts,
    make_batch,
    save_texts,
    stratified,
)
from unrolled.data.labelled import format_of, iterate_labelled, read_labelled, repeats
from unrolled.errors import DataError, RunError

CSV = 'id,text,label\n1,"Good, ""really""\ngood",pos\n\n2,bad,neg\n'
TSV = 'text\tlabel\nan "odd quote\tpos\n'


def write(path, text):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def pairs(path, *columns, **options):
    return [(one.text, one.labels) for one in iterate_labelled(path, *columns, **options)]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables(tmp_path, name, end):
    path = write(tmp_path / name, "\ufeff" + CSV.replace("\n", end))
    assert pairs(path) == [('Good, "really"\ngood', ("pos",)), ("bad", ("neg",))]
    assert pairs(path, "label", "id") == [("pos", ("1",)), ("neg", ("2",))]
    assert pairs(path, with_labels=False)[1] == ("bad", ())
    assert [one.where for one in iterate_labelled(path)] == ["line 2", "line 5"]
    assert pairs(write(tmp_path / "a.tsv", TSV)) == [('an "odd quote', ("pos",))]


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
LABEL = PLAIN.filter(lambda text: text.strip())


@given(st.lists(st.tuples(PLAIN, LABEL), max_size=5))
def test_what_a_table_is_written_with_is_read_again(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        assert pairs(path) == [(text, (label,)) for text, label in rows]


def test_json_lines(tmp_path):
    lines = [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": "c", "label": True}]
    path = write(tmp_path / "a.jsonl.gz", "\n\n".join(map(json.dumps, lines)))
    assert pairs(path) == [("a", ("x",)), ("b", ("1",)), ("c", ("true",))]
    path = write(tmp_path / "b.json", '{"t": "a", "l": ["x", "y", "x"]}\n{"t": "b", "l": []}\n')
    found = read_labelled(path, "t", "l")
    assert found.multi
    assert [one.labels for one in found.texts] == [("x", "y"), ()]


def test_a_folder_with_a_sub_folder_for_every_class(tmp_path):
    folder, files = tmp_path / "train", {"pos/1.txt": "good\nfilm\n", "neg/1.txt.gz": "bad", "neg/.x": "x", "a": "x"}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        write(folder / name, text)
    assert format_of(folder) == "folder"
    assert pairs(folder) == [("bad", ("neg",)), ("good\nfilm", ("pos",))]
    with pytest.raises(DataError, match="train: holds folders; name"):
        read_labelled(tmp_path)
    with pytest.raises(DataError, match="no sub-folders"):
        read_labelled(folder / "pos")


def test_empty_texts_are_counted_and_left_out(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n" ",pos\nfine,pos\n"",neg\n')
    found = read_labelled(path)
    assert [one.text for one in found.texts] == ["fine"]
    assert found.notes == [f"{path}: 2 texts are empty and left out, first line 2"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "review,label\na,b\n", "has no column 'text' but 'review', 'label'; name it with `text_column`"),
        ("a.csv", "text,class\na,b\n", "has no column 'label' but 'text', 'class'; name it with `label_column`"),
        ("a.csv", "", "has no column 'text' but none"),
        ("a.csv", "text,text,label\na,b,c\n", "there are 2 columns 'text'"),
        ("a.csv", "text,label\na,b\nc,d,e\n", "line 3 has 3 columns, the header has 2"),
        ("a.csv", 'text,label\n"a\nb",c\nd\n', "line 4 has 1 column, the header has 2"),
        ("a.csv", "text,label\na,\n", "line 2 has an empty label"),
        ("a.csv", 'text,label\n"a,b\n', "is not CSV .*a quote that is not closed"),
        ("a.csv", b"text,label\n\xff,b\n", "line 2 is not UTF-8"),
        ("a.csv", "text,label\n", "there are no texts in it"),
        ("a.jsonl", '{"text": "a"}\n', "line 1 has no column 'label' but 'text'"),
        ("a.jsonl", '{"text": 3, "label": "x"}\n', "line 1: 'text' is not a string"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "line 1: 'label' is null, not a label"),
        ("a.jsonl", '{"text": "a", "label": ["x", 1]}\n', "line 1: 'label' is "),
        ("a.jsonl", '{"text": "a", "label": " "}\n', "line 1 has an empty label"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": ["x"]}', "line 2 has a list of labels, the"),
        ("a.jsonl", '["a"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.jsonl", '{"text": "\\ud800", "label": "x"}', "line 1 has half a surrogate pair"),
        ("a.txt", "a\n", "its name ends in none of"),
    ],
)
def test_what_is_refused(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said):
        read_labelled(write(tmp_path / name, text))


def test_repeated_texts_are_noted(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,x\na,y\nb,x\n")
    train = read_labelled(path).texts
    assert repeats(train, train[2:])[0].startswith("1 text of the dev part is also in training")
    assert repeats(train, [])[-1] == "1 text occurs in training with different labels"
    assert repeats(train[1:], []) == []


@given(st.lists(st.sampled_from("abc"), max_size=60), st.floats(0, 0.99), st.integers(0, 9))
def test_the_split_keeps_the_share_of_every_class(labels, fraction, seed):
    ours, theirs = stratified(labels, fraction, seed)
    assert sorted(ours + theirs) == list(range(len(labels)))
    assert abs(len(theirs) - fraction * len(labels)) <= 0.5 + 1e-9
    held = Counter(labels[k] for k in theirs)
    for label, count in Counter(labels).items():
        assert abs(held[label] - fraction * count) <= 1 + 1e-9
    assert stratified(labels, fraction, seed) == (ours, theirs)


def test_the_split_is_drawn_by_the_seed():
    assert stratified(["a"] * 100, 0.2, 1) != stratified(["a"] * 100, 0.2, 2)


def test_what_is_read_of_a_long_text():
    tokens = np.arange(7)
    assert cut(tokens, 3, "start").tolist() == [0, 1, 2]
    assert cut(tokens, 3, "end").tolist() == [4, 5, 6]
    assert cut(tokens, 3, "both").tolist() == [0, 5, 6]
    assert cut(tokens, 7, "both").tolist() == cut(tokens, 0, "end").tolist() == tokens.tolist()


def some_texts(count=50):
    return EncodedTexts([np.full(1 + k % 7, k) for k in range(count)], np.arange(count) % 3)


def test_a_pass_reads_every_text_once_and_in_the_same_order_again():
    texts = some_texts()
    one, other = (ClassBatches(texts, 8, (1, 2)) for _ in range(2))
    assert sorted(k for some in one.batches for k in some) == list(range(50))
    assert [some.tolist() for some in one.batches] == [some.tolist() for some in other.batches]
    assert len(one) == 7
    batch = one.batch(0)
    for row, (tokens, length, target) in enumerate(zip(batch.inputs.t(), batch.lengths, batch.targets, strict=True)):
        k = int(one.batches[0][row])
        assert tokens[:length].tolist() == texts.tokens[k].tolist()
        assert not tokens[length:].any()
        assert target == k % 3


def test_dropped_tokens_are_those_of_the_seed_and_never_all():
    texts = EncodedTexts([np.arange(1, 41)] * 10, np.zeros(10))
    one, same, other = (ClassBatches(texts, 10, (seed, 0), 0.25).batch(0) for seed in (1, 1, 2))
    assert one.inputs.tolist() == same.inputs.tolist() != other.inputs.tolist()
    assert 0.6 < float(one.lengths.double().mean()) / 40 < 0.9
    assert all((row[1:] - row[:-1] > 0).all() for row in (one.inputs[:n, k] for k, n in enumerate(one.lengths)))
    assert ClassBatches(some_texts(), 50, (1, 0), 0.99).batch(0).lengths.min() == 1


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 100))
def test_batches_by_length(lengths, most):
    found = list(batches_by_length(lengths, most))
    assert sorted(k for some in found for k in some) == list(range(len(lengths)))
    assert all(len(some) == 1 or len(some) * max(lengths[k] for k in some) <= most for some in found)


def test_frames_make_a_batch_too():
    batch = make_batch([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)], np.array([0, 1]))
    assert batch.inputs.shape == (4, 2, 3)
    assert batch.inputs[:, 0].sum() == 6
    assert batch.rows(0, 1).lengths.tolist() == [2]
    assert batch.count == 2


@pytest.mark.parametrize("targets", [np.arange(50) % 3, np.arange(100).reshape(50, 2) % 2])
def test_texts_are_stored(tmp_path, targets):
    texts = EncodedTexts(some_texts().tokens, targets)
    save_texts(tmp_path / "a.safetensors", {"train": texts, "dev": EncodedTexts([], targets[:0])})
    found = load_texts(tmp_path / "a.safetensors")
    assert [one.tolist() for one in found["train"].tokens] == [one.tolist() for one in texts.tokens]
    assert found["train"].targets.tolist() == targets.tolist()
    assert len(found["dev"]) == 0
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="no encoded texts here"):
        load_texts(tmp_path / "a.safetensors")
