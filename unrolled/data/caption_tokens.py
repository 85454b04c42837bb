"""Words of a caption, cut as the scorers of COCO's captions cut them: Penn Treebank's tokens without punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Tokens that are left out. Brackets stay, as `-lrb-` and so on: COCO's scorer looks for them in upper case only.
PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

#: Characters that are written in another way. Typographic quotation marks, dashes and dots are left out.
_WRITTEN = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN |= {"½": "1/2", "¼": "1/4", "¾": "3/4", "€": "$", "£": "#"}

#: Abbreviations that keep their period: always; if they begin with a capital; and before a number.
_ABBREVIATIONS = (
    r"ph\.d|adm|al|ala|apr|ariz|assn|attys?|aug|ave|bancorp|bhd|bldg|blvd|brig|bros|calif|capt|cf|cmdr|col|colo|comdr"
    r"|conn|corp|cos?|cpl|ct|dak|dec|dept|det|drs?|elec|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|govs?|hon|inc|ind|intl|jan"
    r"|jr|jul|jun|kans?|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mo|mon|mont|mrs?|ms|mt|natl|neb|nev|nov|oct|okla"
    r"|penn|pfc|ph|plc|pres|profs?|pty|pvt|rd|reps?|rev|rt|sens?|sept?|sgt|spc|sq|sr|ste?|supt|sys|tel|tenn|thu(?:rs)?"
    r"|tues?|univ|va|vs|vt|wed|wisc?|wyo"
)
_CAPITALISED = r"Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_NUMBER = r"art|ca|figs?|nos?|op|pp|prop"
_LETTER = r"[^\W\d_½¼¾]"
_CLITIC = r"['’](?:s|m|d|ll|re|ve)(?!\w)"
_NOT = r"n['’]t(?!\w)"
_SHORTENED = r"'(?:n'|(?:em|til|cause)\b|\d\ds?\b|t(?=is\b|was\b))"
#: The kinds of tokens. The first kind that matches at a place is the one that counts.
_TOKEN = re.compile(
    "|".join(
        (
            r"""(?:https?://|www\.)[^\s"<>()]*[^\s"<>().,;:!?']""",
            r"-[lr][rsc]b-",
            r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            r"\b(?:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b))(?!\w+-)",
            rf"{_LETTER}+?(?={_NOT})|{_NOT}|{_CLITIC}",  # `is` and `n't`, `man` and `'s`
            rf"{_SHORTENED}|\by'(?=all\b)|\bol'(?!\w)",
            rf"(?:{_ABBREVIATIONS})\.|(?-i:{_CAPITALISED})\.|(?:{_BEFORE_NUMBER})\.(?=\s*\d)|{_LETTER}+\.(?=,)",
            rf"(?:{_LETTER}\.)+(?:{_LETTER}\b|-\w+)?",  # initials
            rf"[#@]{_LETTER}\w*",
            r"[+-]?\d*(?:[.,:]\d+)+|[+-]?\d+(?:/\d+)*\w*(?:-\w+)*",  # numbers
            r"(?-i:[A-Z]+(?:&[A-Z]+)+)",
            rf"(?:[od]['’])?\w+(?:[-/_.]\w+|(?!{_CLITIC}|{_SHORTENED})['’]\w+)*",  # words, with what is inside them
            r"\.{2,}|-{2,}|[!?]+|\*+|\S",
        )
    ),
    re.IGNORECASE,
)
#: Punctuation beyond ASCII, and what Penn Treebank writes as two marks.
_DROPPED = re.compile(r"""["“”‘’…–—]|\.{2,}|-{2,}|''|``""")


def caption_tokens(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation.

    They are those of Stanford's PTBTokenizer 3.4.1 as `pycocoevalcap` uses it, except for rare cases such as
    emoticons.
    """
    found = []
    for match in _TOKEN.finditer(caption.replace("&amp;", "&")):
        token = match[0].lower().replace("’", "'")
        if token not in PUNCTUATION and not _DROPPED.fullmatch(match[0]):
            found.append(_WRITTEN.get(token, token))
    return found


def caption_text(tokens: Iterable[str]) -> str:
    """Return tokens as a line of text, from which `caption_tokens` makes the same tokens again."""
    text = ""
    for token in tokens:
        attached = token.startswith("'") or token == "n't"
        if "&" in token:  # as in AT&T; of small letters it would be three tokens
            token = token.upper()
        text += token if attached or not text else f" {token}"
    return text
