"""Quotations in prompts: text to be written, which the parser must not read as things."""

from __future__ import annotations

import re
from dataclasses import dataclass

from comat.storage.prompt_syntax import Plain

_MARKS = (
    r'(?<![\d"])"(?=[^\s"])[^"]+"|(?<!\S)"[^"]+"',  # 12" is a length
    "[“„‟][^“”„‟]+[”“‟]",
    "«[^«»]+»|»[^«»]+«",
    "‹[^‹›]+›|›[^‹›]+‹",
    "「[^「」]+」|『[^『』]+』",
    r"``[^`']+(?:''|``)|`[^`']+[`']",
    # An apostrophe opens a quotation after a blank, but not of a year ('57), and closes it before one.
    r"(?<![^\s(\[—-])['‘‚](?!\d\d(?!\d)s?\b)(?=\S)(?:[^'‘’]|(?<=\w)['’](?=\w))*[^\s'‘’]['’‘](?!\w)",
)
_QUOTATION = re.compile("|".join(_MARKS))
_STAND_IN = "this"
"""What the parser reads in the place of a quotation: it can be said, written or painted, and is no thing."""

_MODIFIED = re.compile(r"\s+(?!(?:a|an|and|or|the|is|are|was|in|on|at|by|with|of|to|for|from|above|below|under|over|"
                       r"behind|beside|next|near|as|that|which|who|while|where|across|around|along|inside|it|its|his|her|"
                       r"into|against|between|through|without)\b)(?!\w+(?:ed|en|ing)\b)[a-z][\w-]*", re.IGNORECASE)  # fmt: skip
_SAYING = re.compile(
    r"\b(?:say|says|saying|said|read|reads|reading|written|spell|spells|spelling|spelled|words?|text|letters|titled?|"
    r"called|named|labell?ed|caption|captioned|phrase|message|with|of|and|as|like|states?|stating|displays?|displaying|"
    r"shows?|showing|bears?|bearing|by|is|are)[\s:,]*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quotation:
    """The quoted words without their marks, and their characters [start, end) in the prompt as written."""

    text: str
    span: tuple[int, int]


def without_quotations(plain: Plain) -> tuple[Plain, list[Quotation]]:
    """The prompt with a stand-in for each quotation, or nothing where it modifies a noun ('a red "Barn" sign')."""
    pieces: list[str] = []
    origin: list[int] = []
    found, at = [], 0
    for match in _QUOTATION.finditer(plain.text):
        (start, end), words = match.span(), match[0].strip("\"'“”„‟«»‹›「」『』`‘’‚")
        if not any(c.isalnum() for c in words):
            continue
        inside = start + match[0].index(words)
        found.append(Quotation(words, plain.written(inside, inside + len(words))))
        modifies = _MODIFIED.match(plain.text, end) and not _SAYING.search(plain.text, 0, start)
        glued = plain.text[end : end + 1].isalnum()
        stand_in = "" if modifies else _STAND_IN + " " * glued
        pieces += [plain.text[at:start], stand_in]
        origin += [*plain.origin[at:start], *[plain.origin[start]] * len(stand_in)]
        at = end if stand_in else end + len(plain.text[end:]) - len(plain.text[end:].lstrip())
    if not found or not any(c.isalnum() for c in _QUOTATION.sub("", plain.text)):  # the whole prompt is none
        return plain, []
    pieces.append(plain.text[at:])
    return Plain("".join(pieces), (*origin, *plain.origin[at:]), plain.removed), found
