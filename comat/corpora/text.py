"""Prompts as text: one spelling, what makes two the same, and their ids."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from typing import Literal

from comat.storage.prompt_syntax import without_syntax

PLAIN = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'} | dict.fromkeys((0xAD, 0x200B, 0x2060, 0xFEFF))
"""Typographic quotes become plain ones; what has no width and only breaks or joins lines goes."""


ALNUM = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
"""What `folded` makes of each ASCII character; most prompts hold no other, and there may be millions."""


def normalise(text: str) -> str:
    """Unicode NFKC, plain quotes, no invisible characters, control characters and whitespace folded to one blank."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    plain = unicodedata.normalize("NFKC", text).translate(PLAIN)
    if not plain.isprintable():
        plain = "".join(" " if unicodedata.category(c) == "Cc" else c for c in plain)
    return " ".join(plain.split())


class Spelling:
    """How prompts are written down: normalised; with the syntax of image tools, or without it. Counts what it finds."""

    def __init__(self, syntax: Literal["strip", "keep"]) -> None:
        self.strips = syntax == "strip"
        self.prompts = 0
        self.found: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        written = normalise(text)
        plain = without_syntax(written)
        self.prompts += bool(plain.removed)
        self.found += plain.removed
        return plain.text if self.strips else written

    def report(self) -> dict:
        """How many prompts as read hold syntax, of which kinds, and what became of it."""
        return {"prompts": self.prompts, "stripped": self.strips, "found": dict(sorted(self.found.items()))}


def folded(text: str) -> str:
    """What makes two prompts the same: letters and digits of any script, without case; no punctuation."""
    if text.isascii():
        return " ".join(text.translate(ALNUM).split())
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in text.casefold())
    return " ".join("".join(kept).split())


def prompt_id(text: str, split: str = "train") -> str:
    """16 hexadecimal digits of the normalised text and its split: without decontamination it may stand in both."""
    return hashlib.sha256(f"{split} {text}".encode()).hexdigest()[:16]
