"""What a word is by the dictionary, where it leaves no choice, or where the tag is none of what the word can be."""

from __future__ import annotations

from comat.entities.lexicon import (
    ACTIONS,
    AGENTS,
    ATTRIBUTES,
    COLOURS_THAT_ARE_THINGS,
    ING_THINGS,
    NEVER_THINGS,
    PREPOSITIONS,
    QUANTIFIERS,
    SHAPED,
    SIDES,
    SUBJECTS,
)
from comat.entities.words import Kind, Word

_NEVER_NOUNS = NEVER_THINGS | QUANTIFIERS | ATTRIBUTES | SHAPED | {"upside"}
_AUXILIARIES = {"be", "have"}
_UNLIKELY = {"RB", "VB", "VBP", "FW", "UH"}
_ENDINGS = ("ly", "ed", "ing", "wards", "wise", "s")
_CLOSED = {"IN", "RP", "TO", "CC", "CD", "POS"}


def by_dictionary(words: list[Word], place: int) -> Kind | None:
    """The kind of a word whatever its tag; None where the dictionary leaves the choice to the tagger."""
    word = words[place]
    if word.kind is Kind.NUMERAL or word.first.i != word.token.i or not word.text.isalpha() or len(word.text) < 2:
        return None
    if word.lower == "can":
        return Kind.OTHER if _is_auxiliary(words, place) else Kind.NOUN
    if _acts(words, place) or _is_verb_of_pronoun(words, place) or _is_participle_behind(words, place):
        return Kind.OTHER
    if word.lower in _NEVER_NOUNS or _is_ing(word) or _is_infinitive(words, place):
        return None
    if not word.dictionary.is_known(word.lower) and not word.token.is_stop:
        return Kind.NOUN if word.token.tag_ in _UNLIKELY and not word.lower.endswith(_ENDINGS) else None
    if not _may_have_its_tag(word) and word.dictionary.knows_as_noun(word.lower):
        return Kind.OTHER if _agrees_with_plural(words, place) else Kind.NOUN
    return Kind.OTHER if word.token.tag_ == "JJ" and _is_only_verb(word) else None


def _is_auxiliary(words: list[Word], place: int) -> bool:
    """ "you can see": before a verb in its base form; not "a trash can on", "a beer can stands"."""
    if place and words[place - 1].token.pos_ == "PRON":
        return True
    for word in words[place + 1 :]:
        if word.kind is Kind.ADVERB or word.token.pos_ in ("PRON", "PART"):
            continue
        lower, dictionary = word.lower, word.dictionary
        is_verb = lower in _AUXILIARIES or (lower in dictionary.verbs and lower not in dictionary.nouns)
        return is_verb or word.token.tag_ == "VB"
    return False


def _acts(words: list[Word], place: int) -> bool:
    """ "a dragon breathing fire", "an orange wearing a hat", not "a fire breathing dragon", "an ice skating rink"."""
    word, before = words[place], words[place - 1] if place else None
    if before is None or not _is_ing(word):
        return False
    if before.kind is not Kind.NOUN and before.lower not in COLOURS_THAT_ARE_THINGS:
        return False
    if word.lower in ACTIONS or word.lower not in word.dictionary.nouns:
        return True
    return before.dictionary.singular(before.lower, True) in AGENTS or before.lower in AGENTS


def _is_participle_behind(words: list[Word], place: int) -> bool:
    """ "yoghurt dripping from his face", "berries dripping, …", read as an adjective."""
    word, before, following = words[place], words[place - 1] if place else None, words[place + 1 : place + 2]
    if before is None or before.kind is not Kind.NOUN or word.token.tag_ != "JJ" or not _is_ing(word):
        return False
    ends = following == [] or following[0].lower in PREPOSITIONS or following[0].text == ","
    return ends and word.lower not in word.dictionary.adjectives


def _is_verb_of_pronoun(words: list[Word], place: int) -> bool:
    """ "it clutches a banana", read as a noun."""
    word = words[place]
    follows = place > 0 and words[place - 1].lower in SUBJECTS
    return follows and word.token.tag_ in ("NN", "NNS") and word.dictionary.is_verb(word.lower)


def _is_ing(word: Word) -> bool:
    return word.lower.endswith("ing") and word.lower not in ING_THINGS and word.dictionary.is_verb(word.lower)


def _is_infinitive(words: list[Word], place: int) -> bool:
    """ "stretching to nibble on leaves", not "next to bowl"."""
    is_after_to = place > 1 and words[place - 1].lower == "to" and words[place - 2].lower not in SIDES
    return is_after_to and words[place].lower in words[place].dictionary.verbs


def _agrees_with_plural(words: list[Word], place: int) -> bool:
    """ "as their muscles ache", read as an adverb."""
    is_base = words[place].lower in words[place].dictionary.verbs
    return is_base and place > 0 and words[place - 1].token.tag_ in ("NNS", "NNPS")


def _may_have_its_tag(word: Word) -> bool:
    tag, lower, dictionary = word.token.tag_, word.lower, word.dictionary
    if tag.startswith("NN"):
        return True
    if tag.startswith("VB"):
        return dictionary.is_verb(lower)
    if tag.startswith("JJ"):
        return lower in dictionary.adjectives or (tag != "JJ" and lower.endswith(("er", "est")))
    if tag.startswith("RB"):
        return lower in dictionary.adverbs or lower in dictionary.adjectives or tag != "RB"
    return word.token.is_stop or tag in _CLOSED


def _is_only_verb(word: Word) -> bool:
    """ "leaves protrude"."""
    return word.lower in word.dictionary.verbs and not word.dictionary.knows_otherwise(word.lower)
