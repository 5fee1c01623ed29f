"""Words that must be nouns, though the tagger reads them otherwise: "a round pendant", "hose on table"."""

from __future__ import annotations

from comat.entities.lexicon import (
    ADJECTIVAL,
    AFTER_THE_NOUN,
    ATTRIBUTES,
    COLOURS,
    DETERMINERS,
    ING_THINGS,
    NEVER_THINGS,
    PREPOSITIONS,
    QUANTIFIERS,
    SHAPES,
    SIDES,
    SIZES,
    SUBJECTS,
)
from comat.entities.neighbours import (
    FRAGMENT_ENDS,
    follows_article,
    is_adjective,
    is_before_link,
    is_opened,
    opens_compound,
    start_of_modifiers,
    starts_fragment,
)
from comat.entities.nouns_or_verbs import is_surely_verb
from comat.entities.words import Kind, Word

_NO_THINGS = NEVER_THINGS | QUANTIFIERS | AFTER_THE_NOUN


def must_be_noun(words: list[Word], place: int) -> bool:
    """Whether the last word of a phrase that has no other noun is one, though its tag is another.

    "a pink cross", "a round pendant", "a soda can", "three saws", "hose on a table", "Boy in blue": verbs, adjectives,
    interjections to small parsers.
    """
    word = words[place]
    if word.lower in _NO_THINGS or not word.token.text.isalpha():
        return False
    if place and words[place - 1].lower in SUBJECTS:
        return False
    following = words[place + 1] if place + 1 < len(words) else None
    is_auxiliary = word.token.pos_ == "AUX" and following is not None and following.token.tag_ in ("VB", "RB")
    if word.kind is Kind.NUMERAL or is_auxiliary or (word.lower == "left" and word.token.tag_ == "VBN"):
        return False
    if word.token.tag_ in ("VBZ", "VBP", "VBD") and is_surely_verb(words, place):
        return False
    start = start_of_modifiers(words, place)
    opener, modifiers = words[start - 1] if start else None, words[start:place]
    if word.lower.endswith("ing") and not _may_be_noun(word):
        return False
    if modifiers and _is_surely_attribute(modifiers[-1]):
        return word.token.pos_ in ("ADJ", "VERB", "ADV", "AUX", "PRON", "INTJ")
    knows_as_noun = word.dictionary.knows_as_noun(word.lower)
    if modifiers and modifiers[-1].kind is Kind.NOUN and word.token.tag_ == "JJ" and not knows_as_noun:
        return False  # "an architecture reminiscent of"
    if modifiers and following is not None and following.lower == "of" and word.token.tag_ == "JJ" and knows_as_noun:
        return True  # "detailed schematic of"
    if modifiers and follows_article(words, place) and word.token.tag_ == "JJ":
        return not (is_before_link(words, place) and is_adjective(word))  # "a medieval, complex and beautiful axe"
    if not _may_be_noun(word) or _is_gapped(words, place):
        return False
    if not word.dictionary.is_other(word.lower) and word.dictionary.is_known(word.lower):
        return True
    opens = opener is not None and (opener.lower in DETERMINERS or opener.kind is Kind.NUMERAL)
    if not modifiers:
        return (opens and not _is_pronoun(words, start - 1)) or _stands_alone(words, place)
    if not any(modifier.kind is Kind.NOUN for modifier in modifiers):
        return opens or not is_adjective(word)
    if _is_short_fragment(words, place):
        return True
    ends_clause = place + 1 == len(words) or words[place + 1].first.pos_ in ("CCONJ", "PUNCT")
    is_verb = word.token.tag_ in ("MD", "VB", "VBP", "VBN", "VBD") or word.lower in ING_THINGS
    return follows_article(words, place) and ends_clause and is_verb


def _is_pronoun(words: list[Word], at: int) -> bool:
    """ "makes one feel", "a family of four stands": a numeral before a verb."""
    is_one = words[at].lower == "one" and at > 0 and words[at - 1].lower not in ("and", ",")
    is_counted = words[at].kind is Kind.NUMERAL and at > 0 and words[at - 1].lower == "of"
    return (is_one or is_counted) and words[at + 1].token.tag_.startswith("VB")


def _is_surely_attribute(word: Word) -> bool:
    """A colour or shape, or a material that is no thing here: "a glass sits" is not "a wooden saw"."""
    return word.lower in COLOURS | SHAPES or (word.lower in ATTRIBUTES and word.kind is Kind.ADJECTIVE)


def _may_be_noun(word: Word) -> bool:
    if (word.token.tag_ in ("JJR", "JJS") and word.lower not in word.dictionary.nouns) or not word.dictionary.is_noun(
        word.lower
    ):
        return False
    last = word.token.lower_
    if last.endswith("ing"):
        return last in ING_THINGS or (last in word.dictionary.nouns and not word.dictionary.is_verb(last))
    return word.token.tag_ not in ("VBN", "VBD") or word.lower in word.dictionary.nouns


def _is_gapped(words: list[Word], place: int) -> bool:
    """Whether the noun of an adjective stands after a link: "a tall and slim man", "a small and a large box"."""
    word, following = words[place], words[place + 1 : place + 3]
    if not is_adjective(word) or len(following) < 2 or following[0].kind is not Kind.LINK:
        return False
    opens = following[1].lower in DETERMINERS or following[1].kind is Kind.NUMERAL
    is_comma = following[0].token.text == ","
    return word.lower in SIZES or following[1].kind is Kind.ADJECTIVE or (is_comma and place > 0 and not opens)


def _stands_alone(words: list[Word], place: int) -> bool:
    """Whether the word is a whole fragment up to a preposition, comma, "and" or the end: "spoon next to bowl"."""
    word = words[place]
    if opens_compound(words, place - 1):
        return True
    if place and words[place - 1].token.text not in FRAGMENT_ENDS and words[place - 1].lower not in ("and", "or"):
        return _follows_preposition(words, place)
    following = words[place + 1] if place + 1 < len(words) else None
    is_other = word.dictionary.is_other(word.lower)
    if following is not None and following.token.lemma_ == "be" and starts_fragment(words, place):
        return True  # "…; rose is left to dog"
    if _is_second_noun(words, place):
        return True
    if is_other and following is not None and following.token.pos_ in ("DET", "PRON", "PART", "AUX", "VERB"):
        return False  # "draw a cat"
    if place == 0:
        return word.lower not in SIZES
    if word.token.pos_ in ("ADV", "ADP", "AUX"):
        return False
    if is_adjective(word) or (not word.dictionary.is_known(word.lower) and word.lower.endswith(ADJECTIVAL)):
        return False  # "…, hyperdetailed"
    return not (is_other and word.token.tag_.startswith("VB"))


def _is_second_noun(words: list[Word], place: int) -> bool:
    """ "white toilet and sink in a room", "dog and remote": after a noun and "and", where no verb stands before."""
    before = place - 2 if place < 3 or words[place - 2].token.text != "," else place - 3
    if before < 0 or words[place - 1].lower != "and" or words[before].token.pos_ not in ("NOUN", "PROPN"):
        return False
    tags = ("VB", "VBP") if words[place].token.tag_ in ("VB", "VBP") else ()
    follows_article = is_opened(words, start_of_modifiers(words, before))
    has_verb = any(
        other.token.pos_ in ("VERB", "AUX") if not (tags and follows_article) else other.token.tag_ in tags
        for other in words[:place]
    )
    return not has_verb and words[place].lower in words[place].dictionary.nouns and words[place].lower not in SIZES


def _is_short_fragment(words: list[Word], place: int) -> bool:
    """ "…, dew drops, …": two words between commas."""
    ends = place + 1 == len(words) or words[place + 1].token.text in FRAGMENT_ENDS
    return place > 1 and ends and words[place - 2].token.text in FRAGMENT_ENDS


def _follows_preposition(words: list[Word], place: int) -> bool:
    """ "next to bowl", "behind tram"; not "ready to bowl", "to relax in fills us"."""
    word, before = words[place], words[place - 1]
    if before.lower not in PREPOSITIONS or (
        before.lower == "to" and (place < 2 or words[place - 2].lower not in SIDES)
    ):
        return False
    following = words[place + 1] if place + 1 < len(words) else None
    if following is not None and following.token.pos_ in ("DET", "PRON", "AUX", "ADV"):
        return False
    return not is_adjective(word) and word.token.pos_ in ("VERB", "ADJ")
