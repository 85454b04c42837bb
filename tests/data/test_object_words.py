"""Which words of captions name objects, in captions made by a small grammar and in real ones."""

import os
import random
from pathlib import Path

import pytest

from unrolled.data.caption_tokens import caption_tokens
from unrolled.data.captions import read_captions, read_names
from unrolled.data.object_words import Mention, ObjectWords

ANIMALS, THINGS, PLACES = ("dog", "cat", "horse"), ("ball", "stick"), ("beach", "road")
ADJECTIVES, VERBS = ("brown", "small", "happy", "red"), ("runs", "jumps", "barks")


def captions(count=600, seed=0):
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        who, adjective, verb = draw.choice(ANIMALS), draw.choice(ADJECTIVES), draw.choice(VERBS)
        place, thing = draw.choice(PLACES), draw.choice(THINGS)
        found.append(
            draw.choice(
                [
                    f"a {adjective} {who} {verb} down the {place}",
                    f"a {who} is jumping in the air with a {adjective} {thing}",
                    f"the {who} {verb} with the {thing} in its mouth",
                    f"two {adjective} {who}s are running on the {place}",
                    f"two {who}s play with a {thing}",
                    f"a {who} in front of the {place} with a {thing}",
                ]
            ).split()
        )
    return [[caption] for caption in found]


@pytest.fixture(scope="module")
def words():
    return ObjectWords.learn(captions())


def test_objects_of_a_grammar(words):
    assert set(words.labels) == {*ANIMALS, *THINGS, *PLACES}


def test_objects_that_always_have_a_colour():
    shapes = [[f"a {colour} {shape} above a {size} square".split()] for colour in ("red", "blue")
              for shape in ("circle", "star") for size in ("big", "small") for _ in range(5)]  # fmt: skip
    assert set(ObjectWords.learn(shapes).labels) == {"circle", "star", "square"}


def test_plurals_have_the_label_of_the_singular(words):
    assert [words.form_of[who + "s"] for who in ANIMALS] == list(ANIMALS)


def test_rare_objects_are_left_out():
    rare = [[f"a {word}kite is on the road".split()] for word in ["red "] * 5 + [""] * 4]
    assert "kite" not in ObjectWords.learn(captions() + rare).labels
    assert "kite" in ObjectWords.learn(captions() + rare, fewest=9).labels


def test_captions_without_objects():
    assert ObjectWords.learn([[["running"]], [[]], []]).labels == ()


def test_mentions(words):
    tokens = ["a", "big", "brown", "and", "red", "dog", "chases", "red", "ball", "near", "two", "horses"]
    assert words.mentions(tokens) == [
        Mention(5, 0, "dog", ("brown", "red")),
        Mention(8, 6, "ball", ("red",)),
        Mention(11, 10, "horse", (), plural=True),
    ]


def test_of_a_compound_the_last_counts(words):
    assert [one.label for one in words.mentions(["a", "dog", "ball", "on", "the", "beach", "road"])] == ["ball", "road"]


def test_the_colour_of_another_object_is_not_taken(words):
    found = words.mentions(["a", "brown", "dog", "and", "a", "cat"])
    assert [(one.label, one.colours) for one in found] == [("dog", ("brown",)), ("cat", ())]


def test_objects_of_real_captions():
    root = Path(os.environ.get("UNROLLED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "flickr8k"
    if not root.exists():
        pytest.skip(f"needs flickr8k below {root.parent} (set UNROLLED_DATA)")
    names = read_names(root / "Flickr_8k.trainImages.txt")
    pictures = [one for one in read_captions(root / "Flickr8k.token.txt", need_files=False)[0] if one.name in names]
    found = ObjectWords.learn([[caption_tokens(text) for text in one.captions] for one in pictures[:2500]])
    known = {"man", "woman", "person", "dog", "child", "shirt", "grass", "water", "ball", "street", "beach", "building"}
    assert known <= set(found.labels)
    others = {"brown", "running", "runs", "jumping", "front", "group", "air", "background", "wearing", "mouth", "small"}
    assert not others & set(found.labels)
    assert found.form_of["people"] == "person"
    assert found.form_of["men"] == "man"
