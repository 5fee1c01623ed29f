"""The syntax of image tools in prompts: found, taken out, and told where each character that is left stood before.

Weights and emphasis in brackets (AUTOMATIC1111, ComfyUI, compel), changes and alternatives (`[cat:dog:0.5]`,
`{red|blue}`), networks and embeddings (`<lora:…>`), parts with weights and parameters (Midjourney: `::2`, `--ar 3:2`,
`--no`), and what is pasted along with a prompt ("Negative prompt: …").
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_NUMBER = r"\s*-?(?:\d+\.?\d*|\.\d+)\s*"
_DASHES = r"(?<!\S)(?:--|—)"
_VALUE = r"(?:\d[\w.:/%,-]*|raw|cute|expressive|scenic|original)"
_MAY_HOLD_SYNTAX = re.compile(r"[:<(\[{|\\+]|--|—|BREAK|__|/imagine|^\W*prompt\b")
_REMOVED = (
    (
        "negative prompt",
        re.compile(r"[\s,.]*\bnegative prompt\s*:.*|\bSteps: \d+, Sampler:.*", re.IGNORECASE | re.DOTALL),
    ),
    ("address", re.compile(r"https?://\S+")),
    ("network", re.compile(r"<[^<>\s:]+:[^<>]*>|\bembedding:[\w.-]+(?::[\d.]+)?")),
    ("things not to draw", re.compile(rf"{_DASHES}no\b.*?(?=\s(?:--|—)[a-z]|$)", re.DOTALL)),
    ("things not to draw", re.compile(r"[^,:]*::-[\d.]+")),
    # A name that is followed by a number, by another parameter or by nothing; a dash may open ordinary words too.
    ("parameter", re.compile(rf"{_DASHES}[a-z]+\d*(?:[ =]+{_VALUE}(?!\w)|(?=\s*(?:$|(?:--|—)[a-z])))")),
    ("parameter", re.compile(rf"{_DASHES}(?:tile|raw|hd|fast|relax|turbo|niji|draft|video|test|testp)(?!\w)")),
    ("command", re.compile(r"^\W*(?:/imagine\s+)?(?:prompt\s*:)|^\W*/imagine\b")),
)
_CHANGED = (
    ("escape", re.compile(r"\\(?P<kept>[()\[\]{}<>:|])")),
    ("alternatives", re.compile(r"\[[^\[\]():|]*:(?P<kept>[^\[\]():|]*[^\W\d][^\[\]():|]*):" + _NUMBER + r"\]")),
    ("alternatives", re.compile(r"\[(?P<kept>[^\[\]():|]*[^\W\d][^\[\]():|]*)::?" + _NUMBER + r"\]")),
    ("alternatives", re.compile(r"[\[{](?P<kept>[^\[\]{}|]*)\|[^\[\]{}]*[\]}]")),
    ("weight", re.compile(r"[(\[{](?P<kept>[^()\[\]{}]*[^()\[\]{}\d\s]):" + _NUMBER + r"[)\]}]")),
    ("weight", re.compile(r"\((?P<kept>[^()]+)\)(?:[-+]+|\d+\.\d+)(?!\w)")),
    ("weight", re.compile(r"(?P<kept>\b\w\w+)\+\++(?!\w)")),
    ("emphasis", re.compile(r"\((?P<kept>\([^()]*\))\)|\[(?P<also>\[[^\[\]]*\])\]|\{(?P<too>\{[^{}]*\})\}")),
    ("emphasis", re.compile(r"[\[{](?P<kept>[^\[\]{}()]*)[\]}]")),
    # A whole part between commas, or one word before another; other parentheses are ordinary English.
    ("emphasis", re.compile(r"(?:(?<=[,;.] )|(?<=[,;])|^)\((?P<kept>[^()]+)\)(?=\s*(?:[,;.]|$))")),
    ("emphasis", re.compile(r"(?:(?<=\ba )|(?<=\ban )|(?<=\bthe ))\((?P<kept>\w+)\)(?= \w)")),
    ("wildcard", re.compile(r"__(?P<kept>[\w/-]+?)__")),
    ("command", re.compile(r"(?<=\S)\s*\bBREAK\b(?P<comma>)")),
    ("parts", re.compile(r"\s*::(?:-?[\d.]+)?(?P<comma>)(?=\s|$|\w)")),
)
_QUOTED = re.compile('"[^"]+"|“[^“”]+”|«[^«»]+»')
"""Text to be written, which stands as it is. A prompt that is in quotation marks as a whole is none."""
_SPACES = (
    re.compile(r"\s+(?=[,;.](?:\s|$))(?P<kept>)"),
    re.compile(r"(?:,\s*)+(?P<kept>,)"),
    re.compile(r"(?P<kept> ) +"),
    re.compile(r"^[\s,]+(?P<kept>)|[\s,]+$"),
)


@dataclass(frozen=True)
class Plain:
    """A prompt without syntax; for each of its characters the place in the prompt as written; what was taken out."""

    text: str
    origin: tuple[int, ...]
    removed: Counter[str]

    def written(self, start: int, end: int) -> tuple[int, int]:
        """The characters [start, end) of the plain text as [start, end) of the prompt as written."""
        return (self.origin[start], self.origin[end - 1] + 1) if end > start else (0, 0)


def without_syntax(text: str) -> Plain:
    """The prompt as a person would say it. A text without syntax comes back as it is."""
    plain = Plain(text, tuple(range(len(text))), Counter())
    if not _MAY_HOLD_SYNTAX.search(text):
        return plain
    for kind, pattern in _REMOVED:
        plain = substitute(plain, pattern, kind)
    for kind, pattern in _CHANGED:
        while (changed := substitute(plain, pattern, kind)).text != plain.text:  # brackets stand in brackets
            plain = changed
    if plain.removed:
        for pattern in _SPACES:
            plain = substitute(plain, pattern, "")
    return plain


def substitute(plain: Plain, pattern: re.Pattern[str], kind: str) -> Plain:
    """Leave of each match the group that took part, or a comma where it is named `comma`; count it under `kind`."""
    pieces, origin, at, removed = [], [], 0, Counter(plain.removed)
    quoted = [one.span() for one in _QUOTED.finditer(plain.text) if one[0] != plain.text.strip()]
    for match in pattern.finditer(plain.text):
        if any(start < match.start() and match.end() < end for start, end in quoted):
            continue
        start, end = match.span(match.lastgroup) if match.lastgroup else (match.end(), match.end())
        pieces += [plain.text[at : match.start()], plain.text[start:end]]
        origin += [*plain.origin[at : match.start()], *plain.origin[start:end]]
        if match.lastgroup == "comma":
            pieces.append(",")
            origin.append(plain.origin[match.start()])
        at = match.end()
        removed[kind] += bool(kind)
    pieces.append(plain.text[at:])
    return Plain("".join(pieces), (*origin, *plain.origin[at:]), +removed)
