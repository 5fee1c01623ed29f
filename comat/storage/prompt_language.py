"""The language of a prompt, guessed: the parser, the noun list and most text encoders know English only."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

ENGLISH = "English"
_SMALL_WORDS = {
    ENGLISH: "a an the of and in on with is are at by for to its his her from as two next under behind",
    "Czech": "na se je které který pod vedle dva dvě před za",
    "Danish": "og en et på med der er den det af til ved under to",
    "Dutch": "de het een en van met op naast twee achter voor bij",
    "Finnish": "ja on joka päällä vieressä kaksi alla kanssa takana edessä",
    "French": "le la les un une des du et dans sur avec est qui au aux sous deux",
    "German": "der die das und ein eine einen einem einer mit auf im ist dem den zwei unter neben vor",
    "Indonesian": "di dan yang dengan sebuah seekor seorang atas bawah dua dari pada",
    "Italian": "il lo la gli un una di che sul sulla nel nella due della del con accanto",
    "Polish": "na jest obok pod który która dwa dwie przed za się",
    "Portuguese": "os um uma com em na da das dos ao dois duas sobre",
    "Romanian": "un pe cu și din lângă care două doi este sub în",
    "Spanish": "el la los las un una en con sobre del de que por dos junto",
    "Swedish": "och en ett på med som är den det av till vid två under",
    "Turkish": "bir ve ile üzerinde olan iki altında yanında önünde bu",
    "Vietnamese": "một và trên của với con cái có dưới hai bên đang",
}
"""Words that a sentence of a language can hardly do without."""
_SETS = {language: frozenset(words.split()) for language, words in _SMALL_WORDS.items()}
_SCRIPTS = {"CJK": "Chinese"}
"""Scripts that Unicode names otherwise than people do; Japanese without kana counts as Chinese."""
_WORD = re.compile(r"[^\W\d_]+")


def language(text: str) -> str:
    """ "English" where nothing says otherwise; "German"; "Cyrillic script"."""
    if not text.isascii():
        scripts = Counter(unicodedata.name(c, "?").split()[0].split("-")[0] for c in text if c.isalpha())
        if scripts and (script := scripts.most_common(1)[0][0]) not in ("LATIN", "FULLWIDTH", "MATHEMATICAL"):
            return f"{_SCRIPTS.get(script, script.capitalize())} script"
    words = set(_WORD.findall(text.lower()))
    hits = {language: len(words & small) for language, small in _SETS.items()}
    best = max(hits, key=hits.__getitem__)
    has_foreign_letters = any(not c.isascii() and c.isalpha() for c in text)
    return best if hits[best] > max(not has_foreign_letters, hits[ENGLISH]) else ENGLISH
