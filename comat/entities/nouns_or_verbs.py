"""Words that the tagger reads as nouns and are verbs: "a spoon glints", "the mine showcases the rock"."""

from __future__ import annotations

from comat.entities.lexicon import ACTIONS, ATTRIBUTES, COLOURS_THAT_ARE_THINGS, DETERMINERS, ING_THINGS, SIZES
from comat.entities.neighbours import ARTICLES, follows_article, start_of_modifiers
from comat.entities.words import Kind, Word


def is_participle(word: Word, before: Word | None) -> bool:
    """ "…, barking and squeaking", "a clock ticking": a word in -ing after a comma, "and" or a noun."""
    if before is not None and word.lower in ("left", "right") and before.kind is Kind.NOUN:
        return True  # "a surfboard left behind"
    if before is None or word.token.tag_ != "NN" or not word.lower.endswith("ing") or word.lower in ING_THINGS:
        return False
    return before.kind is Kind.NOUN or (before.kind is Kind.LINK and not any(word.first.lefts))


def takes_object(words: list[Word], place: int) -> bool:
    """ "wearing red and blue holding a frisbee": a word in -ing before an article."""
    word, following = words[place], words[place + 1 : place + 2]
    is_ing = word.lower.endswith("ing") and word.lower not in ING_THINGS and word.dictionary.is_verb(word.lower)
    return is_ing and following != [] and following[0].lower in DETERMINERS


def is_verb_after_all(words: list[Word], place: int) -> bool:
    """ "a spoon glints": no plural follows "a", unless the grammar is the prompt's own ("a leather shoes").

    Nor does an article follow a noun ("the mine showcases the rock"), or an adverb ("the food gleams slightly").
    """
    word, before = words[place], words[place - 1] if place else None
    if before is None or before.lower in ATTRIBUTES | ACTIONS or word.token.tag_ not in ("NNS", "NN"):
        return False
    follows_noun = before.kind is Kind.NOUN or before.lower in before.dictionary.nouns
    following = words[place + 1] if place + 1 < len(words) else None
    is_followed = following is not None and (
        following.lower in DETERMINERS - {"no", "every", "each", "another"}
        or (following.kind is Kind.ADVERB and following.lower.endswith("ly") and not _is_participle_after(words, place))
    )
    agrees = (word.token.tag_ == "NNS") != (before.token.tag_ in ("NNS", "NNPS"))
    start = start_of_modifiers(words, place)
    is_counted = start > 0 and words[start - 1].kind is Kind.NUMERAL  # "three lettuce leaves gently float"
    if before.kind is Kind.NOUN and is_followed and agrees and not is_counted and word.dictionary.is_verb(word.lower):
        return True
    if word.token.tag_ != "NNS" or not follows_article(words, place) or not follows_noun:
        return False
    if word.dictionary.knows_as_noun(word.lower) and not word.dictionary.is_verb(word.lower):
        return False  # "an egg yolk"
    is_noun = before.kind is Kind.NOUN and before.token.tag_ == "NN"
    is_only_noun = before.dictionary.is_known(before.lower) and not before.dictionary.is_other(before.lower)
    is_bare = place > 1 and words[place - 2].lower in ARTICLES and before.lower not in SIZES
    return is_noun or is_only_noun or is_bare


def _is_participle_after(words: list[Word], place: int) -> bool:
    """ "of disposal bins neatly aligned against a wall", not "a teddy bear lays partially covered"."""
    after = words[place + 2 : place + 3] if not follows_article(words, place) else []
    return after != [] and after[0].token.tag_ in ("VBN", "VBD") and after[0].lower.endswith(("ed", "en"))


def is_surely_verb(words: list[Word], place: int) -> bool:
    """ "the mine showcases the rock", "a bright orange sits": by what follows, or because it is no noun."""
    word, before, following = words[place], words[max(0, place - 1)], words[place + 1 : place + 2]
    takes_object = following != [] and following[0].lower in DETERMINERS - {"no", "every", "each", "another"}
    if word.token.tag_ == "VBP" and not word.dictionary.is_verb(word.lower):
        return False
    is_after_thing = before.kind is Kind.NOUN or before.lower in COLOURS_THAT_ARE_THINGS
    return is_after_thing and (takes_object or not word.dictionary.is_noun(word.lower))
