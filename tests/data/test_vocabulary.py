"""Text to tokens and back, for each level; partial characters while streaming; files that are no vocabulary."""

import json
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unrolled.data import LEVELS, StreamingDecoder, build_vocabulary, load_vocabulary
from unrolled.data.vocabulary import BPEVocabulary, ByteVocabulary, CharacterVocabulary
from unrolled.data.words import UNKNOWN, WordVocabulary, join_words, split_words
from unrolled.errors import ConfigurationError, DataError, RunError

SENTENCE = "Zoë said: grüß dich, naïve 世界!\n"


@pytest.fixture(params=LEVELS)
def vocabulary(request, text_file):
    return build_vocabulary(request.param, [text_file], size=400)


def test_text_goes_there_and_back(vocabulary):
    tokens = vocabulary.encode(SENTENCE * 3)
    assert tokens.dtype == np.int64
    assert tokens.max() < len(vocabulary)
    assert vocabulary.decode(tokens) == SENTENCE * 3
    assert vocabulary.unknown(SENTENCE) == []
    assert len(vocabulary.encode("")) == 0


def test_saved_and_loaded_it_is_the_same(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "v.json")
    again = load_vocabulary(tmp_path / "v.json")
    assert len(again) == len(vocabulary)
    assert np.array_equal(again.encode(SENTENCE), vocabulary.encode(SENTENCE))


def test_streaming_gives_the_same_text_without_broken_characters(vocabulary):
    decoder = StreamingDecoder(vocabulary)
    parts = [decoder.feed(int(token)) for token in vocabulary.encode(SENTENCE * 9)]
    assert "".join(parts) + decoder.finish() == SENTENCE * 9
    assert not any("\ufffd" in part for part in parts)


def test_streaming_of_bytes_that_are_no_text_does_not_hold_back_for_ever():
    decoder = StreamingDecoder(ByteVocabulary())
    parts = [decoder.feed(0xFF) for _ in range(100)]
    assert len("".join(parts) + decoder.finish()) == 100
    assert any(parts)


@given(st.text())
def test_bytes_and_bpe_take_any_text(text):
    bpe = BPEVocabulary.build(lambda: iter([SENTENCE]), 300)
    for vocabulary in (ByteVocabulary(), bpe):
        assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.text(alphabet="abc'’., \"\n\t()é-", max_size=60))
@example(" a  b , c\n d")
def test_words_can_be_joined_again(text):
    assert join_words(split_words(text)) == text


def test_words_are_bare_and_rare_ones_unknown():
    vocabulary = WordVocabulary.build(lambda: iter(["the cat, the dog (the end)\n" * 2 + "rare"]), min_count=2)
    assert vocabulary.words[0] == UNKNOWN
    assert {"the", "cat", "dog", "￭,", "(￭", "￭)"} <= set(vocabulary.words)
    assert vocabulary.words[1] == "the"
    assert vocabulary.unknown("a rare cat") == ["a", "rare"]
    assert vocabulary.decode(vocabulary.encode("the rare cat")) == "the <unk> cat"


def test_words_are_bounded_by_size():
    vocabulary = WordVocabulary.build(lambda: iter(["a a a b b c c"]), min_count=1, max_size=3)
    assert vocabulary.words == [UNKNOWN, "a", "b"]


def test_characters_leave_out_what_they_never_saw():
    vocabulary = CharacterVocabulary("abc")
    assert vocabulary.decode(vocabulary.encode("a😀bzc")) == "abc"
    assert vocabulary.unknown("a😀bz😀") == ["😀", "z"]


def test_bpe_shortens_what_repeats():
    vocabulary = BPEVocabulary.build(lambda: iter([SENTENCE * 50]), 300)
    assert len(vocabulary) <= 300
    assert len(vocabulary.encode(SENTENCE)) < len(SENTENCE) / 2


def test_impossible_requests():
    with pytest.raises(DataError):
        CharacterVocabulary("")
    with pytest.raises(DataError):
        WordVocabulary.build(lambda: iter([]))
    with pytest.raises(ConfigurationError, match="256"):
        BPEVocabulary.build(lambda: iter(["x"]), 100)
    with pytest.raises(ConfigurationError, match="char, word, byte, bpe"):
        build_vocabulary("phoneme", [])


def test_streaming_after_a_prompt_knows_what_stood_before():
    vocabulary = WordVocabulary.build(lambda: iter(["the king, of"]), min_count=1)
    prompt, new = vocabulary.encode("the king"), vocabulary.encode("the king of, king")[2:]
    decoder = StreamingDecoder(vocabulary, prompt)
    assert "".join(decoder.feed(int(token)) for token in new) == " of, king"


def test_bpe_learns_no_merges_across_lines():
    vocabulary = BPEVocabulary.build(lambda: iter(["a\n  b\n" * 500]), 300)
    assert not [token for token in range(len(vocabulary)) if re.search(r"\n.", vocabulary.decode([token]))]


@pytest.mark.parametrize(
    "content",
    [
        '{"level": "bpe", "tokenizer": {"model": 3}}',
        '{"level": "char", "characters": ""}',
        "",
        "{}",
        "[]",
        '{"level": "sound"}',
        '{"level": "char"}',
        json.dumps("char"),
        "\0",
    ],
)
def test_files_that_are_no_vocabulary(content, tmp_path):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(RunError, match="not a vocabulary"):
        load_vocabulary(path)


@given(st.text(st.characters()))
@example("a\ud800\udcff\ud83d")
def test_text_with_halves_of_surrogate_pairs_is_encoded(text):
    bpe = BPEVocabulary.build(lambda: iter([SENTENCE]), 300)
    words = WordVocabulary.build(lambda: iter([SENTENCE]), min_count=1)
    for vocabulary in (ByteVocabulary(), bpe, words, CharacterVocabulary(SENTENCE)):
        vocabulary.decode(vocabulary.encode(text)).encode()


def test_no_vocabulary_is_made_of_halves_of_surrogate_pairs():
    for make in (CharacterVocabulary.build, lambda blocks: WordVocabulary.build(blocks, min_count=1)):
        with pytest.raises(DataError, match="half of a surrogate pair"):
            make(lambda: iter(["a \ud800"]))


def test_bpe_cuts_lines_at_line_feeds_alone():
    bpe = BPEVocabulary.build(lambda: iter(["a \u2028 b\x0c\n" * 500]), 300)
    assert [bpe.decode(bpe.encode(text)) for text in ("a\u2028b\x0c\nc", "\r\r\n")] == ["a\u2028b\x0c\nc", "\r\r\n"]


def test_every_token_has_a_name_of_its_own(vocabulary):
    names = vocabulary.names()
    assert len(names) == len(set(names)) == len(vocabulary)
    for token, name in enumerate(names):
        assert name == vocabulary.decode([token]) or re.fullmatch(r"(<0x[0-9A-F]{2}>)+", name)


def test_names_of_words_are_bare_where_they_can_be():
    words = [UNKNOWN, "the", "￭,", "(￭", ",", "￭(", "￭!￭", "￭;", "￭;￭"]
    assert WordVocabulary(words).names() == [UNKNOWN, "the", "￭,", "(", ",", "￭(", "!", ";", "￭;￭"]
    assert ByteVocabulary().names()[0x41:0x43] == ["A", "B"]
    assert ByteVocabulary().names()[0xC3] == "<0xC3>"
