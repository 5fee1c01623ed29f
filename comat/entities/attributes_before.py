"""Words before a noun that are its attributes, whatever their tags: shapes, materials, participles, lists."""

from __future__ import annotations

from comat.entities.lexicon import (
    ADJECTIVAL,
    ATTRIBUTES,
    COLOURS,
    DETERMINERS,
    GEMS,
    ING_THINGS,
    INTENSIFIERS,
    MATERIALS,
    NEVER_THINGS,
    POSSESSIVES,
    PREPOSITIONS,
    SHAPED,
    SIZES,
    TRANSITIVE,
)
from comat.entities.neighbours import (
    FRAGMENT_ENDS,
    ends_phrase,
    follows_clause,
    is_opened,
    opens_compound,
    start_of_modifiers,
    starts_fragment,
)
from comat.entities.words import Kind, Word

_LISTED = (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK)
_NO_ATTRIBUTES = NEVER_THINGS | INTENSIFIERS | {"only", "just", "even", "more", "less", "almost"}
_WHERE = {"in", "on", "under", "beside", "near", "behind", "among", "between", "above", "below", "beneath", "with",
          "of", "from", "through", "against"}  # fmt: skip


def is_attribute(words: list[Word], place: int) -> bool:
    """Whether a word that another of its phrase follows is an attribute, whatever its tag."""
    word, following = words[place], words[place + 1]
    if following.kind not in (Kind.NOUN, Kind.ADJECTIVE):
        return False
    if word.lower in INTENSIFIERS:
        return following.kind is Kind.NOUN  # "ultra quality"
    if (
        word.lower in ATTRIBUTES
        or (word.kind is Kind.ADVERB and word.first.i != word.token.i)  # "a close-up image"
        or opens_compound(words, place)
        or _opens_fragment(words, place)
        or _is_misread_adjective(words, place)
        or is_listed_participle(words, place)
    ):
        return True
    if word.lower in SHAPED and place and words[place - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        return True
    return following.lower in SHAPED and following.kind is Kind.ADJECTIVE and word.kind is Kind.NOUN  # "heart shaped"


def is_of_materials(words: list[Word], place: int) -> bool:
    """ "a brick and stone house"."""
    both = MATERIALS | GEMS
    return words[place].lower in both and words[place + 1].lower == "and" and words[place + 2].lower in both


def is_linked(words: list[Word], place: int) -> bool:
    """ "an orange and black hydrant", not "an orange and a banana"."""
    link, following = words[place + 1 : place + 2], words[place + 2 : place + 3]
    return bool(link and following) and link[0].kind is Kind.LINK and following[0].kind is Kind.ADJECTIVE


def is_listed_participle(words: list[Word], place: int) -> bool:
    """ "the gentle, rustling leaves", "an oval serving dish", "two sleeping cats": a participle before its noun."""
    if not _may_be_participle(words, place):
        return False
    if ends_phrase(words, place) and words[place].lower in ING_THINGS:
        return False  # "white frosting and colorful sprinkles"
    start = place
    while start and (
        words[start - 1].kind in _LISTED or _may_be_listed(words[start - 1], words[start], start == place)
    ):
        start -= 1
    opener, listed = words[start - 1] if start else None, words[start:place]
    if not listed and opener is not None and opener.lower in _WHERE:  # "in rotting slats", not "by holding cups"
        return not ends_phrase(words, place) and words[place].lower not in TRANSITIVE
    if not listed:
        return opener is not None and (
            opener.lower in DETERMINERS - {"each", "her", "no"} or opener.kind is Kind.NUMERAL
        )
    if listed[0].kind is Kind.LINK:  # "a lady, dark, piercing eyes"
        return len(listed) > 2 and listed[-2].kind is Kind.ADJECTIVE and words[place].lower not in TRANSITIVE
    if opener is None or opener.token.pos_ == "ADP":  # not "in black and white, amusing children"
        return any(word.kind is Kind.ADJECTIVE and word.lower not in COLOURS for word in listed)
    return opener.token.pos_ in ("DET", "PRON") or opener.kind is Kind.NUMERAL


def _may_be_participle(words: list[Word], place: int) -> bool:
    """By its tag, or, after a link, by its form: "laughing and weeping statues"."""
    word = words[place]
    if word.token.tag_ in ("VBG", "VBN", "VBD"):
        return True
    is_ing = word.lower.endswith("ing") and word.lower not in ING_THINGS and word.dictionary.is_verb(word.lower)
    return is_ing and place > 0 and words[place - 1].kind is Kind.LINK


def _may_be_listed(word: Word, following: Word, is_last: bool) -> bool:
    """A material, if it is not the thing itself ("a glass filled"), or another participle before a link."""
    if word.kind is Kind.NOUN and word.lower in word.dictionary.adjectives and not word.dictionary.is_noun(word.lower):
        return True  # "iridescent"
    if word.lower in ATTRIBUTES:
        return not (is_last and word.lower in MATERIALS and word.kind is Kind.NOUN)
    return following.kind is Kind.LINK and word.token.tag_ in ("VBG", "VBN") and word.lower not in ING_THINGS


def is_adjective_after_all(words: list[Word], place: int) -> bool:
    """ "…, hyper detailed, …", "a plush, colorful rug": to the tagger a noun."""
    word, start = words[place], start_of_modifiers(words, place)
    if word.lower not in word.dictionary.nouns and word.lower.endswith(ADJECTIVAL) and start == place:
        before = words[place - 1] if place else None
        return before is None or before.kind is Kind.ADVERB or before.token.text in FRAGMENT_ENDS
    following = words[place + 1 : place + 3]
    is_hyphenated = word.first.i != word.token.i  # "an eye-level and vertical shot"
    links = (",", "and") if is_hyphenated else (",",)
    is_listed = len(following) == 2 and following[0].lower in links and following[1].kind is Kind.ADJECTIVE
    if not is_listed or not is_opened(words, start) or any(m.kind is not Kind.ADJECTIVE for m in words[start:place]):
        return False
    is_first = start == place and words[start - 1].lower in POSSESSIVES  # "their plump, oblong shapes"
    return is_hyphenated or ((is_first or _is_bound(words, place)) and word.lower in word.dictionary.adjectives)


def _is_bound(words: list[Word], place: int) -> bool:
    """Whether the noun of what follows the comma is the word's own, or stands beside it without an article."""
    token = words[place].token
    if token.head.i > words[place + 1].token.i and token.head.pos_ in ("NOUN", "PROPN"):
        return True
    return any(child.dep_ == "appos" and child.i == token.doc[-1].i for child in token.rights)


def _is_misread_adjective(words: list[Word], place: int) -> bool:
    """ "a back alley", ", diffuse light", "still photo": to the tagger an adverb, or a verb in its base form."""
    word, before = words[place], words[place - 1] if place else None
    if word.lower not in word.dictionary.adjectives or word.lower in _NO_ATTRIBUTES:
        return False
    opens = starts_fragment(words, place) or (before is not None and before.lower in DETERMINERS)
    if word.token.tag_ in ("VB", "VBP"):
        return opens or (before is not None and before.kind is Kind.ADJECTIVE)
    opens = opens or (before is not None and before.lower in PREPOSITIONS)
    following = words[place + 1]
    is_size = word.lower in SIZES and following.token.tag_ == "VBG"  # "long flowing hair"
    return opens and word.token.tag_ == "RB" and (following.kind is Kind.NOUN or is_size)


def _opens_fragment(words: list[Word], place: int) -> bool:
    """ "braided beard", "pink hair and glowing eyes", "by matching wooden chairs": a participle without object."""
    tag, word, before = words[place].token.tag_, words[place], words[place - 1] if place else None
    if tag not in ("VBN", "VBD", "VBG") or word.lower in TRANSITIVE:
        return False
    if before is None or (before.token.text in FRAGMENT_ENDS and (tag != "VBG" or not follows_clause(words, place))):
        return True
    if before.lower == "and":
        return words[place - 2].kind is Kind.NOUN and (tag == "VBN" or not follows_clause(words, place))
    return before.lower == "by" and words[place + 1].kind is Kind.ADJECTIVE
