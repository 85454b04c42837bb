"""What captions say of objects."""

import pytest

from unrolled.data.colours import COLOURS
from unrolled.data.object_statistics import ObjectStatistics, preposition_before
from unrolled.data.object_words import ObjectWords

LABELS = ("man", "player", "dog", "woman", "grass", "ball")
WORDS = ObjectWords({label: label for label in LABELS} | {"dogs": "dog", "balls": "ball"}, LABELS)


def statistics(*pictures):
    return ObjectStatistics(WORDS, [[text.split() for text in some] for some in pictures])


def test_prepositions_between_two_objects():
    found = statistics(*[["a dog runs through the grass"]] * 8, *[["a dog in the grass"]] * 2, ["a man with a ball"])
    likely = found.prepositions("dog", "grass")
    assert likely["through"] > likely["in"] > likely["with"] > 0
    assert sum(likely.values()) == pytest.approx(1)
    # Of a pair that no caption has, the second says most.
    unseen = found.prepositions("man", "grass")
    assert max(unseen, key=unseen.get) == "through"


def test_phrases_and_and_are_prepositions():
    found = statistics(["a man in front of a dog"], ["a man and a woman"], ["a man next to a dog"])
    assert set(found.prepositions("man", "dog")) == {"in front of", "and", "next to"}
    assert preposition_before(["a", "group", "of", "dogs"], 3) == ""


def test_the_order_of_objects():
    found = statistics(*[["a man with a ball"]] * 3, ["a ball by a man"], ["a dog on the grass"])
    assert found.is_first("man", "ball")
    assert not found.is_first("ball", "man")
    assert found.is_first("dog", "ball")  # no caption has both; a ball is often named second
    assert not found.is_first("grass", "man")
    assert (found.related("ball", "man"), found.related("man", "dog")) == (4, 0)


def test_colours():
    found = statistics(*[["a brown dog"]] * 3, ["a black and white dog"], ["a man"])
    prior = dict(zip(COLOURS, found.colour_prior("dog"), strict=True))
    assert max(prior, key=prior.get) == "brown"
    assert prior["black"] == prior["white"] > prior["pink"] > 0
    assert sum(prior.values()) == pytest.approx(1)
    assert (found.coloured("dog"), found.coloured("man"), found.coloured("grass")) == (1, 0, 0)


def test_articles_and_numbers():
    found = statistics(*[["a dog on the grass"]] * 3, ["two dogs in the grass"], ["an old man"])
    assert [found.article(label) for label in ("dog", "grass", "man")] == ["a", "the", "a"]
    assert [found.countable(label) for label in ("dog", "grass")] == [True, False]
    assert found.plural_share("dog") == 0.25


def test_words_for_the_same_thing_are_not_in_one_caption():
    found = statistics(
        *[["a player with a ball", "a man with a ball"]] * 10,
        *[["a man and a woman", "a woman and a man", "a man"]] * 10,
    )
    assert found.same("man", "player")
    assert found.same("player", "man")
    assert not found.same("man", "woman")
    assert not found.same("player", "ball")
    assert not found.same("dog", "grass")
    assert found.same("dog", "dog")
