"""Corpora, lists of prompts, entities."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from comat.params.samples import BenchmarkFiles
from comat.params.section import Count, CountOrNone, Moment, Name, Section


class CorporaParams(Section):
    fetch: list[Literal["t2i_compbench", "hrs", "abc6k"]]  # published corpora to get; [] gets none
    source: Name | None  # folder that holds their files already; null downloads them


class _Listed(Section):
    """Where prompts are listed: a file, a folder of such files, or a data set on the hub."""

    name: Name
    format: str
    path: Name  # of format hub: the data set's id
    column: Name = "prompt"  # that holds the prompt, in tables and objects
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # of csv; null: what divides it best
    revision: Name | None = None  # of format hub: a commit, or refs/convert/parquet
    leave_out: list[str] = Field([])  # files of a folder to leave alone: patterns such as *_6k.csv

    @model_validator(mode="after")
    def _of_format(self) -> Self:
        where = f"list {self.name}: format {self.format}"
        if self.delimiter is not None and self.format != "csv":
            raise ValueError(f"{where} has no delimiter to choose; remove delimiter")
        if (self.revision is None) == (self.format == "hub"):
            raise ValueError(
                f"{where} needs a revision, a commit of the data set or refs/convert/parquet: got null"
                if self.format == "hub"
                else f"{where} has no revision; remove revision"
            )
        return self


class PromptList(_Listed):
    """A list of prompts."""

    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet", "hub"]


class PromptSource(_Listed):
    """A corpus of the pipeline: a list, or one of the published formats."""

    format: Literal["t2i_compbench", "hrs", "abc6k", "txt", "csv", "tsv", "json", "jsonl", "parquet", "hub"]
    split: Literal["train", "test"] = "train"  # test: held out. T2I-CompBench's files say it themselves
    sample: CountOrNone = 0  # prompts to draw by seed, of each category its share; 0 takes all
    hold_out: Moment = 0.0  # share of the prompts to hold out, drawn by seed from every category

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.format == "t2i_compbench" and (self.split != "train" or self.hold_out):
            raise ValueError(
                f"source {self.name}: the files of t2i_compbench say their split themselves; remove split and hold_out"
            )
        if self.split == "test" and self.hold_out:
            raise ValueError(f"source {self.name}: split is test, which holds all prompts out; remove hold_out")
        if self.format in ("t2i_compbench", "hrs", "abc6k", "txt") and self.column != "prompt":
            raise ValueError(f"source {self.name}: format {self.format} has no column to choose; remove column")
        return self


class PromptsParams(Section):
    sources: Annotated[list[PromptSource], Field(min_length=1)]
    decontaminate: bool  # drop training prompts that are evaluation prompts, or nearly; false: the paper's recipe
    evaluation: list[PromptList]  # evaluation prompts beside the sources' own held-out ones
    syntax: Literal["strip", "keep"]  # weights, networks and parameters of image tools: what the text encoder gets
    near_duplicate: Annotated[float, Field(ge=0.4, le=1)]  # Jaccard similarity of word 3-grams; 1 drops equal ones only

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [entry.name for entry in (*self.sources, *self.evaluation)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two lists are named {twice!r}: the report tells them apart by their names")
        taken = next((entry.name for entry in self.sources if entry.name in BenchmarkFiles.model_fields), None)
        if taken:
            raise ValueError(
                f"a source is named {taken!r}, as a benchmark of samples.benchmarks, whose images it would be judged "
                "among: give it another name"
            )
        return self


class EntitiesParams(Section):
    spacy_model: Name
    own_filter: Name | None  # YAML file that adds to the project's list of filtered nouns, or keeps some of it
    batch_size: Count  # prompts
    processes: Count  # changes no result
