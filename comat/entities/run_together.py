"""Fragments run together: "… mushroom forest uhd ultra realistic octane render artstation", read as if by commas.

Small parsers take such a prompt for one noun phrase. The terms that tell the fragments apart, and names of artists,
stand in `style_terms.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from comat.entities.dictionary import Dictionary
from comat.entities.lexicon import (
    ADJECTIVAL,
    ATTRIBUTES,
    DETERMINERS,
    INTENSIFIERS,
    NEVER_THINGS,
    PICTURES,
    SHAPED,
    SIZES,
)
from comat.storage.prompt_syntax import Plain
from comat.storage.yaml_files import read_bounded

TERMS = Path(__file__).with_name("style_terms.yaml")
_FEWEST = 2
"""Terms that a prompt must have to be read so: ordinary prose has an "illustration" at most."""

_BINDS = DETERMINERS | NEVER_THINGS | {"&", "style", "styled", "like", "vs", "feat", "s", "inspired"}
_BOUND = _BINDS | INTENSIFIERS | SIZES
_STOPS = re.compile(r"\w[.](?=\s+[A-Z]|\s*$)")
_LONG = 10
"""Words that a sentence has, where a fragment between stops has fewer."""
_WORDS = re.compile(r"[^\s,;:()\[\]{}|!?\"“”]+")


@dataclass(frozen=True)
class Term:
    """A term of `style_terms.yaml` in a text: its kind, and its words [start, end) among those of the text."""

    kind: str
    words: tuple[str, ...]
    start: int
    end: int


def with_commas(plain: Plain, dictionary: Dictionary) -> Plain:
    """The prompt with commas between its fragments where terms of style tell them apart."""
    words = list(_WORDS.finditer(plain.text))
    terms = list(terms_in([word.group().lower() for word in words]))
    if len({term.words for term in terms}) < _FEWEST or _is_prose(plain.text, len(words)):
        return plain
    places = sorted(set(_places(plain.text, words, terms, dictionary)))
    pieces: list[str] = []
    origin: list[int] = []
    at = 0
    for place in places:
        pieces += [plain.text[at:place], ","]
        origin += [*plain.origin[at:place], plain.origin[place - 1]]
        at = place
    return Plain("".join([*pieces, plain.text[at:]]), (*origin, *plain.origin[at:]), plain.removed)


def _is_prose(text: str, words: int) -> bool:
    """Whether a text is sentences, whose grammar parsers read well without help."""
    stops = len(_STOPS.findall(text))
    return stops > 1 and words / stops > _LONG


def terms_in(words: list[str]) -> Iterator[Term]:
    """The terms among words in lower case, from the left, the longest first."""
    at = 0
    while at < len(words):
        term = next(
            (term for term in _by_first_word().get(words[at].rstrip("."), ()) if _stands(words, at, term)), None
        )
        if term is None:
            at += 1
            continue
        yield Term(_kinds()[term], term, at, at + len(term))
        at += len(term)


def _stands(words: list[str], at: int, term: tuple[str, ...]) -> bool:
    found = words[at : at + len(term)]
    return len(found) == len(term) and found[:-1] == list(term[:-1]) and found[-1].rstrip(".") == term[-1].rstrip(".")


def _places(text: str, words: list[re.Match[str]], terms: list[Term], dictionary: Dictionary) -> Iterator[int]:
    """Where commas are missing, before and after the terms."""
    by_start = {term.start: term for term in terms}
    by_end = {term.end: term for term in terms}
    for term in terms:
        if any(not _are_joined(text, *words[at : at + 2]) for at in range(term.start, term.end - 1)):
            continue  # "4, k"
        if term.start and _are_joined(text, *words[term.start - 1 : term.start + 1]):
            start = _start_of_fragment(text, words, term.start)
            before = words[term.start - 1]
            if _ends_fragment(before.group().lower(), by_end.get(term.start), term, dictionary, term.start - start):
                yield before.end()
        if term.end < len(words) and _are_joined(text, *words[term.end - 1 : term.end + 1]):
            start = _start_of_fragment(text, words, term.start)
            opens = all(_is_before_term(word.group().lower(), dictionary) for word in words[start : term.start])
            if _opens_fragment(words[term.end].group().lower(), term, by_start.get(term.end), opens):
                yield words[term.end - 1].end()


def _start_of_fragment(text: str, words: list[re.Match[str]], at: int) -> int:
    while at and _are_joined(text, words[at - 1], words[at]):
        at -= 1
    return at


def _are_joined(text: str, word: re.Match[str], following: re.Match[str]) -> bool:
    """Whether nothing but blanks stands between two words, and the first ends no sentence ("j. c. leyendecker")."""
    ends = word.group().endswith(".") and len(word.group()) > 2
    return not ends and text[word.end() : following.start()].isspace()


def _ends_fragment(word: str, before: Term | None, term: Term, dictionary: Dictionary, length: int) -> bool:
    """Whether a term cannot belong to the word before it.

    before: the term that this word ends; length: of the fragment up to there, in words.
    """
    if term.kind in ("pictures", "surnames"):
        return False
    if term.kind == "sizes" and (length == 1 or before is not None):
        return False  # "fantasy 4k", "cgsociety 8k"
    if before is not None:
        # Otherwise what ends there says whether the term is its own: "UHD photorealistic man".
        is_open = before.kind == "sizes" or (before.kind == "things" and term.kind == "attributes")
        return before.kind != "attributes" and not is_open
    return word[-1].isalnum() and not _is_before_term(word, dictionary)


def _is_before_term(word: str, dictionary: Dictionary) -> bool:
    return word in _BOUND or _is_modifier(word, dictionary)


def _is_modifier(word: str, dictionary: Dictionary) -> bool:
    if word in ATTRIBUTES | SHAPED:
        return True
    if word in dictionary.adjectives:
        return True
    if dictionary.knows_as_noun(word):
        return False
    is_adjective = word in dictionary.adverbs or word.endswith(("ing", "ed", "'s", "’s"))
    return is_adjective or (word.endswith(ADJECTIVAL) and not dictionary.is_known(word))


def _opens_fragment(word: str, term: Term, following: Term | None, opens: bool) -> bool:
    """Whether the word behind a term begins another fragment; opens: whether the term is the first of its own."""
    if term.kind == "attributes" or not word[:1].isalpha() or word.rstrip(".") in _BINDS:
        return False
    if term.kind == "pictures" and word.endswith("ed"):
        return False  # "digital art painted by"
    if opens and (term.kind == "sizes" or (following is not None and following.kind == "attributes")):
        return False  # "8k high definition", "a cinematic hyperrealism highly detailed photograph"
    return term.kind in ("artists", "surnames") or word.rstrip(".") not in PICTURES


@lru_cache(maxsize=1)
def _kinds() -> dict[tuple[str, ...], str]:
    """The terms of `style_terms.yaml`, each as its words, → their kind."""
    kinds = read_bounded(str(TERMS), TERMS.read_text(encoding="utf-8"))
    assert isinstance(kinds, dict)
    return {tuple(term.split()): kind for kind, terms in kinds.items() for term in terms}


@lru_cache(maxsize=1)
def _by_first_word() -> dict[str, list[tuple[str, ...]]]:
    """The terms by their first word without a stop, the longest first."""
    terms: dict[str, list[tuple[str, ...]]] = {}
    for term in sorted(_kinds(), key=len, reverse=True):
        terms.setdefault(term[0].rstrip("."), []).append(term)
    return terms
