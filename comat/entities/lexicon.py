"""Words of prompt language that small parsers do not know well."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HYPHENS = "-‐‑"

COLOURS = _words("""
red orange yellow green blue purple pink black white brown gray grey gold golden silver beige turquoise cyan magenta
violet maroon navy teal tan crimson burgundy indigo scarlet azure mauve khaki taupe fuchsia chartreuse
""")
COLOURS_THAT_ARE_THINGS = _words("orange gold silver violet")
SHAPES = _words("""
round rectangular triangular square circular oval oblong spherical cylindrical conical cubic pyramidal pentagonal
hexagonal octagonal diamond teardrop crescent
""")
MATERIALS = _words("""
wooden metallic metal fabric leather plastic glass rubber ceramic chrome marble stone brick wool woolen cotton silk
velvet denim steel iron copper brass bronze granite concrete porcelain bamboo wicker fluffy
wood oak mahogany teak linen satin suede tweed nylon titanium aluminum aluminium clay terracotta cardboard limestone
sandstone obsidian vinyl
""")
GEMS = _words("emerald ruby sapphire jade amethyst topaz onyx opal pearl amber crystal ivory coral gold silver")
"""Materials of jewels, which are things where they stand alone."""
STATES = _words("vintage retro")
ATTRIBUTES = COLOURS | SHAPES | MATERIALS | STATES
"""Words that are attributes wherever a noun follows directly."""

QUANTIFIERS = _words("""
some any many much more most several few fewer little less other others another each every all both such same own
various numerous multiple different certain enough whole first second third last next
""")
"""What is tagged as an adjective but says how many or which, not what it looks like."""

SIZES = _words("""
small big large little tiny huge giant tall short long thin thick wide narrow old young new ancient modern light dark
bright good bad cute pretty beautiful first second last cold hot warm wet dry soft hard male female
""")
"""Adjectives that stand for no thing, though dictionaries know them as nouns."""

WITH_A_COMPLEMENT = _words("able unable ready free devoid likely due worth about")
"""Adjectives that say nothing of how a thing looks without what follows: "ready to go", "free of clutter"."""

AFTER_THE_NOUN = _words("""
full empty open closed ready alone asleep awake alive aloft afloat high wide deep long tall old close near far free able
available worth next due blank upright upside apart aside ablaze
""")
"""Adjectives that stand after their noun ("a box full of toys"), where a last word is otherwise taken for the noun."""

ING_THINGS = _words("""
awning bedding being building carving ceiling clothing covering crossing drawing dressing duckling dwelling earring
engraving etching evening filling flooring fringing frosting hanging herring icing king landing lettering lighting
lightning lining molding morning opening painting paneling plating pudding railing ring seedling serving sibling
siding sling spring casing trimming stuffing wrapping packaging padding paving planking scaffolding netting tiling
cladding fencing roofing marking fitting offering binding stitching shelving housing coating rigging
backing edging setting shading stocking string swing thing topping tubing wedding wing wiring writing
tracing scattering grading mapping
""")
"""Nouns in -ing that are no participles, also without an article."""

WORKS_IN_ING = _words("painting drawing rendering engraving etching carving")

PICTURES = _words("""
art artwork artworks painting paintings illustration illustrations photo photos photograph photographs photography
render renders rendering portrait portraits picture image images drawing sketch still poster print cover wallpaper
footage film movie animation cartoon anime comic design concept graphic graphics character texture quality resolution
shot lens setup studio background backdrop engine color colors effects look aesthetic camera scene composition frame
style styles mode hq view
""")
"""What says that a picture is made, and how: words before them are theirs ("octane render image", "low angle shot")."""

PERCEIVED = _words("watch see hear let make help feel spot observe have")
"""Verbs that another in its base form follows: "watching a bird soar"."""

TRANSITIVE = _words("""
wearing holding carrying riding eating drinking playing reading using making showing featuring depicting wielding
containing having including displaying hugging kissing chasing catching throwing kicking pushing pulling driving
watching facing crossing climbing cooking cutting painting writing drawing selling buying feeding petting fighting
leading exploring overlooking showcasing creating casting reflecting smoking giving taking bringing building cleaning
washing brushing touching grabbing licking biting chewing picking planting harvesting opening closing
starring revealing emitting exuding gripping clutching embracing devouring summoning sipping resembling sporting
portraying capturing conveying evoking highlighting emphasizing providing suggesting indicating
""")
"""Participles that take an object also where they open a fragment: "wearing blue jeans", not "glowing red eyes"."""

ACTIONS = TRANSITIVE - _words("""
painting writing drawing reading cutting driving cooking building crossing climbing fishing cleaning washing smoking
opening closing picking planting using feeding licking racing
""")
"""Those that make no compounds as "a cutting board" and "a crossing sign" are."""

COMPOUNDS = {
    ("award", "winning"), ("thought", "provoking"), ("eye", "catching"), ("jaw", "dropping"), ("mouth", "watering"),
    ("breath", "taking"), ("awe", "inspiring"), ("record", "breaking"), ("heart", "warming"), ("flesh", "eating"),
    ("path", "traced"), ("ray", "traced"), ("hand", "painted"), ("hand", "drawn"), ("hand", "made"), ("hand", "carved"),
    ("best", "selling"), ("time", "worn"), ("sun", "drenched"), ("star", "studded"), ("battle", "worn"),
    ("well", "known"), ("well", "lit"), ("well", "worn"), ("well", "dressed"),
}  # fmt: skip
"""Adjectives of two words that are often written without their hyphen."""

AGENTS = _words("""
man woman boy girl person child kid baby toddler infant guy lady gentleman adult teenager couple family crowd group
student teacher doctor nurse chef cook waiter farmer fisherman soldier sailor pilot driver rider surfer skier skater
skateboarder snowboarder player athlete runner dancer singer musician guitarist drummer pianist artist painter writer
monk nun priest pope king queen prince princess knight warrior samurai ninja wizard witch sorcerer mage elf dwarf goblin
orc demon devil angel ghost vampire zombie skeleton monster dragon alien robot android cyborg astronaut clown mermaid
fairy god goddess giant troll superhero hero pirate cowboy policeman officer fireman firefighter worker mechanic
businessman businesswoman scientist mother father mom dad grandmother grandfather son daughter brother sister bride
groom people men women children boys girls kids cat kitten dog puppy horse pony donkey cow bull calf sheep lamb goat pig
deer elephant giraffe zebra lion tiger leopard cheetah panther bear panda koala kangaroo monkey ape gorilla chimpanzee
rabbit bunny hare squirrel mouse rat hamster hedgehog fox wolf raccoon beaver otter badger skunk camel llama alpaca
bird chicken hen rooster duck goose swan eagle hawk owl parrot crow raven penguin flamingo peacock ostrich fish shark
whale dolphin seal octopus crab lobster frog toad turtle tortoise snake lizard gecko crocodile alligator dinosaur
sloth capybara corgi poodle bulldog husky unicorn centaur dinosaur creature animal character figure
""")
"""Who acts in "a dragon breathing fire", where "a fire breathing dragon" is a compound."""

BUILT = _words(
    "make build craft carve construct weave knit mold sculpt fashion forge cast compose consist form create cut build"
)
"""Verbs whose "of" or "from" names the material."""

DETERMINERS = _words("a an the my your his her its our their some every each another no")
"""What opens a noun phrase and is no phrase by itself."""

SUBJECTS = _words("i he she it they we")
"""Pronouns that a verb follows, and no noun."""

POSSESSIVES = _words("its their his her")

PREPOSITIONS = _words("""
above across against along alongside amid amidst among around at atop before behind below beneath beside besides between
beyond by during for from in into near of on onto to toward towards under underneath upon with within without
""")
"""Words that a noun phrase never goes on past."""

SIDES: dict[str, tuple[str, ...]] = dict.fromkeys(("left", "right"), ("of", "to"))
SIDES |= dict.fromkeys(("north", "south", "east", "west", "ahead"), ("of",))
SIDES |= dict.fromkeys(("next", "close", "adjacent", "opposite"), ("to",))
"""First word → second word of prepositions that are two words."""

UNITS = _words("k mm cm px mp hz fps p d")

INTENSIFIERS = _words("hyper ultra super extremely highly very extra mega uber insanely incredibly")
"""Words that say how much of an adjective; never attributes or things."""

SHAPED = _words("""
shaped colored coloured sized themed styled patterned flavored flavoured scented covered filled coated lined framed
inspired powered painted crafted made carved haired eyed mounted walled tiled topped lidded legged tipped studded
trimmed rimmed clad faced bodied sleeved tailed winged horned hooded handled wrapped
""")
"""Participles that a noun before them completes: "a heart shaped balloon", "a snow covered roof"."""

SUFFIXES = SHAPED | _words("like style free looking based type esque")
"""Last parts of hyphenated adjectives."""

FIRST_PARTS = _words("""
sci pre post semi neo anti non mid multi close wide full half self award hi lo ultra hyper photo well co re sub super
micro macro bio pseudo proto techno retro afro art steam low upper lower three two four one eye ear hand mother
""")
"""First parts of words that tokenizers leave with blanks around the hyphen: "sci - fi"."""

NEVER_THINGS = PREPOSITIONS | _words("""
and or but nor yet best most least
i you he she it we they me him us them this that these those who which what there here is are was were be been am do
does did has have had else would shall should could must might not very too so as than then when while where how why if
""")

PLURAL_ALONE = _words("""
jeans pants trousers shorts leggings tights overalls pajamas pyjamas briefs boxers trunks slacks khakis breeches
knickers panties scrubs glasses eyeglasses sunglasses spectacles goggles binoculars headphones earphones earbuds
scissors shears tongs pliers tweezers clippers nippers forceps bellows clothes stairs suspenders chinos sweatpants
dungarees bloomers pantyhose undies thongs data media news series species chess police christmas groceries graffiti
confetti spaghetti
""")
"""What has no singular that names the same thing."""
NO_SINGULAR = PLURAL_ALONE | _words("dice people canvas lens gas bus fries noodles paparazzi")
"""What stays as it is to name a thing: those, singulars in -s, and plurals that are the usual word."""
OTHER_SINGULARS = {"axes": "axe", "lenses": "lens"} | {
    f"{word}s": word
    for word in _words("cookie collie pixie rookie hippie hoodie zombie birdie genie goalie magpie brownie moustache")
}
"""Where spelling alone leads to another word: "cooky", "lense"."""

ADJECTIVAL = ("ic", "ed", "ian", "ish", "ive", "al", "ous", "ful", "able", "less", "esque", "core")
"""How words end that are adjectives where the dictionary does not know them."""

OTHER_VERBS = _words("showcase skateboard snowboard photobomb upcycle")
"""Verbs that the dictionary does not know as such."""
