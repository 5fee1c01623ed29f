"""Words of prompt language that small parsers do not know well."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COLOURS = _words("""
red orange yellow green blue purple pink black white brown gray grey gold golden silver beige turquoise cyan magenta
violet maroon navy teal tan crimson
""")
COLOURS_THAT_ARE_THINGS = _words("orange gold silver violet")
SHAPES = _words("""
round rectangular triangular square circular oval oblong spherical cylindrical conical cubic pyramidal pentagonal
hexagonal octagonal diamond teardrop crescent
""")
MATERIALS = _words("""
wooden metallic metal fabric leather plastic glass rubber ceramic chrome marble stone brick wool woolen cotton silk
velvet denim steel iron copper brass bronze granite concrete porcelain bamboo wicker fluffy
""")
ATTRIBUTES = COLOURS | SHAPES | MATERIALS
"""Words that are attributes wherever a noun follows directly."""

QUANTIFIERS = _words("""
some any many much more most several few fewer little less other others another each every all both such same own
various numerous different certain enough whole first second third last next
""")
"""What is tagged as an adjective but says how many or which, not what it looks like."""

AFTER_THE_NOUN = _words("""
full empty open closed ready alone asleep awake alive aloft afloat high wide deep long tall old close near far free able
available worth next due blank upright upside apart aside ablaze
""")
"""Adjectives that stand after their noun ("a box full of toys"), where a last word is otherwise taken for the noun."""

ING_THINGS = _words("""
awning bedding being building carving ceiling clothing covering crossing drawing dressing duckling dwelling earring
engraving etching evening filling flooring fringing frosting hanging herring icing king landing lettering lighting
lightning lining molding morning opening painting paneling plating pudding railing ring seedling serving sibling
siding sling spring stocking string swing thing topping tubing wedding wing wiring writing
""")
"""Nouns in -ing that are no participles, also without an article."""

BUILT = _words("make build craft carve construct weave knit mold sculpt fashion forge cast")
"""Verbs whose "of" or "from" names the material."""
