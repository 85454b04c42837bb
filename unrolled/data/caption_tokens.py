"""Words of a caption, cut as the scorers of COCO's captions cut them: Penn Treebank's tokens without punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Tokens that are left out. Brackets stay, as `-lrb-` and so on: COCO's scorer looks for them in upper case only.
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN = {"“": "``", "”": "''", "‘": "`", "’": "'", "…": "...", "–": "--", "—": "--", "½": "1/2", "¼": "1/4"}
_WRITTEN |= {"¾": "3/4", "€": "$", "£": "#", "&amp;": "&"}

#: Words that keep a period at their end.
_ABBREVIATIONS = (
    r"mr|mrs|ms|drs?|prof|sen|rep|gov|lt|col|gen|adm|rev|maj|sgt|cpl|pvt|capt|ste?|ave|pres|lieut|hon|brig|jr|sr|bros"
    r"|ltd|co|corp|inc|dept|univ|assn|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu(?:rs)?|fri|vs|etc"
    r"|al|esq|blvd|rd|ft"
)
_LETTER = r"[^\W\d_]"
_CLITIC = r"['’](?:s|m|d|ll|re|ve)"
_TOKEN = re.compile(
    rf"""
    (?P<url>(?:https?://|www\.)[^\s"<>()]*[^\s"<>().,;:!?'])
  | (?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)
  | (?P<halves>(?:can)(?=not\b)|(?:gon|wan)(?=na\b)|(?:got)(?=ta\b)|(?:gim|lem)(?=me\b))
  | (?P<negated>{_LETTER}+?(?=n['’]t(?!\w)))
  | (?P<not>n['’]t(?!\w))
  | (?P<clitic>{_CLITIC}(?!\w))
  | (?P<short>(?:{_ABBREVIATIONS})\.|no\.(?=\s*\d)|(?:{_LETTER}\.)+{_LETTER}\.|(?:e\.g|i\.e|a\.m|p\.m)\.)
  | (?P<number>\d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?:{_LETTER}+)?(?:-\w+)*)
  | (?P<word>(?:'n'|'em|'\d\ds|o'|{_LETTER}&(?={_LETTER}))?\w+(?:[-/.&]\w+|(?!{_CLITIC}(?!\w)|n['’]t(?!\w))['’]\w+)*)
  | (?P<dots>\.\s?\.\s?\.|\.{{2,}}) | (?P<dashes>-{{2,}}) | (?P<marks>[!?]+) | (?P<quote>''|``) | (?P<other>\S)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def caption_tokens(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return [token for token in _pieces(caption.lower()) if token not in PUNCTUATION]


def caption_text(tokens: Iterable[str]) -> str:
    """Return tokens as a line of text, from which `caption_tokens` makes the same tokens again."""
    text = ""
    for token in tokens:
        attached = token.startswith("'") or token == "n't"
        text += token if attached or not text else f" {token}"
    return text


def _pieces(text: str) -> list[str]:
    found = []
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if match.lastgroup in ("dots", "dashes"):
            continue
        found.append(_BRACKETS.get(piece) or _WRITTEN.get(piece) or ('"' if piece == '"' else piece))
    return [piece for piece in found if piece != '"']
