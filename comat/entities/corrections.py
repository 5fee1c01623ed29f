"""What small parsers get wrong in the language of prompts, mended by the neighbouring words and by what a word can be.

They learn from news and web text. Of prompts they misread bare nouns ("a round pendant": an adjective; "hose on table":
a verb), shapes and materials ("a triangular bookshelf": two nouns), lists and participles.
"""

from __future__ import annotations

from spacy.tokens import Doc

from comat.entities.lexicon import (
    ACTIONS,
    AFTER_THE_NOUN,
    ATTRIBUTES,
    COLOURS,
    COLOURS_THAT_ARE_THINGS,
    DETERMINERS,
    ING_THINGS,
    INTENSIFIERS,
    MATERIALS,
    NEVER_THINGS,
    PREPOSITIONS,
    QUANTIFIERS,
    SHAPED,
    SHAPES,
    SIDES,
    SIZES,
    TRANSITIVE,
    WORKS_IN_ING,
)
from comat.entities.missing_verbs import is_missing_verb
from comat.entities.words import Kind, Word, words_of

_ARTICLES = {"a", "an"}
_FRAGMENT_ENDS = {",", ";", ":", ".", "—", "–", "-", "|", "/", "!", "?", "(", "\n"}
_ADJECTIVAL = ("ic", "ed", "ian", "ish", "ive", "al", "ous", "ful", "able", "less", "esque", "core")
_NO_THINGS = NEVER_THINGS | QUANTIFIERS | AFTER_THE_NOUN
_WHERE = {"in", "on", "under", "beside", "near", "behind", "among", "between", "above", "below", "beneath"}
_LISTED = (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK)


def corrected_words(doc: Doc) -> list[Word]:
    """The words of a parsed prompt, corrected from the last to the first."""
    words = words_of(doc)
    for place in reversed(range(len(words))):
        words[place].kind = _corrected(words, place)
    return words


def _corrected(words: list[Word], place: int) -> Kind:
    word, ends = words[place], _ends_phrase(words, place)
    before = words[place - 1] if place else None
    if word.kind in (Kind.OTHER, Kind.LINK) and word.closes and word.token.pos_ != "AUX":
        return word.kind
    if word.kind is Kind.NOUN and word.token.pos_ != "PROPN" and not word.dictionary.is_noun(word.lower):
        word.kind = _without_noun(words, place) or Kind.NOUN
        if word.kind is not Kind.NOUN:
            return word.kind
    if _is_work(words, place):
        return Kind.NOUN
    if not ends and _is_attribute(words, place):
        return Kind.ADJECTIVE
    if not ends and word.kind is Kind.NOUN and word.lower in ACTIONS and before and before.kind is Kind.NOUN:
        return Kind.OTHER  # "a girl in a dress fighting monsters"
    if not ends:  # "a mane moves gracefully"
        is_verb = words[place + 1].kind is Kind.ADVERB and (_is_verb(words, place) or is_missing_verb(words, place))
        return Kind.OTHER if is_verb else word.kind
    if word.lower in COLOURS:
        if _is_colour_itself(words, place) or _is_surname(words, place):
            return Kind.NOUN
        is_thing = word.lower in COLOURS_THAT_ARE_THINGS and (
            word.token.pos_ in ("NOUN", "PROPN")
            or before is None
            or before.lower in _ARTICLES
            or before.kind is Kind.NUMERAL
        )
        return Kind.NOUN if is_thing and not _is_linked(words, place) else Kind.ADJECTIVE
    if _is_before_link(words, place) and (_is_listed_participle(words, place) or _is_of_materials(words, place)):
        return Kind.ADJECTIVE
    if word.kind is Kind.NOUN and _is_adjective_after_all(words, place):
        return Kind.ADJECTIVE
    if word.kind is Kind.NOUN and _takes_object(words, place):
        return Kind.OTHER
    if word.kind is Kind.NOUN:
        is_verb = _is_participle(word, before) or _is_verb(words, place) or is_missing_verb(words, place)
        return Kind.OTHER if is_verb else Kind.NOUN
    return Kind.NOUN if _must_be_noun(words, place) else word.kind


def _is_work(words: list[Word], place: int) -> bool:
    """ "a matte painting by": a picture, not what somebody does."""
    word, following, before = words[place], words[place + 1 : place + 2], words[max(0, place - 1)]
    by = following != [] and following[0].lower in ("by", "of")
    opens = before.kind in (Kind.NOUN, Kind.ADJECTIVE) or before.token.text in _FRAGMENT_ENDS
    return place > 0 and by and word.lower in WORKS_IN_ING and opens


def _without_noun(words: list[Word], place: int) -> Kind | None:
    """What a noun of the tagger's is that is none to the dictionary: "crispy", "entwine"; None: unsure."""
    word, start, ends = words[place], _start_of_modifiers(words, place), _ends_phrase(words, place)
    if word.lower in word.dictionary.adverbs - word.dictionary.adjectives:
        return Kind.ADVERB  # "the floor creaks underfoot"
    follows_noun = any(modifier.kind is Kind.NOUN for modifier in words[start:place])
    if ends and _is_opened(words, start) and not follows_noun and not _is_before_link(words, place):
        return Kind.NOUN  # "a podcast", "a striking visual"
    if word.lower in word.dictionary.adjectives:
        return Kind.ADJECTIVE
    return Kind.OTHER if ends and follows_noun else None


def _ends_phrase(words: list[Word], place: int) -> bool:
    """Whether no word of the same noun phrase can follow."""
    if place + 1 == len(words):
        return True
    following = words[place + 1]
    is_verb = following.kind is Kind.OTHER and following.token.tag_ in ("NN", "NNS", "VBZ", "VBP", "VBD", "VBN", "MD")
    is_misread = words[place].token.pos_ not in ("NOUN", "PROPN") or words[place].lower in COLOURS_THAT_ARE_THINGS
    return (following.closes and following.kind is not Kind.NOUN) or (is_verb and is_misread)


def _is_attribute(words: list[Word], place: int) -> bool:
    """Whether a word that another of its phrase follows is an attribute, whatever its tag."""
    word, following = words[place], words[place + 1]
    if following.kind not in (Kind.NOUN, Kind.ADJECTIVE):
        return False
    if word.lower in INTENSIFIERS:
        return following.kind is Kind.NOUN  # "ultra quality"
    if (
        word.lower in ATTRIBUTES
        or (word.kind is Kind.ADVERB and word.first.i != word.token.i)  # "a close-up image"
        or _opens_compound(words, place)
        or _opens_fragment(words, place)
        or _is_listed_participle(words, place)
    ):
        return True
    if word.lower in SHAPED and place and words[place - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        return True
    return following.lower in SHAPED and following.kind is Kind.ADJECTIVE and word.kind is Kind.NOUN  # "heart shaped"


def _is_colour_itself(words: list[Word], place: int) -> bool:
    """ "the bright white of the bat"."""
    start = _start_of_modifiers(words, place)
    return words[place + 1 : place + 2] != [] and words[place + 1].lower == "of" and _is_opened(words, start)


def _is_opened(words: list[Word], start: int) -> bool:
    return start > 0 and words[start - 1].lower in DETERMINERS


def _is_surname(words: list[Word], place: int) -> bool:
    """ "by alex grey"."""
    before = words[place - 2 : place]
    is_name = len(before) == 2 and before[0].lower in ("by", "and", ",") and before[1].token.pos_ == "PROPN"
    return is_name and before[1].kind is Kind.NOUN and any(word.lower == "by" for word in words[:place])


def _is_before_link(words: list[Word], place: int) -> bool:
    """ "smiling and crying masks": what follows the link is an adjective of the same list."""
    following = words[place + 2 : place + 3]
    return bool(following) and words[place + 1].kind is Kind.LINK and following[0].kind is Kind.ADJECTIVE


def _is_of_materials(words: list[Word], place: int) -> bool:
    """ "a brick and stone house"."""
    return words[place].lower in MATERIALS and words[place + 1].lower == "and" and words[place + 2].lower in MATERIALS


def _is_linked(words: list[Word], place: int) -> bool:
    """ "an orange and black hydrant", not "an orange and a banana"."""
    link, following = words[place + 1 : place + 2], words[place + 2 : place + 3]
    return bool(link and following) and link[0].kind is Kind.LINK and following[0].kind is Kind.ADJECTIVE


def _is_listed_participle(words: list[Word], place: int) -> bool:
    """ "the gentle, rustling leaves", "an oval serving dish", "two sleeping cats": a participle before its noun."""
    if not _may_be_participle(words, place):
        return False
    if _ends_phrase(words, place) and words[place].lower in ING_THINGS:
        return False  # "white frosting and colorful sprinkles"
    start = place
    while start and (
        words[start - 1].kind in _LISTED or _may_be_listed(words[start - 1], words[start], start == place)
    ):
        start -= 1
    opener, listed = words[start - 1] if start else None, words[start:place]
    if not listed and opener is not None and opener.lower in _WHERE:  # "in rotting slats", not "by holding cups"
        return not _ends_phrase(words, place) and words[place].lower not in TRANSITIVE
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


def _is_participle(word: Word, before: Word | None) -> bool:
    """ "…, barking and squeaking", "a clock ticking": a word in -ing after a comma, "and" or a noun."""
    if before is not None and word.lower in ("left", "right") and before.kind is Kind.NOUN:
        return True  # "a surfboard left behind"
    if before is None or word.token.tag_ != "NN" or not word.lower.endswith("ing") or word.lower in ING_THINGS:
        return False
    return before.kind is Kind.NOUN or (before.kind is Kind.LINK and not any(word.first.lefts))


def _takes_object(words: list[Word], place: int) -> bool:
    """ "wearing red and blue holding a frisbee": a word in -ing before an article."""
    word, following = words[place], words[place + 1 : place + 2]
    is_ing = word.lower.endswith("ing") and word.lower not in ING_THINGS and word.dictionary.is_verb(word.lower)
    return is_ing and following != [] and following[0].lower in DETERMINERS


def _is_verb(words: list[Word], place: int) -> bool:
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
        or (following.kind is Kind.ADVERB and following.lower.endswith("ly"))
    )
    agrees = (word.token.tag_ == "NNS") != (before.token.tag_ in ("NNS", "NNPS"))
    start = _start_of_modifiers(words, place)
    is_counted = start > 0 and words[start - 1].kind is Kind.NUMERAL  # "three lettuce leaves gently float"
    if before.kind is Kind.NOUN and is_followed and agrees and not is_counted and word.dictionary.is_verb(word.lower):
        return True
    if word.token.tag_ != "NNS" or not _follows_article(words, place) or not follows_noun:
        return False
    is_noun = before.kind is Kind.NOUN and before.token.tag_ == "NN"
    is_only_noun = before.dictionary.is_known(before.lower) and not before.dictionary.is_other(before.lower)
    is_bare = place > 1 and words[place - 2].lower in _ARTICLES and before.lower not in SIZES
    return is_noun or is_only_noun or is_bare


def _is_adjective_after_all(words: list[Word], place: int) -> bool:
    """ "…, hyper detailed, …", "a plush, colorful rug": to the tagger a noun."""
    word, start = words[place], _start_of_modifiers(words, place)
    if word.lower not in word.dictionary.nouns and word.lower.endswith(_ADJECTIVAL) and start == place:
        before = words[place - 1] if place else None
        return before is None or before.kind is Kind.ADVERB or before.token.text in _FRAGMENT_ENDS
    following = words[place + 1 : place + 3]
    is_hyphenated = word.first.i != word.token.i  # "an eye-level and vertical shot"
    links = (",", "and") if is_hyphenated else (",",)
    is_listed = len(following) == 2 and following[0].lower in links and following[1].kind is Kind.ADJECTIVE
    if not is_listed or not _is_opened(words, start) or any(m.kind is not Kind.ADJECTIVE for m in words[start:place]):
        return False
    return is_hyphenated or (_is_bound(words, place) and word.lower in word.dictionary.adjectives)


def _is_bound(words: list[Word], place: int) -> bool:
    """Whether the noun of what follows the comma is the word's own, or stands beside it without an article."""
    token = words[place].token
    if token.head.i > words[place + 1].token.i and token.head.pos_ in ("NOUN", "PROPN"):
        return True
    return any(child.dep_ == "appos" and child.i == token.doc[-1].i for child in token.rights)


def _follows_article(words: list[Word], place: int) -> bool:
    """Whether nothing but adjectives and nouns, and at least one, stands between "a" and the word."""
    start = _start_of_modifiers(words, place)
    return 0 < start < place and words[start - 1].lower in _ARTICLES


def _start_of_modifiers(words: list[Word], place: int) -> int:
    while place and (words[place - 1].kind in (Kind.NOUN, Kind.ADJECTIVE) or words[place - 1].lower in ATTRIBUTES):
        place -= 1
    return place


def _must_be_noun(words: list[Word], place: int) -> bool:
    """Whether the last word of a phrase that has no other noun is one, though its tag is another.

    "a pink cross", "a round pendant", "a soda can", "three saws", "hose on a table", "Boy in blue": verbs, adjectives,
    interjections to small parsers.
    """
    word = words[place]
    if word.lower in _NO_THINGS or not word.token.text.isalpha():
        return False
    following = words[place + 1] if place + 1 < len(words) else None
    is_auxiliary = word.token.pos_ == "AUX" and following is not None and following.token.tag_ in ("VB", "RB")
    if word.kind is Kind.NUMERAL or is_auxiliary or (word.lower == "left" and word.token.tag_ == "VBN"):
        return False
    if word.token.tag_ in ("VBZ", "VBP", "VBD") and _is_surely_verb(words, place):
        return False
    start = _start_of_modifiers(words, place)
    opener, modifiers = words[start - 1] if start else None, words[start:place]
    if modifiers and _is_surely_attribute(modifiers[-1]):
        return word.token.pos_ in ("ADJ", "VERB", "ADV", "AUX", "PRON", "INTJ")
    if modifiers and _follows_article(words, place) and word.token.tag_ == "JJ":
        return True
    if not _may_be_noun(word) or _is_gapped(words, place):
        return False
    if not word.dictionary.is_other(word.lower) and word.dictionary.is_known(word.lower):
        return True
    opens = opener is not None and (opener.lower in DETERMINERS or opener.kind is Kind.NUMERAL)
    if not modifiers:
        return (opens and not _is_pronoun(words, start - 1)) or _stands_alone(words, place)
    if not any(modifier.kind is Kind.NOUN for modifier in modifiers):
        return opens or not _is_adjective(word)
    if _is_short_fragment(words, place):
        return True
    ends_clause = place + 1 == len(words) or words[place + 1].first.pos_ in ("CCONJ", "PUNCT")
    is_verb = word.token.tag_ in ("MD", "VB", "VBP", "VBN", "VBD") or word.lower in ING_THINGS
    return _follows_article(words, place) and ends_clause and is_verb


def _is_surely_verb(words: list[Word], place: int) -> bool:
    """ "the mine showcases the rock", "a bright orange sits": by what follows, or because it is no noun."""
    word, before, following = words[place], words[max(0, place - 1)], words[place + 1 : place + 2]
    takes_object = following != [] and following[0].lower in DETERMINERS - {"no", "every", "each", "another"}
    if word.token.tag_ == "VBP" and not word.dictionary.is_verb(word.lower):
        return False
    is_after_thing = before.kind is Kind.NOUN or before.lower in COLOURS_THAT_ARE_THINGS
    return is_after_thing and (takes_object or not word.dictionary.is_noun(word.lower))


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


def _is_adjective(word: Word) -> bool:
    return word.token.pos_ == "ADJ" and word.lower in word.dictionary.adjectives


def _is_gapped(words: list[Word], place: int) -> bool:
    """Whether the noun of an adjective stands after a link: "a tall and slim man", "a small and a large box"."""
    word, following = words[place], words[place + 1 : place + 3]
    if not _is_adjective(word) or len(following) < 2 or following[0].kind is not Kind.LINK:
        return False
    opens = following[1].lower in DETERMINERS or following[1].kind is Kind.NUMERAL
    is_comma = following[0].token.text == ","
    return word.lower in SIZES or following[1].kind is Kind.ADJECTIVE or (is_comma and place > 0 and not opens)


def _stands_alone(words: list[Word], place: int) -> bool:
    """Whether the word is a whole fragment up to a preposition, comma, "and" or the end: "spoon next to bowl"."""
    word = words[place]
    if _opens_compound(words, place - 1):
        return True
    if place and words[place - 1].token.text not in _FRAGMENT_ENDS and words[place - 1].lower not in ("and", "or"):
        return _follows_preposition(words, place)
    following = words[place + 1] if place + 1 < len(words) else None
    is_other = word.dictionary.is_other(word.lower)
    if following is not None and following.token.lemma_ == "be" and _starts_fragment(words, place):
        return True  # "…; rose is left to dog"
    if _is_second_noun(words, place):
        return True
    if is_other and following is not None and following.token.pos_ in ("DET", "PRON", "PART", "AUX", "VERB"):
        return False  # "draw a cat"
    if place == 0:
        return word.lower not in SIZES
    if word.token.pos_ in ("ADV", "ADP", "AUX"):
        return False
    if _is_adjective(word) or (not word.dictionary.is_known(word.lower) and word.lower.endswith(_ADJECTIVAL)):
        return False  # "…, hyperdetailed"
    return not (is_other and word.token.tag_.startswith("VB"))


def _is_second_noun(words: list[Word], place: int) -> bool:
    """ "white toilet and sink in a room", "dog and remote": after a noun and "and", where no verb stands before."""
    before = place - 2 if place < 3 or words[place - 2].token.text != "," else place - 3
    if before < 0 or words[place - 1].lower != "and" or words[before].token.pos_ not in ("NOUN", "PROPN"):
        return False
    tags = ("VB", "VBP") if words[place].token.tag_ in ("VB", "VBP") else ()
    follows_article = _is_opened(words, _start_of_modifiers(words, before))
    has_verb = any(
        other.token.pos_ in ("VERB", "AUX") if not (tags and follows_article) else other.token.tag_ in tags
        for other in words[:place]
    )
    return not has_verb and words[place].lower in words[place].dictionary.nouns and words[place].lower not in SIZES


def _starts_fragment(words: list[Word], place: int) -> bool:
    return place == 0 or words[place - 1].token.text in _FRAGMENT_ENDS


def _opens_compound(words: list[Word], place: int) -> bool:
    """ "stop sign", "paint brush": a verb in its base form that opens a fragment, without an article after it."""
    if place < 0 or place + 1 >= len(words):
        return False
    if not _starts_fragment(words, place) and not _takes_bare_nouns(words, place - 1):
        return False
    word, following = words[place], words[place + 1]
    nouns = word.dictionary.nouns
    is_base = (word.token.tag_ in ("VB", "VBP", "VBZ") and not word.lower.endswith("s")) or (
        word.lower in nouns and not word.dictionary.is_other(word.lower)
    )
    return is_base and word.lower in nouns and following.lower in nouns and not following.closes


def _takes_bare_nouns(words: list[Word], place: int) -> bool:
    """ "dog and stop sign", "a photo of stop sign", "left to stop sign"."""
    word = words[place].lower
    return word in ("and", "of", "with") or (word == "to" and place > 0 and words[place - 1].lower in SIDES)


def _opens_fragment(words: list[Word], place: int) -> bool:
    """ "braided beard", "pink hair and glowing eyes", "by matching wooden chairs": a participle without object."""
    tag, word, before = words[place].token.tag_, words[place], words[place - 1] if place else None
    if tag not in ("VBN", "VBD", "VBG") or word.lower in TRANSITIVE:
        return False
    if before is None or (before.token.text in _FRAGMENT_ENDS and (tag != "VBG" or not _has_finite_verb(words))):
        return True
    if before.lower == "and":
        return words[place - 2].kind is Kind.NOUN and (tag == "VBN" or not _has_finite_verb(words))
    return before.lower in ("by", "with") and words[place + 1].kind is Kind.ADJECTIVE


def _has_finite_verb(words: list[Word]) -> bool:
    """Whether the prompt is a sentence; otherwise it is a list or a phrase. No sentence starts with its verb."""
    return any(
        word.token.pos_ == "AUX" or (word.token.tag_ in ("VBZ", "VBP", "VBD") and not _starts_fragment(words, place))
        for place, word in enumerate(words)
    )


def _is_short_fragment(words: list[Word], place: int) -> bool:
    """ "…, dew drops, …": two words between commas."""
    ends = place + 1 == len(words) or words[place + 1].token.text in _FRAGMENT_ENDS
    return place > 1 and ends and words[place - 2].token.text in _FRAGMENT_ENDS


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
    return not _is_adjective(word) and word.token.pos_ in ("VERB", "ADJ")
