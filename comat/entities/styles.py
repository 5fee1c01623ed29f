"""Names that say in whose manner a picture is made: "by Ivan Aivazovsky", "in the style of a comic book"."""

from __future__ import annotations

from collections.abc import Iterator

from comat.entities.lexicon import DETERMINERS
from comat.entities.words import Kind, Word

_MANNERS = {"style", "manner", "spirit", "fashion", "aesthetic", "aesthetics", "vein"}
_WORKS = {"art", "artwork", "painting", "paintings", "illustration", "photo", "photograph", "photography", "drawing",
          "sketch", "print", "poster", "portrait", "render", "concept", "work", "works", "style", "painted", "drawn",
          "illustrated", "designed", "directed", "photographed", "inspired", "influenced", "rendered"}  # fmt: skip
_MEDIA = ("oil", "acrylic", "ink", "pencil", "charcoal", "watercolor", "watercolour", "gouache", "pastel", "tempera")
_SITES = {("trending", "on"), ("featured", "on"), ("shot", "on"), ("shot", "with"), ("rendered", "in"),
          ("rendered", "with"), ("made", "in"), *((medium, "on") for medium in _MEDIA)}  # fmt: skip
_BEFORE_NAMES = {",", "and", "by", "&", "|", ";"}
_IN_NAME = (Kind.NOUN, Kind.ADJECTIVE, Kind.NUMERAL)


def in_styles(words: list[Word]) -> set[int]:
    """The places of all words of such names, and of media ("oil on canvas") and what they are made with."""
    places: set[int] = set()
    for place in range(1, len(words)):
        before, word = words[place - 1].lower, words[place].lower
        if word == "by" and _opens_names(words, place):
            places |= set(_names(words, place + 1)) | ({place - 1} if before in _WORKS else set())
        elif word == "of" and before in _MANNERS:
            places |= set(_names(words, place + 1)) | set(_phrase(words, place + 1))
        elif (before, word) in _SITES:
            phrase = set(_phrase(words, place + 1))
            # "shot on a beach", "ink on a table" are places; a medium or a tool has no article.
            places |= {place - 1, *phrase} if words[min(phrase, default=0)].lower not in DETERMINERS else set()
    places |= _whole_picture(words) | _known_names(words)
    if words and words[0].lower == "by" and _opens_names(words, 0):
        places |= set(_names(words, 1))
    return places


def _known_names(words: list[Word]) -> set[int]:
    """Names of artists in a list: a whole fragment, not the first of the prompt, which may say who is drawn."""
    places = [place for place, word in enumerate(words) if word.name is not None]
    return {place for place in places if _is_listed(words, place)}


def _is_listed(words: list[Word], place: int) -> bool:
    start, name = place, words[place].name
    while start and words[start - 1].name == name:
        start -= 1
    return start > 1 and words[start - 1].lower in _BEFORE_NAMES


def _whole_picture(words: list[Word]) -> set[int]:
    """ "a detailed painting of a castle": what opens a prompt is the picture itself."""
    for place, word in enumerate(words):
        if word.lower == "of":
            return {place - 1} if place and words[place - 1].lower in _WORKS else set()
        if word.kind not in _IN_NAME and word.kind is not Kind.ADVERB and word.lower not in DETERMINERS:
            break
    return set()


def _opens_names(words: list[Word], place: int) -> bool:
    """Whether "by" opens a fragment or follows a work, and a name follows: "a cabin by the lake" has none."""
    phrase = list(_phrase(words, place + 1))
    if not phrase or words[phrase[0]].lower in DETERMINERS:
        return False
    after_work = place > 0 and words[place - 1].lower in _WORKS
    opens = place == 0 or words[place - 1].token.is_punct or words[place - 1].lower == "and"
    return after_work or _is_unknown(words, phrase) or (opens and words[phrase[-1]].token.pos_ == "PROPN")


def _is_unknown(words: list[Word], phrase: list[int]) -> bool:
    """Whether the dictionary does not know a word of the phrase, as it knows hardly any names."""
    return any(not words[at].dictionary.is_known(words[at].lower) for at in phrase)


def _names(words: list[Word], start: int) -> Iterator[int]:
    """A name, and those that follow after "and" or a comma."""
    phrase = list(_phrase(words, start))
    yield from phrase
    at = phrase[-1] + 1 if phrase else len(words)
    while at < len(words) and words[at].lower in ("and", ",", "&"):
        at += 1
    phrase = list(_phrase(words, at)) if at < len(words) else []
    if (
        phrase
        and words[phrase[0]].lower not in DETERMINERS
        and (_is_unknown(words, phrase) or _is_name_among_names(words, phrase))
    ):
        yield from _names(words, at)


def _is_name_among_names(words: list[Word], phrase: list[int]) -> bool:
    """ "…, john singer sargent, …": names of several words that the dictionary knows, before another name."""
    is_adjective = any(words[at].lower in words[at].dictionary.adjectives for at in phrase)
    if len(phrase) < 2 or is_adjective or not any(words[at].token.pos_ == "PROPN" for at in phrase):
        return False
    at = phrase[-1] + 1
    while at < len(words) and words[at].lower in ("and", ",", "&"):
        at += 1
    following = list(_phrase(words, at)) if phrase[-1] + 1 < at < len(words) else []
    is_name = bool(following) and words[following[0]].lower not in DETERMINERS
    return is_name and (_is_unknown(words, following) or _is_name_among_names(words, following))


def _phrase(words: list[Word], start: int) -> Iterator[int]:
    for place in range(start, len(words)):
        if words[place].kind not in _IN_NAME and words[place].lower not in DETERMINERS:
            return
        yield place
