"""Tagged sentences in three formats: what is read, what is written, and what is refused with its line."""

import gzip

import pytest

from unrolled.data.tag_batches import Index, TagBatches, TagEncoder, normalise
from unrolled.data.tagged import TaggedSentence, read_tagged, write_tagged
from unrolled.errors import DataError

CONLL = "-DOCSTART- -X- O\n\nWolff NC B-PER\n, Fc O\n\n\nEl DA O\nClub NC B-ORG\n"
CONLLU = (
    "# text = Vámonos al mar\n1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_\n1\tVamos\tir\tVERB\tV\t_\t0\troot\t_\t_\n"
    "2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_\n2.1\t_\t_\tNOUN\t_\t_\t_\t_\t_\t_\n\n"
)


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path, column="", **options):
    return [(one.words, one.tags) for one in read_tagged(path, column, **options)]


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.conll.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns(tmp_path, name, end):
    path = write(tmp_path / name, CONLL.replace("\n", end))
    assert read(path) == [(("Wolff", ","), ("B-PER", "O")), (("El", "Club"), ("O", "B-ORG"))]
    assert read(path, "2")[0][1] == ("NC", "Fc")
    assert read(path, "-2")[0][1] == ("NC", "Fc")
    assert read(path, with_tags=False)[1] == (("El", "Club"), ())


def test_tabs_may_enclose_words_with_spaces(tmp_path):
    path = write(tmp_path / "a.tsv", "New York\tLOC\n10 000\tNUM\n")
    assert read(path) == [(("New York", "10 000"), ("LOC", "NUM"))]


def test_conllu(tmp_path):
    path = write(tmp_path / "a.conllu", CONLLU)
    assert read(path) == [(("Vamos", "nos"), ("VERB", "PRON"))]
    assert read(path, "xpos") == [(("Vamos", "nos"), ("V", "P"))]
    assert read(path, "8") == [(("Vamos", "nos"), ("root", "obj"))]
    (sentence,) = read_tagged(path)
    assert write_tagged(sentence, "conllu") == CONLLU
    other = TaggedSentence(sentence.words, ("A", "B"), sentence.lines)
    assert write_tagged(other, "conllu", "xpos") == CONLLU.replace("\tV\t", "\tA\t").replace("\tP\t", "\tB\t")


def test_words_that_cannot_be_a_column():
    sentence = TaggedSentence(("a\tb", "c\nd"), ("X", "Y"))
    assert write_tagged(sentence, "conll") == "a b\tX\nc d\tY\n\n"
    assert write_tagged(sentence, "conllu").startswith("1\ta b\t_\tX")
    for column in ("1", "2", "11", "-10", "id", "form"):
        with pytest.raises(DataError, match="tags cannot be written there"):
            write_tagged(sentence, "conllu", column)


def test_columns_are_written_as_conllu(tmp_path):
    path = write(tmp_path / "a.conll", "so-so DA O\n1.5 NC B-ORG\n")
    (sentence,) = read_tagged(path)
    assert write_tagged(sentence, "conllu").split("\n")[1].startswith("2\t1.5\t_\tB-ORG")


def test_json_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"words": ["a b", "c"], "tags": ["X", "Y"], "ner": ["O", "O"]}\n\n')
    assert read(path) == [(("a b", "c"), ("X", "Y"))]
    assert read(path, "ner") == [(("a b", "c"), ("O", "O"))]
    (sentence,) = read_tagged(path)
    written = write(tmp_path / "b.jsonl", write_tagged(sentence, "jsonl"))
    assert read(written) == read(path)
    other = TaggedSentence(sentence.words, ("P", "Q"), entry=sentence.entry)
    written = write(tmp_path / "c.jsonl", write_tagged(other, "jsonl", "ner"))
    assert (read(written)[0][1], read(written, "ner")[0][1]) == (("X", "Y"), ("P", "Q"))


@pytest.mark.parametrize("form", ["conll", "conllu", "jsonl"])
def test_what_is_written_is_read_again(tmp_path, form):
    sentence = TaggedSentence(("El", "Club"), ("O", "B-ORG"))
    path = write(tmp_path / f"a.{form}", 2 * write_tagged(sentence, form))
    assert read(path) == 2 * [(sentence.words, sentence.tags)]


@pytest.mark.parametrize(
    ("name", "text", "column", "said"),
    [
        ("a.conll", "El DA O\nClub NC\n", "", "line 2 has 2 columns, the lines before it have 3"),
        ("a.conll", "El DA O\n\nClub\n", "", "line 3 has 1 column, the lines before it have 3"),
        ("a.conll", "El\nClub\n", "", "line 1 has no column of tags next to the word"),
        ("a.conll", "El DA O\n", "4", "line 1 has no column of tags"),
        ("a.conll", "El DA O\n", "1", "line 1 has no column of tags"),
        ("a.conll", "El DA O\n", "upos", "'upos': there is no such column .* a number from 1"),
        ("a.conll", "El DA O\n", "0", "'0': there is no such column"),
        ("a.conllu", CONLLU, "postag", "'postag': there is no such column .* one of id, form"),
        ("a.conllu", "1 Vamos ir\n", "", "line 1 has 1 columns; CoNLL-U has 10"),
        ("a.jsonl", '{"words": ["a"]}\n', "", "line 1 has no list of strings 'tags'"),
        ("a.jsonl", '{"words": ["a"], "tags": ["X", "Y"]}\n', "", "line 1 has 1 words and 2 tags"),
        ("a.jsonl", '{"words": ["a"], "tags": [1]}\n', "", "line 1 has no list of strings 'tags'"),
        ("a.jsonl", "[" * 100_000, "", "line 1 is not JSON"),
        ("a.jsonl", '{"words": ["\\ud800"], "tags": ["X"]}', "", "line 1 has half a surrogate pair"),
        ("a.conll", "El\tO\nClub\t\n", "", "line 2 has an empty tag"),
        ("a.jsonl", '{"words": [""], "tags": ["X"]}', "", "line 1 has an empty word"),
        ("a.jsonl", '{"words": ["a"], "tags": [""]}', "", "line 1 has an empty tag"),
        ("a.conll", b"\xff\xfe", "", "line 1 is not UTF-8"),
    ],
)
def test_what_is_refused(tmp_path, name, text, column, said):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        read(path, column)


def test_batches():
    index = Index(["<unk>", "el", "0"])
    encoder = TagEncoder(index, Index(["<unk>", "e", "l", "E"]), Index(["O", "X"]))
    batch = encoder.batch([TaggedSentence(("El", "7"), ("X", "O")), TaggedSentence(("el",), ("?",))])
    assert batch.words.tolist() == [[1, 1], [2, 0]]
    assert batch.lengths.tolist() == [2, 1]
    assert batch.targets.tolist() == [[1, -1], [0, -1]]
    assert batch.spellings.tolist() == [[3, 0, 1], [2, 0, 2]]
    assert batch.spelling_lengths.tolist() == [2, 1, 2]
    assert batch.forms.tolist() == [[0, 2], [1, 0]]
    assert batch.count == 2
    second = batch.rows(1, 2)
    assert (second.words.tolist(), second.lengths.tolist()) == ([[1], [0]], [1])
    assert second.forms.tolist() == [[1], [0]]  # of its own words alone, the padding's among them
    assert second.spellings.tolist() == [[3, 1], [2, 2]]
    assert normalise("MP3 Ü") == "mp0 ü"


def test_a_pass_reads_every_sentence_once_and_in_the_same_order_again():
    sentences = [TaggedSentence(("a",) * (1 + k % 7), ("X",) * (1 + k % 7)) for k in range(50)]
    encoder = TagEncoder(Index(["<unk>"]), Index(["<unk>"]), Index(["X"]))
    one, other = (TagBatches(encoder, sentences, 8, (1, 2)) for _ in range(2))
    assert sorted(k for some in one.batches for k in some) == list(range(50))
    assert [some.tolist() for some in one.batches] == [some.tolist() for some in other.batches]
    assert len(one) == 7
