"""Tables of English words, from `english.json`: function words, spatial prepositions and irregular plurals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TABLES: dict[str, Any] = json.loads(Path(__file__).with_name("english.json").read_text("utf-8"))

NUMBERS: tuple[str, ...] = tuple(_TABLES["numbers"])
ARTICLES = frozenset[str](_TABLES["articles"])
OWNERS = frozenset[str](_TABLES["owners"])
#: Determiners of more than one.
SEVERAL = frozenset[str](_TABLES["several"])
#: Words that begin a noun phrase.
DETERMINERS = ARTICLES | OWNERS | SEVERAL | frozenset[str](_TABLES["other_determiners"])
BE_AND_HAVE = frozenset[str](_TABLES["forms_of_be_and_have"])
PREPOSITIONS = frozenset[str](_TABLES["prepositions"])
PREPOSITIONAL_PHRASES: tuple[tuple[str, ...], ...] = tuple(tuple(one) for one in _TABLES["prepositional_phrases"])
#: Prepositions that say where something is, and how: above, below, on, in, side, nearer or farther.
SPATIAL: dict[str, str] = _TABLES["spatial"]
#: Prepositions of what is walked along or stood on: captions do not walk down an action.
ALONG_OR_ON = frozenset[str](_TABLES["along_or_on"])
#: Words that end a noun phrase.
FUNCTION_WORDS = DETERMINERS | BE_AND_HAVE | PREPOSITIONS | frozenset[str](_TABLES["other_function_words"])
SIZES = frozenset[str](_TABLES["sizes"])
#: The singulars of irregular plurals.
IRREGULAR: dict[str, str] = _TABLES["irregular_plurals"]
SAME_PLURAL = frozenset[str](_TABLES["same_plural"])
#: Singulars that look like plurals.
NO_PLURALS = frozenset[str](_TABLES["no_plurals"])
