"""What `inspect` reads of a run: the tokens that its training held out, as they are."""

import numpy as np
import pytest

from tests.cli.shared import trained_on
from unrolled.cli.inspecting import held_out_tokens, labelled_text, open_task, tokens_for
from unrolled.errors import DataError

TEXT = "# Zoë\ndef naïve(x):\n    return 'two words 世界', x\n\n" * 60
WORDS = ("--max-steps", "1", "--sample-every", "0", "--test-fraction", "0.3")


@pytest.fixture(scope="module", params=["char", "byte", "word", "bpe"])
def task(request, tmp_path_factory):
    words = ["--level", request.param, *WORDS, *(["--vocab-size", "280"] if request.param == "bpe" else [])]
    return open_task(trained_on(tmp_path_factory.mktemp(request.param), "text.py", TEXT, *words))


@pytest.mark.parametrize("limit", [1, 40, 403, 10**6])
def test_held_out_tokens_are_the_files(task, limit):
    tokens, kept = held_out_tokens(task, limit), task.split().test
    assert tokens.dtype == np.int64
    assert np.array_equal(tokens, kept[: len(tokens)])
    # As many as make up the characters that were asked for, and no more.
    decode = task.vocabulary.decode
    assert len(decode(tokens)) <= limit
    assert len(tokens) == len(kept) or len(decode(kept[: len(tokens) + 4])) > limit


def test_they_are_neither_decoded_nor_encoded_again(task, monkeypatch):
    monkeypatch.setattr(task.vocabulary, "encode", lambda text: pytest.fail("the tokens were there"))
    tokens = tokens_for(task, None, 100, 2)
    assert np.array_equal(tokens, task.split().test[: len(tokens)])
    with pytest.raises(DataError, match=f"too short to examine: {len(tokens)} tokens that the run knows, 1000 needed"):
        tokens_for(task, None, 100, 1000)
    if task.config.text.level in ("char", "byte"):
        given = labelled_text(task, None, "python", 10**6, ())
        assert task.vocabulary.decode(given.tokens[:3]) == "def"
        assert np.array_equal(given.tokens, task.split().test[-len(given.tokens) :])


@pytest.mark.parametrize("task", ["char", "byte"], indirect=True)
def test_each_token_has_its_character(task):
    given = labelled_text(task, None, "text", 500, ())
    if task.config.text.level == "char":
        characters = task.vocabulary.decode(given.tokens)
    else:  # the first of them may be cut
        raw = bytes(given.tokens.tolist()).decode("utf-8", "surrogateescape")
        characters = "".join(c * len(c.encode("utf-8", "surrogateescape")) for c in raw)
        characters = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in characters)
    assert given.text == characters
    assert all(len(hypothesis.labels) == len(given.tokens) for hypothesis in given.hypotheses)


@pytest.mark.parametrize("task", ["byte"], indirect=True)
def test_bytes_that_are_no_characters_stay_apart(task, monkeypatch):
    part = np.frombuffer(b"\xb8\x96a\xffb\n" * 60, dtype=np.uint8)
    monkeypatch.setattr(task, "split", lambda: type("Split", (), {"test": part, "validation": part}))
    given = labelled_text(task, None, "text", 10**6, ())
    assert np.array_equal(given.tokens, part)
    assert given.text == "\ufffd\ufffda\ufffdb\n" * 60
