"""What base and tuned model are asked to draw."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from comat.params.section import Count, CountOrNone, Name, Section


class CocoPrompts(Section):
    """Images with captions: the captions are drawn, one of each image, and FID compares with the images."""

    images: Name  # folder or tar file
    captions: Name | None = None  # captions JSON of COCO or Karpathy, or a table; null: they stand beside the images
    split: Name | None = None  # of Karpathy's JSON
    count: Count  # images, drawn by seed


class BenchmarkFiles(Section):
    """Files of published benchmarks, whose prompts are drawn beside the held-out ones: docs/evaluation.md."""

    tifa: Name | None  # JSON of questions and answers
    dpg: Name | None  # CSV of questions
    geneval: Name | None  # JSON Lines of metadata
    coco: CocoPrompts | None
    dsg: Name | None = None  # CSV of questions, DSG-1k's
    geneval2: Name | None = None  # JSON Lines of questions and answers


class SeedsParams(Section):
    """Images per prompt, by what the prompt is of."""

    held_out: Count  # the sources' own, T2I-CompBench's among them
    tifa: Count
    dpg: Count
    geneval: Count
    coco: Count
    dsg: Count = 1
    geneval2: Count = 1


class SamplesParams(Section):
    prompts: CountOrNone  # held-out prompts to draw by seed from every category; 0 takes all
    benchmarks: BenchmarkFiles
    seeds: Annotated[
        Annotated[Count, Tag("(a number)")] | Annotated[SeedsParams, Tag("(by benchmark)")],
        Discriminator(lambda value: "(by benchmark)" if isinstance(value, dict | SeedsParams) else "(a number)"),
    ]  # images per prompt
    batch_size: Count  # images
    attention_prompts: CountOrNone  # prompts, drawn so as well, whose attention maps are kept

    def seeds_of(self, source: str) -> int:
        """Images of each prompt of a source or benchmark. Of a number COCO's captions take one: FID reads no more."""
        if isinstance(self.seeds, SeedsParams):
            return getattr(self.seeds, source if source in SeedsParams.model_fields else "held_out")
        return 1 if source == "coco" else self.seeds
