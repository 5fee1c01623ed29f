"""Quotations in prompts: text to be written, which the parser must not read as things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from comat.storage.prompt_syntax import Plain

_MARKS = (
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

_NO_NOUN = (
    "a|an|and|or|the|is|are|was|in|on|at|by|with|of|to|for|from|above|below|under|over|behind|beside|next|near|as|that|"
    "which|who|while|where|across|around|along|inside|it|its|his|her|into|against|between|through|without|together"
)
_MODIFIED = re.compile(rf"\s+(?!(?:{_NO_NOUN})\b)(?!\w+(?:ed|en|ing)\b)[a-z][\w-]*", re.IGNORECASE)
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
    spans = _spans(plain.text)
    if not spans or not any(c.isalnum() for c in _outside(plain.text, spans)):  # the whole prompt is none
        return plain, []
    pieces: list[str] = []
    origin: list[int] = []
    found, at = [], 0
    for start, end in spans:
        words = plain.text[start:end].strip("\"'“”„‟«»‹›「」『』`‘’‚ ")
        inside = plain.text.index(words, start)
        found.append(Quotation(words, plain.written(inside, inside + len(words))))
        modifies = _MODIFIED.match(plain.text, end) and not _SAYING.search(plain.text, 0, start)
        glued = plain.text[end : end + 1].isalnum()
        stand_in = "" if modifies else _STAND_IN + " " * glued
        pieces += [plain.text[at:start], stand_in]
        origin += [*plain.origin[at:start], *[plain.origin[start]] * len(stand_in)]
        at = end if stand_in else end + len(plain.text[end:]) - len(plain.text[end:].lstrip())
    pieces.append(plain.text[at:])
    return Plain("".join(pieces), (*origin, *plain.origin[at:]), plain.removed), found


def _spans(text: str) -> list[tuple[int, int]]:
    """The outermost quotations with words in them, in the order of the text."""
    found = sorted([*_straight(text), *(match.span() for match in _QUOTATION.finditer(text))])
    outermost: list[tuple[int, int]] = []
    for start, end in found:
        if any(c.isalnum() for c in text[start:end]) and (not outermost or start >= outermost[-1][1]):
            outermost.append((start, end))
    return outermost


def _straight(text: str) -> Iterator[tuple[int, int]]:
    """Quotations in straight marks, with those inside them: "a "chair" and a table." is one."""
    marks = [match.start() for match in re.finditer(r'(?<!\d)"|(?<=\d)"(?=[\s.,;!?]*$)', text)]  # 12" is a length
    opened: list[int] = []
    for at in marks:
        opens = (at == 0 or text[at - 1] in " ([") and not text[at + 1 : at + 2].isspace() and at + 1 < len(text)
        if not opened or opens:
            opened.append(at)
        else:
            start = opened.pop()
            if not opened:
                yield start, at + 1
    if len(opened) > 1 or (opened and len(marks) > 2):  # a mark too many: pairs in their order
        yield from ((start, end + 1) for start, end in zip(marks[::2], marks[1::2], strict=False))


def _outside(text: str, spans: list[tuple[int, int]]) -> str:
    starts, ends = [end for _, end in spans], [start for start, _ in spans]
    return "".join(text[a:b] for a, b in zip([0, *starts], [*ends, len(text)], strict=True))
