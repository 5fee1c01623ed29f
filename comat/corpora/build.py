"""The corpus: normalised, without duplicates, decontaminated against evaluation prompts, with a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from comat.corpora.contamination import Contamination, Match
from comat.corpora.hub import read_hub
from comat.corpora.lists import read_csv, read_json, read_jsonl, read_parquet, read_txt
from comat.corpora.overview import examples, languages, spread, token_counts
from comat.corpora.readers import read_abc6k, read_hrs, read_t2i_compbench
from comat.corpora.text import Spelling, folded, prompt_id
from comat.errors import UserError
from comat.params import BenchmarkFiles, PromptSource, PromptsParams
from comat.randomness import python_random, stratified
from comat.storage.prompt_text import Prompt

READERS: dict[str, Callable[..., Iterator[Prompt]]] = {
    "t2i_compbench": read_t2i_compbench,
    "hrs": read_hrs,
    "abc6k": read_abc6k,
    "txt": read_txt,
    "csv": read_csv,
    "tsv": read_csv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "hub": read_hub,
}
"""Format → reader."""

REASONS = {"exact": "in the evaluation", "near": "near an evaluation prompt"}


@dataclass(frozen=True)
class Corpus:
    """Rows of `prompts.parquet`, of `dropped.parquet` and of `evaluation.parquet`, and the report.

    The report counts what was read, kept, held out of that, and dropped by reason, by source; what each evaluation list
    removed; tokens with start and end, of the tokenizer that makes most; languages by guess; and shows examples.
    """

    rows: list[dict]
    dropped: list[dict]
    evaluation: list[dict]
    report: dict


@dataclass(frozen=True, slots=True)
class _Found:
    source: str
    category: str
    split: str
    text: str


def build_corpus(params: PromptsParams, seed: int, tokenizers: Sequence[PreTrainedTokenizerBase]) -> Corpus:
    """Read, normalise and sift all sources.

    Held-out prompts come first. A training prompt that is held out as well is dropped by decontamination alone.

    Raises:
        UserError: if a list is wrong, or no training prompt is left.
    """
    sources: dict[str, dict] = {
        source.name: {"read": 0, "kept": 0, "held_out": 0, "dropped": Counter()} for source in params.sources
    }
    spelling = Spelling(params.syntax)
    found = [prompt for source in params.sources for prompt in _drawn(source, seed, sources[source.name], spelling)]
    found.sort(key=lambda prompt: prompt.split != "test")
    lists = _evaluation(params, found, Spelling(params.syntax))
    rows, dropped = _sift(found, Contamination(lists, params.near_duplicate))
    del found
    if not any(row["split"] == "train" for row in rows):
        raise UserError("no training prompt is left: see prompts.sources and prompts.decontaminate in params.yaml")
    for row in rows:
        sources[row["source"]]["kept"] += 1
        sources[row["source"]]["held_out"] += row["split"] == "test"
    for row in dropped:
        sources[row["source"]]["dropped"][row["reason"]] += 1
    texts = [row["text"] for row in rows]
    most = [tokenizer.model_max_length for tokenizer in tokenizers]
    lengths, long = [], Counter[str]()
    for row, counts in zip(rows, token_counts(tokenizers, texts), strict=True):
        lengths.append(max(counts))
        long[row["source"]] += any(count > limit for count, limit in zip(counts, most, strict=True))
    for name, entry in sources.items():
        entry |= {"dropped": dict(sorted(entry["dropped"].items())), "too_long": long[name]}
    splits = Counter(row["split"] for row in rows)
    report = {
        "total": {"train": splits["train"], "test": splits["test"], "too_long": long.total()},
        "sources": sources,
        "evaluation": {name: {"prompts": len(own), **_matches(dropped, name)} for name, own in lists.items()},
        "tokens": {**spread(lengths), "limit": min(most)},
        "languages": languages(texts),
        "examples": examples(rows, seed),
        "syntax": spelling.report(),
    }
    near = params.near_duplicate
    evaluation = [{"list": name, "text": text, "near": near} for name, own in lists.items() for text in own]
    return Corpus(rows, dropped, evaluation, report)


def check_held_out(report: dict, benchmarks: BenchmarkFiles) -> None:
    """Refuse a corpus that leaves nothing to evaluate, before it has cost a training run.

    Raises:
        UserError: if no prompt is held out, and no benchmark brings its own.
    """
    if not report["total"]["test"] and not any(value is not None for _, value in benchmarks):
        raise UserError(
            "no prompt is held out, so that nothing could be evaluated: give a source in prompts.sources "
            "`hold_out: 0.1` or `split: test`, or name files in samples.benchmarks"
        )


def _drawn(source: PromptSource, seed: int, entry: dict, spelling: Spelling) -> Iterator[_Found]:
    """The prompts of a source, or as many as the parameters draw by seed from its categories, in their order."""
    prompts = list(READERS[source.format](source))
    entry["read"] = len(prompts)
    if 0 < source.sample < len(prompts):
        entry["dropped"]["not drawn"] = len(prompts) - source.sample
        rng = python_random(seed, "sample", source.name)
        prompts = stratified(prompts, source.sample, lambda prompt: prompt.category, rng)
    texts = [spelling(prompt.text) for prompt in prompts]
    apart = _set_apart(source, seed, [prompt.category for prompt in prompts], texts)
    for prompt, text in zip(prompts, texts, strict=True):
        split = "test" if apart and folded(text) in apart else prompt.split or source.split
        yield _Found(source.name, prompt.category, split, text)


def _set_apart(source: PromptSource, seed: int, categories: Sequence[str], texts: Sequence[str]) -> set[str]:
    """The folded prompts that `hold_out` takes: its share of the distinct ones, and within one of it of each category.

    At least one, and never all. Duplicates of a prompt go with it.
    """
    if not source.hold_out:
        return set()
    category_of = {folded(text): category for category, text in zip(categories, texts, strict=True)}
    keys = [key for key in category_of if key]
    if len(keys) < 2:  # none may be left to train on, nor none to hold out
        return set()
    count = min(max(1, round(source.hold_out * len(keys))), len(keys) - 1)
    return set(stratified(keys, count, category_of.__getitem__, python_random(seed, "hold out", source.name)))


def _evaluation(params: PromptsParams, found: Iterable[_Found], spelling: Spelling) -> dict[str, list[str]]:
    """Evaluation prompts by list: those that the sources hold out, and the lists that the parameters name."""
    lists: dict[str, list[str]] = {}
    if params.decontaminate:
        for prompt in found:
            if prompt.split == "test":
                lists.setdefault(prompt.source, []).append(prompt.text)
        for entry in params.evaluation:
            lists[entry.name] = [spelling(prompt.text) for prompt in READERS[entry.format](entry)]
    return lists


def _sift(found: Iterable[_Found], contamination: Contamination) -> tuple[list[dict], list[dict]]:
    """What is kept and what is dropped, with its reason and the evaluation prompt that it came too near to."""
    rows, dropped, seen = [], [], set()
    for prompt in tqdm(found, desc="prompts"):
        key, match = (prompt.split, folded(prompt.text)), None
        reason = "no words" if not key[1] else "duplicate" if key in seen else None
        if reason is None and prompt.split == "train" and (match := contamination.match(prompt.text)):
            reason = REASONS[match.kind]
        row = {"text": prompt.text, "source": prompt.source, "category": prompt.category, "split": prompt.split}
        if reason is None:
            seen.add(key)
            rows.append({"id": prompt_id(prompt.text, prompt.split), **row})
        else:
            match = match or Match("", "", "")
            dropped.append({**row, "reason": reason, "evaluation": match.list or None, "match": match.text or None})
    return rows, dropped


def _matches(dropped: Iterable[dict], name: str) -> dict[str, int]:
    """How many training prompts an evaluation list has removed."""
    reasons = Counter(row["reason"] for row in dropped if row["evaluation"] == name)
    return {kind: reasons[reason] for kind, reason in REASONS.items()}
