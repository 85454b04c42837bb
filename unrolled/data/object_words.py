"""Which words of captions name objects, learned from where the words stand, and what captions say of the objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unrolled.data.colours import colour_name
from unrolled.data.english import (
    ALONG_OR_ON,
    BE_AND_HAVE,
    DETERMINERS,
    FUNCTION_WORDS,
    OWNERS,
    SEVERAL,
    SIZES,
)
from unrolled.data.noun_forms import singular

#: A word is looked at if this many phrases have it.
_FEWEST = 5


@dataclass(frozen=True)
class Mention:
    """An object in a caption: the number of its noun and of the first word of its phrase, its label and its colours."""

    place: int
    start: int
    label: str
    colours: tuple[str, ...] = ()
    plural: bool = False


class ObjectWords:
    """The words that name objects, and the label of each, which is its singular.

    form_of: the label of every form. labels: the labels, the most frequent first. Both are learned with `learn`.
    """

    def __init__(self, form_of: dict[str, str], labels: Sequence[str]) -> None:
        self.form_of, self.labels = form_of, tuple(labels)

    @classmethod
    def learn(cls, pictures: Sequence[Sequence[Sequence[str]]], fewest: int = 10) -> ObjectWords:
        """Learn which words are objects from tokens of the captions of each picture, without a tagger.

        A noun stands directly after a determiner, a number, a colour or a size at times, and it usually ends its
        phrase: a function word, a form of a verb or the end of the caption comes next, while a noun comes after an
        adjective. A noun names an object if captions give it a colour or a size, if it acts (`a man is`), or if it is
        something to be on or to go along. So `air`, `game` and `back` are left out, and parts of bodies, most of which
        captions call `his` or `her`. It is a heuristic for English.

        fewest: the pictures that must mention an object.
        """
        captions = [tokens for some in pictures for tokens in some]
        counts = _Counts.of(captions)
        known = {word for word, times in counts.total.items() if times >= _FEWEST}
        # Woods and stairs are not the plurals of a wood and a stair if hardly anybody writes of one.
        joined = {word: singular(word, known) for word in counts.head}
        joined = {word: one for word, one in joined.items() if counts.head[one] >= 0.15 * counts.head[word]}
        forms = {word: joined.get(word, word) for word in counts.head if counts.is_object(word)}
        # A plural is an object if its singular is one, and if it is a noun itself: dogs, but not runs of the run.
        for word, one in joined.items():
            if one != word and one in forms and counts.is_noun(word):
                forms[word] = one
        forms |= {one: one for one in set(forms.values())}
        found = Counter(label for some in pictures for label in {forms[w] for t in some for w in t if w in forms})
        labels = [label for label, times in sorted(found.items(), key=lambda one: (-one[1], one[0])) if times >= fewest]
        kept = set(labels)
        return cls({word: label for word, label in forms.items() if label in kept}, labels)

    def mentions(self, tokens: Sequence[str]) -> list[Mention]:
        """Return the objects that a caption mentions, in its order; in `tree house` that is the house alone."""
        found = []
        for place, word in enumerate(tokens):
            label = self.form_of.get(word)
            if label is None or (place + 1 < len(tokens) and tokens[place + 1] in self.form_of):
                continue
            start, colours = place, list[str]()
            while start and (self._inside(tokens[start - 1]) or _joins(tokens, start - 1)):
                start -= 1
                if name := colour_name(tokens[start]):
                    colours.insert(0, name)
            many = word != label
            if start and tokens[start - 1] in DETERMINERS:
                start -= 1
                many |= tokens[start] in SEVERAL
            found.append(Mention(place, start, label, tuple(colours), many))
        return found

    def _inside(self, word: str) -> bool:
        """Return whether a word can stand in a phrase before its noun."""
        return word not in FUNCTION_WORDS and word not in self.form_of and not word.endswith("ing")


def _joins(tokens: Sequence[str], place: int) -> bool:
    """Return whether this is the `and` of `black and white dog`."""
    inside = 0 < place < len(tokens) - 1 and tokens[place] == "and"
    return inside and None not in (colour_name(tokens[place - 1]), colour_name(tokens[place + 1]))


@dataclass
class _Counts:
    """How often each word stands where.

    total: in all. first: after a determiner, or after colours and sizes. head, modifier: last or not last in a phrase.
    before_of, coloured, owned, acting, ground: last in a phrase before `of`, after a colour or a size, with an owner,
    before a verb, and after a preposition of what one goes along.
    """

    total: Counter[str]
    first: Counter[str]
    head: Counter[str]
    modifier: Counter[str]
    before_of: Counter[str]
    coloured: Counter[str]
    owned: Counter[str]
    acting: Counter[str]
    ground: Counter[str]

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> _Counts:
        nouns, verbs = frozenset[str](), frozenset[str]()
        for _ in range(3):  # what is a verb depends on where phrases end, and where they end on what is a verb
            counts = cls(*(Counter[str]() for _ in range(9)))
            for tokens in captions:
                counts.total.update(tokens)
                for start, end in _phrases(tokens, nouns, verbs):
                    counts._add(tokens, start, end, nouns)
            verbs = frozenset(word for word in counts.head if counts._is_verb(word))
            nouns = frozenset(
                word for word, times in counts.head.items()
                if word.endswith("ing") and counts.first[word] and times >= max(_FEWEST, 0.15 * counts.total[word])
            )  # fmt: skip
        return counts

    def _add(self, tokens: Sequence[str], start: int, end: int, nouns: frozenset[str]) -> None:
        begun = start
        while begun < end - 1 and _is_visible(tokens[begun]):
            begun += 1
        self.first[tokens[begun]] += 1
        head = tokens[end - 1]
        self.head[head] += 1
        self.modifier.update(tokens[start : end - 1])
        after = tokens[end] if end < len(tokens) else ""
        before = tokens[end - 2] if end - 1 > start else ""
        self.before_of[head] += after == "of"
        self.coloured[head] += bool(before) and _is_visible(before)
        self.owned[head] += tokens[start - 1] in OWNERS
        self.acting[head] += after in BE_AND_HAVE or (after.endswith("ing") and after not in nouns)
        self.ground[head] += start > 1 and tokens[start - 2] in ALONG_OR_ON

    def _in_phrases(self, word: str) -> int:
        return self.head[word] + self.modifier[word]

    def _is_verb(self, word: str) -> bool:
        """Return whether a word is in noun phrases by mistake: it hardly ever follows a determiner directly."""
        return self._in_phrases(word) >= _FEWEST and self.first[word] < 0.03 * self._in_phrases(word)

    def is_noun(self, word: str) -> bool:
        head, within = self.head[word], self._in_phrases(word)
        often = head >= max(_FEWEST, 0.25 * self.total[word])
        return often and head >= 0.4 * within and self.first[word] >= 0.03 * within

    def is_object(self, word: str) -> bool:
        head = self.head[word]
        if not self.is_noun(word) or self.before_of[word] >= 0.4 * head or self.owned[word] >= 0.4 * head:
            return False
        coloured = self.coloured[word] >= max(3, 0.01 * head)
        return coloured or self.acting[word] >= 0.3 * head or self.ground[word] >= 0.3 * head


def _is_visible(word: str) -> bool:
    """Return whether a word is a colour or a size."""
    return word in SIZES or colour_name(word) is not None


def _phrases(tokens: Sequence[str], nouns: frozenset[str], verbs: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Iterate over the noun phrases: where each begins, after its determiner, and where it ends."""
    place = 0
    while place < len(tokens):
        if tokens[place] not in DETERMINERS:
            place += 1
            continue
        start = end = place + 1
        while end < len(tokens) and tokens[end] not in FUNCTION_WORDS:
            word = tokens[end]
            if end > start and (word in verbs or (word.endswith("ing") and word not in nouns)):
                break
            end += 1
        if end > start:
            yield start, end
        place = max(end, place + 1)
