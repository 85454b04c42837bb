"""Singulars and plurals."""

import pytest

from unrolled.data.noun_forms import plural, singular

PAIRS = [
    ("dog", "dogs"), ("child", "children"), ("person", "people"), ("man", "men"), ("fireman", "firemen"),
    ("baby", "babies"), ("boy", "boys"), ("bus", "buses"), ("bench", "benches"), ("box", "boxes"), ("horse", "horses"), ("house", "houses"),
    ("bush", "bushes"), ("sheep", "sheep"), ("knife", "knives"), ("grandchild", "grandchildren"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "many"), PAIRS)
def test_both_ways(one, many):
    assert plural(one) == many
    assert singular(many, {one for one, _ in PAIRS}) == one


@pytest.mark.parametrize("word", ["grass", "pants", "dress", "tennis", "bus", "dog"])
def test_what_is_no_plural_of_a_known_word_stays(word):
    assert singular(word, {"dog", "horse", "gras", "dres", "tenni"}) == word
